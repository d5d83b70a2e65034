package child

import (
	"bytes"
	"context"
	"os/exec"
	"sync"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/vmm"
)

// versionPatience is how long a program may take to say its version: an emulated
// or busy host is slow to load it.
const versionPatience = 30 * time.Second

// Version asks programs for their version. The answer is kept as long as the
// program's file does not change. The zero value is ready.
type Version struct {
	mu      sync.Mutex
	checked Identity
	version vmm.Version
}

// Check runs the program of that path with --version and has read look at the
// beginning of what it prints. An error of ours is of kind unavailable and has
// the hint; name is what people call the program.
func (v *Version) Check(ctx context.Context, path, name, hint string, read func(out []byte) (vmm.Version, error)) (vmm.Version, error) {
	id, err := Identify(path)
	if err != nil {
		return vmm.Version{}, api.Errorf(api.KindUnavailable, "cannot look at %s: %w", name, err).WithHint("%s", hint)
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.checked == id {
		return v.version, nil
	}
	ctx, cancel := context.WithTimeout(ctx, versionPatience)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.Stdout = &Limited{W: &out, Left: 4 << 10}
	cmd.WaitDelay = time.Second
	if err := cmd.Run(); err != nil {
		return vmm.Version{}, api.Errorf(api.KindUnavailable, "cannot run %s --version: %w", path, err).WithHint("%s", hint)
	}
	found, err := read(out.Bytes())
	if err != nil {
		return vmm.Version{}, err
	}
	v.checked, v.version = id, found
	return found, nil
}
