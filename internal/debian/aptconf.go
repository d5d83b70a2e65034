package debian

import (
	"context"
	"os/exec"
	"strings"
	"time"
)

// HostAptOptions gives what the host's apt is told about reaching mirrors:
// proxies, how to find them, certificates. mmdebstrap does not read the host's
// apt configuration by itself.
func HostAptOptions(ctx context.Context) []string {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "apt-config", "dump", "--format", "%F \"%v\";%n").Output()
	if err != nil {
		return nil // no apt, nothing to honour
	}
	return aptOptions(string(out))
}

// aptOptions picks the lines that matter out of a dump of apt's configuration.
func aptOptions(dump string) []string {
	var keep []string
	for line := range strings.Lines(dump) {
		line = strings.TrimSpace(line)
		key, value, ok := strings.Cut(line, " ")
		if !ok || len(line) > 4096 || value == `"";` || strings.Count(value, `"`) != 2 {
			continue
		}
		switch low := strings.ToLower(key); {
		case strings.HasPrefix(low, "acquire::http::proxy"), strings.HasPrefix(low, "acquire::https::proxy"),
			strings.HasPrefix(low, "acquire::http::user-agent"),
			strings.HasPrefix(low, "acquire::https::ca"), strings.HasPrefix(low, "acquire::https::ssl"),
			strings.HasPrefix(low, "acquire::forceipv"):
			keep = append(keep, strings.TrimSuffix(line, ";"))
		}
	}
	return keep
}
