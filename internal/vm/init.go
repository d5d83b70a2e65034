package vm

import (
	"context"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/vmm"
)

// What process 1 of a guest is.
const (
	initAgent = "agent" // ours
	initImage = "image" // the image's own, our agent beside it
)

// initPatience is how long commands wait for the image's init to finish its
// start; they run then all the same. It starts dozens of programs, each of which
// emulation translates anew.
func initPatience(accel vmm.Accelerator) time.Duration {
	if accel == vmm.TCG {
		return 6 * time.Minute
	}
	return 2 * time.Minute
}

// chooseInit decides what process 1 is, and says why. An image wants its own
// where the first word of what it runs, entrypoint and command together, is one.
func chooseInit(asked string, image api.ImageConfig) (init, reason string) {
	if asked == initAgent || asked == initImage {
		return asked, "asked for"
	}
	if argv := ownInit(image); argv != nil {
		return initImage, "the image runs " + argv[0]
	}
	return initAgent, "the image runs no init of its own"
}

// ownInit is the init that an image runs, with its arguments; nil where it runs
// none.
func ownInit(image api.ImageConfig) []string {
	argv := slices.Concat(image.Entrypoint, image.Cmd)
	if len(argv) == 0 || !strings.HasPrefix(argv[0], "/") {
		return nil
	}
	dir, name := path.Split(path.Clean(argv[0]))
	switch dir {
	case "/", "/bin/", "/sbin/", "/usr/bin/", "/usr/sbin/", "/lib/systemd/", "/usr/lib/systemd/":
	default:
		return nil
	}
	switch name {
	case "init", "systemd", "openrc-init":
		return argv
	}
	return nil
}

// askHealth asks a guest that has booted how that went, and keeps the answer for
// those who look.
func (m *Manager) askHealth(mc *machine, r *running) {
	m.spawn(func(ctx context.Context) {
		ctx, stop := r.until(ctx, m.times.ReadyTCG+initPatience(vmm.TCG))
		defer stop()
		guest, now := mc.guest()
		if guest == nil || now != r {
			return
		}
		h, err := guest.Health(ctx)
		if err != nil {
			return // whoever uses the guest hears of it
		}
		mc.update(func() { r.health = h })
	})
}
