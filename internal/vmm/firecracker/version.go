package firecracker

import (
	"context"
	"fmt"
	"regexp"
	"strconv"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/vmm"
)

// version of Firecracker; pre says that it comes before the release of the number.
type version struct {
	major, minor, patch int
	pre                 bool
}

func (v version) String() string { return fmt.Sprintf("%d.%d.%d", v.major, v.minor, v.patch) }

// has says whether the version knows what came with 1.minor. A build from before
// that release may have been made before it came.
func (v version) has(minor int) bool {
	return v.major > 1 || v.major == 1 && (v.minor > minor || v.minor == minor && (v.patch > 0 || !v.pre))
}

const (
	// oldestMinor is the first 1.x that boots Debian's kernel the PVH way and
	// takes ctrl-alt-del with it.
	oldestMinor = 12
	// newestMinor is the last 1.x whose changes were looked through. Its
	// successors are taken with a note: within 1.x nothing may break.
	newestMinor = 16
)

// What versions have that others lack: they refuse fields they do not know.
const (
	minorReporting = 14 // free_page_reporting of the balloon
	minorMTU       = 16 // mtu of a network interface
)

var (
	versionText = regexp.MustCompile(`^v?(\d{1,4})\.(\d{1,4})\.(\d{1,4})(?:([-+])[0-9A-Za-z.+-]{1,64})?$`)
	versionLine = regexp.MustCompile(`^Firecracker v(\S{1,100})`)
)

// parseVersion reads 1.12.1 or 1.14.0-dev.
func parseVersion(text string) (version, bool) {
	m := versionText.FindStringSubmatch(text)
	if m == nil {
		return version{}, false
	}
	number := func(s string) int {
		n, _ := strconv.Atoi(s) // four digits at most
		return n
	}
	return version{number(m[1]), number(m[2]), number(m[3]), m[4] == "-"}, true
}

// usable refuses versions we cannot run guests with. The note is what is to be
// said of one we can.
func (v version) usable(program string) (note string, err error) {
	refuse := func(format string, args ...any) error {
		return api.Errorf(api.KindUnsupported, "cannot use %s: version %s "+format, append([]any{program, v}, args...)...).WithHint(fetchHint)
	}
	switch {
	case v.major == 1 && v.minor == 16 && v.patch <= 1:
		return "", refuse("lets no new connection reach the guest after a pause; 1.16.2 is mended")
	case v.major < 1 || v.major == 1 && v.minor < oldestMinor:
		return "", refuse("is older than 1.%d", oldestMinor)
	case v.major > 1:
		return "", refuse("is of a generation this banger does not know")
	case v.minor > newestMinor:
		return fmt.Sprintf("newer than 1.%d, the newest this banger knows", newestMinor), nil
	}
	return "", nil
}

// Check runs Firecracker for its version; the answer is kept as long as the
// program's file does not change.
func (d *Driver) Check(ctx context.Context) (vmm.Version, error) {
	path, err := d.find()
	if err != nil {
		return vmm.Version{}, err
	}
	return d.version.Check(ctx, path, "Firecracker", fetchHint, func(out []byte) (vmm.Version, error) {
		var v version
		m := versionLine.FindSubmatch(out)
		ok := m != nil
		if ok {
			v, ok = parseVersion(string(m[1]))
		}
		if !ok {
			return vmm.Version{}, api.Errorf(api.KindUnsupported, "cannot use %s: what it prints for --version is not Firecracker's", path).WithHint(fetchHint)
		}
		note, err := v.usable(path)
		return vmm.Version{Program: path, Text: v.String(), Note: note}, err
	})
}
