package debian

import (
	"bufio"
	"fmt"
	"io"
	"strings"
)

// maxStatus bounds dpkg's status file, in bytes.
const maxStatus = 64 << 20

// ReadStatus reads dpkg's status file: the version of each package.
func ReadStatus(r io.Reader) (map[string]string, error) {
	packages := map[string]string{}
	sc := bufio.NewScanner(io.LimitReader(r, maxStatus))
	sc.Buffer(nil, 1<<20)
	name := ""
	for sc.Scan() {
		line := sc.Text()
		if v, ok := strings.CutPrefix(line, "Package: "); ok {
			name = v
		} else if v, ok := strings.CutPrefix(line, "Version: "); ok && name != "" {
			packages[name] = v
		} else if line == "" {
			name = ""
		}
	}
	if err := sc.Err(); err != nil {
		return nil, fmt.Errorf("dpkg status: %w", err)
	}
	return packages, nil
}
