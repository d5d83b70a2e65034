package daemon

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/docker/go-units"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/version"
	"github.com/bangervm/banger/internal/vm"
	"github.com/bangervm/banger/internal/vmm"
)

// doctor checks what VMs need on this host. Each field is one look at the
// outside world, so that tests can show it any world.
type doctor struct {
	layout layout.Layout
	info   version.Info
	// root says that the daemon runs as root and needs no user namespaces.
	root bool
	// replaced says that the file of the running binary is no longer there.
	replaced func() bool
	// accelerator is what an ordinary VM would run on, and why; it may probe.
	accelerator func(ctx context.Context) (vm.Choice, error)
	vmms        []vmm.Driver // the preferred one first
	tools       []toolNeed
	tool        func(ctx context.Context, name string) (string, error)
	namespaces  func(ctx context.Context) error
	groups      func() error // why VMs get no control groups
	free        func(path string) (int64, error)
	memory      func() (int64, error)
	resolvers   func() ([]string, error)
	store       func(ctx context.Context) error
	guest       func() error // whether the guest binary is built in
	rootDisks   func() []vm.RootDisk
	image       func(ctx context.Context) (name string, err error)
	kernel      func(ctx context.Context) (name string, err error)
}

// toolNeed is one program and what it is for.
type toolNeed struct{ name, use, pkg string }

// hostTools are the programs we start besides the VMM.
func hostTools(root bool) []toolNeed {
	need := []toolNeed{
		{"mke2fs", "the disks of a VM", "e2fsprogs"},
		{"e2fsck", "growing a disk", "e2fsprogs"},
		{"resize2fs", "growing a disk", "e2fsprogs"},
		{"mmdebstrap", "building the default image and kernel", "mmdebstrap"},
	}
	if !root {
		need = append(need, toolNeed{"newuidmap", "building images without root", "uidmap"})
	}
	return need
}

// What is little room: under the first number nothing works, under the second
// a new image may not fit.
const (
	noDisk     = 512 << 20
	littleDisk = 4 << 30
	noMemory   = 256 << 20
)

// checkTime bounds one check. The accelerator's probe boots a real guest, of each
// driver if need be, and gives a slow host two minutes for one.
const checkTime = 250 * time.Second

// check is one line of the answer.
type check struct {
	name string
	look func(context.Context) api.Check
}

// run makes all checks at once and lists them in a fixed order.
func (d *doctor) run(ctx context.Context, clientBuild string) []api.Check {
	checks := []check{
		{"builds", func(context.Context) api.Check { return d.checkBuilds(clientBuild) }},
		{"folders", d.checkFolders},
		{"store", d.checkStore},
		{"disk-space", d.checkDisk},
		{"memory", d.checkMemory},
		{"vmm", d.checkVMM},
		{"accelerator", d.checkAccelerator},
		{"guest-binary", d.checkGuest},
		{"root-disks", d.checkRootDisks},
	}
	for _, need := range d.tools {
		checks = append(checks, check{"tool-" + need.name, func(ctx context.Context) api.Check { return d.checkTool(ctx, need) }})
	}
	checks = append(checks, []check{
		{"user-namespaces", d.checkNamespaces},
		{"control-groups", d.checkGroups},
		{"dns", d.checkResolvers},
		{"image", func(ctx context.Context) api.Check { return present(ctx, "image", d.image) }},
		{"kernel", func(ctx context.Context) api.Check { return present(ctx, "kernel", d.kernel) }},
	}...)
	list := make([]api.Check, len(checks))
	var wg sync.WaitGroup
	for i, c := range checks {
		wg.Go(func() { list[i] = examine(ctx, c) })
	}
	wg.Wait()
	return list
}

// examine makes one check, whatever it does, an answer in time.
func examine(ctx context.Context, c check) (result api.Check) {
	ctx, cancel := context.WithTimeout(ctx, checkTime)
	defer cancel()
	defer func() {
		if v := recover(); v != nil {
			result = api.Check{Status: api.CheckFail, Message: fmt.Sprintf("the check itself failed: %v; %s", v, firstLines(debug.Stack()))}
		}
		result.Name = c.name
	}()
	return c.look(ctx)
}

