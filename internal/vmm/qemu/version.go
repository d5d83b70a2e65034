package qemu

import (
	"bytes"
	"context"
	"os/exec"
	"regexp"
	"strconv"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/vmm"
	"github.com/bangervm/banger/internal/vmm/child"
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
	id, err := child.Identify(path)
	if err != nil {
		return vmm.Version{}, api.Errorf(api.KindUnavailable, "cannot look at QEMU: %w", err).WithHint(installHint)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.checked == id {
		return d.version, nil
	}
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second) // an emulated or busy host is slow to load it
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.Stdout = &child.Limited{W: &out, Left: 4 << 10}
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return vmm.Version{}, api.Errorf(api.KindUnavailable, "cannot run %s --version: %w", path, err).WithHint(installHint)
	}
	v, ok := parseVersion(out.Bytes())
	if !ok {
		return vmm.Version{}, api.Errorf(api.KindUnsupported, "cannot use %s: what it prints for --version is not QEMU's", path).WithHint(installHint)
	}
	if v.Less(oldest) {
		return vmm.Version{}, api.Errorf(api.KindUnsupported, "cannot use %s: version %s is older than %d.%d", path, v, oldest.Major, oldest.Minor).WithHint(installHint)
	}
	d.checked, d.version = id, vmm.Version{Program: path, Text: v.String()}
	return d.version, nil
}
