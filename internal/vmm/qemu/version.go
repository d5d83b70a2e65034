package qemu

import (
	"context"
	"regexp"
	"strconv"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/vmm"
	"github.com/bangervm/banger/internal/vmm/qemu/qmp"
)

// oldest is the first QEMU with -netdev stream, which the user network needs.
var oldest = qmp.Version{Major: 7, Minor: 2}

var versionLine = regexp.MustCompile(`^QEMU emulator version (\d{1,4})\.(\d{1,4})(?:\.(\d{1,4}))?`)

// parseVersion reads what --version prints.
func parseVersion(out []byte) (qmp.Version, bool) {
	m := versionLine.FindSubmatch(out)
	if m == nil {
		return qmp.Version{}, false
	}
	number := func(b []byte) int {
		n, _ := strconv.Atoi(string(b)) // at most four digits, or none
		return n
	}
	return qmp.Version{Major: number(m[1]), Minor: number(m[2]), Micro: number(m[3])}, true
}

// Check runs QEMU for its version; the answer is kept as long as the program's
// file does not change.
func (d *Driver) Check(ctx context.Context) (vmm.Version, error) {
	path, err := d.find()
	if err != nil {
		return vmm.Version{}, err
	}
	return d.version.Check(ctx, path, "QEMU", installHint, func(out []byte) (vmm.Version, error) {
		v, ok := parseVersion(out)
		if !ok {
			return vmm.Version{}, api.Errorf(api.KindUnsupported, "cannot use %s: what it prints for --version is not QEMU's", path).WithHint(installHint)
		}
		if v.Less(oldest) {
			return vmm.Version{}, api.Errorf(api.KindUnsupported, "cannot use %s: version %s is older than %d.%d", path, v, oldest.Major, oldest.Minor).WithHint(installHint)
		}
		return vmm.Version{Program: path, Text: v.String()}, nil
	})
}