func firstLines(stack []byte) string {
	lines := strings.Split(string(stack), "\n")
	return strings.Join(lines[:min(len(lines), 8)], " ")
}

func pass(format string, args ...any) api.Check {
	return api.Check{Status: api.CheckPass, Message: fmt.Sprintf(format, args...)}
}

func warn(hint, format string, args ...any) api.Check {
	return api.Check{Status: api.CheckWarn, Message: fmt.Sprintf(format, args...), Hint: hint}
}

func skip(format string, args ...any) api.Check {
	return api.Check{Status: api.CheckSkip, Message: fmt.Sprintf(format, args...)}
}

// failed shows an error with the hint it carries, else with ours.
func failed(err error, hint string) api.Check {
	e := api.AsError(err)
	if e.Hint != "" {
		hint = e.Hint
	}
	return api.Check{Status: api.CheckFail, Message: e.Message, Hint: hint}
}

func (d *doctor) checkBuilds(client string) api.Check {
	switch {
	case client != "" && client != d.info.Build:
		return warn("banger daemon restart", "the daemon is build %s, the command %s; VMs run on while the daemon is restarted", d.info.Build, client)
	case d.replaced():
		return warn("banger daemon restart", "the daemon's program was replaced since it started; VMs run on while it is restarted")
	}
	return pass("version %s, build %s", d.info.Version, d.info.Build)
}

func (d *doctor) checkFolders(context.Context) api.Check {
	if err := d.layout.Ensure(); err != nil {
		return failed(err, "")
	}
	f, err := os.CreateTemp(d.layout.Staging(), "doctor-")
	if err != nil {
		return failed(fmt.Errorf("cannot write to %s: %w", d.layout.State, err), "export BANGER_ROOT=DIR with a folder you can write")
	}
	f.Close()
	if err := os.Remove(f.Name()); err != nil {
		return failed(err, "")
	}
	return pass("%s, %s and %s are ours alone", d.layout.State, d.layout.Cache, d.layout.Runtime)
}

func (d *doctor) checkStore(ctx context.Context) api.Check {
	if err := d.store(ctx); err != nil {
		return failed(err, "")
	}
	return pass("%s is sound", d.layout.Database())
}

func (d *doctor) checkDisk(context.Context) api.Check {
	n, err := d.free(d.layout.State)
	if err != nil {
		return failed(err, "")
	}
	free := units.BytesSize(float64(n))
	switch {
	case n < noDisk:
		return api.Check{Status: api.CheckFail, Message: fmt.Sprintf("%s free in %s: too little for a VM", free, d.layout.State), Hint: "banger vm prune --dry-run"}
	case n < littleDisk:
		return warn("banger vm prune --dry-run", "%s free in %s: a new image may not fit", free, d.layout.State)
	}
	return pass("%s free in %s", free, d.layout.State)
}

func (d *doctor) checkMemory(context.Context) api.Check {
	n, err := d.memory()
	if err != nil {
		return failed(err, "")
	}
	if n < noMemory {
		return warn("banger ps", "%s of memory available: too little for another VM", units.BytesSize(float64(n)))
	}
	return pass("%s of memory available", units.BytesSize(float64(n)))
}

// checkVMM lists what there is. One is enough.
func (d *doctor) checkVMM(ctx context.Context) api.Check {
	var found, missing []string
	var last error
	for _, driver := range d.vmms {
		v, err := driver.Check(ctx)
		if err != nil {
			last = err
			missing = append(missing, "no "+driver.Name()+": "+why(err))
			continue
		}
		text := fmt.Sprintf("%s %s, %s", driver.Name(), v.Text, v.Program)
		if v.Note != "" {
			text += " (" + v.Note + ")"
		}
		found = append(found, text)
	}
	if len(found) == 0 {
		c := failed(last, "sudo apt install qemu-system-x86")
		c.Message = strings.Join(missing, "; ")
		return c
	}
	return pass("%s", strings.Join(append(found, missing...), "; "))
}

func (d *doctor) checkAccelerator(ctx context.Context) api.Check {
	c, err := d.accelerator(ctx)
	switch {
	case api.KindOf(err) == api.KindNotFound:
		return skip("not probed: %v", err)
	case err != nil:
		return failed(err, "")
	case c.Accelerator != vmm.KVM:
		return warn(accelHint(c.Reason), "%s with %s: %s; VMs work, several times slower", c.Driver, c.Accelerator, c.Reason)
	}
	return pass("%s with %s: %s", c.Driver, c.Accelerator, c.Reason)
}

// accelHint is the next command where the reason is one a command can mend.
func accelHint(reason string) string {
	if strings.Contains(reason, "permission") {
		return "sudo usermod -aG kvm $USER"
	}
	return ""
}

func (d *doctor) checkGuest(context.Context) api.Check {
	if err := d.guest(); err != nil {
		return failed(err, "make build")
	}
	return pass("built in")
}

// checkRootDisks says which root disks VMs may have here. The default needs
// nothing, so that this never fails.
func (d *doctor) checkRootDisks(context.Context) api.Check {
	var words []string
	for i, r := range d.rootDisks() {
		switch {
		case r.Err != nil:
			words = append(words, r.Name+": no, "+why(r.Err))
		case i == 0:
			words = append(words, r.Name+" (the default)")
		default:
			words = append(words, r.Name+": yes")
		}
	}
	return pass("%s", strings.Join(words, "; "))
}

func (d *doctor) checkTool(ctx context.Context, need toolNeed) api.Check {
	text, err := d.tool(ctx, need.name)
	if err != nil {
		return failed(fmt.Errorf("needed for %s: %w", need.use, err), "sudo apt install "+need.pkg)
	}
	return pass("%s", text)
}

func (d *doctor) checkNamespaces(ctx context.Context) api.Check {
	if d.root {
		return skip("not needed by root")
	}
	if err := d.namespaces(ctx); err != nil {
		return failed(err, "sudo apt install uidmap")
	}
	return pass("user namespaces open, with a range of subordinate ids")
}

// checkGroups looks whether the kernel limits VMs as a whole. Without that their
// own limits hold.
func (d *doctor) checkGroups(ctx context.Context) api.Check {
	for _, driver := range d.vmms {
		if !driver.Capabilities().Groups {
			continue
		}
		if _, err := driver.Check(ctx); err != nil {
			continue
		}
		if err := d.groups(); err != nil {
			hint := ""
			if !d.root && api.KindOf(err) == api.KindUnsupported {
				hint = "banger daemon stop && systemd-run --user --scope -p Delegate=yes banger daemon run"
			}
			return warn(hint, "VMs under %s have no limits of control groups on memory, processes and processors: %s", driver.Name(), why(err))
		}
		return pass("limit memory, processes and processors of VMs under %s", driver.Name())
	}
	return skip("no driver here uses them")
}

func (d *doctor) checkResolvers(context.Context) api.Check {
	list, err := d.resolvers()
	if err != nil {
		return failed(err, "cat /etc/resolv.conf")
	}
	if len(list) == 0 {
		return warn("cat /etc/resolv.conf", "the host names no DNS resolver: guests will not resolve names")
	}
	return pass("guests resolve names through %s", strings.Join(list, ", "))
}

// present says whether the default image or kernel is there. That it is not is
// nothing wrong: its first use pulls it.
func present(ctx context.Context, noun string, look func(context.Context) (string, error)) api.Check {
	name, err := look(ctx)
	switch {
	case api.KindOf(err) == api.KindNotFound:
		return warn(fmt.Sprintf("banger %s pull %s", noun, name), "%s is not here yet: its first use pulls it", name)
	case err != nil:
		return failed(err, "")
	}
	return pass("%s is here", name)
}
