package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/layers/layerstest"
)

// benchPull compares banger image pull of a large image from a local registry, up
// to its bootable disk, with skopeo and umoci on the same way to a folder. Memory
// and processor time are the daemon's and the command's.
func benchPull(l *lab) ([]figure, error) {
	dir, err := os.MkdirTemp(filepath.Dir(l.root), "banger-b")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	fmt.Fprintln(os.Stderr, "making the image…")
	layout := filepath.Join(dir, "layout")
	if _, err := layerstest.Layout(layout, "v1", layerstest.Gzip, layerstest.Standard().Sources()); err != nil {
		return nil, err
	}
	address, stop, err := startRegistry(dir)
	if err != nil {
		return nil, err
	}
	defer stop()
	ctx := context.Background()
	ref := address + "/team/big:v1"
	if err := quiet(ctx, "skopeo", "copy", "--dest-tls-verify=false", "oci:"+layout+":v1", "docker://"+ref); err != nil {
		return nil, err
	}
	if err := os.RemoveAll(layout); err != nil {
		return nil, err
	}
	p := &puller{lab: l, ref: ref}
	ours, theirs, err := alternate(l.long(), p.fresh, func() error {
		return errors.Join(
			quiet(ctx, "skopeo", "copy", "--src-tls-verify=false", "docker://"+ref, "oci:"+filepath.Join(dir, "copy")+":v1"),
			quiet(ctx, "umoci", "unpack", "--image", filepath.Join(dir, "copy")+":v1", filepath.Join(dir, "bundle")),
		)
	}, func() error {
		return errors.Join(os.RemoveAll(filepath.Join(dir, "copy")), os.RemoveAll(filepath.Join(dir, "bundle")))
	})
	if err != nil {
		return nil, err
	}
	first := p.costs
	var cached, here []float64
	for range l.long() {
		if err := p.forget(false); err != nil {
			return nil, err
		}
		t, err := timed(p.pull)
		if err != nil {
			return nil, err
		}
		cached = append(cached, t)
	}
	for range l.runs {
		t, err := timed(p.pull)
		if err != nil {
			return nil, err
		}
		here = append(here, t)
	}
	figures := pullFigures(ours, theirs, cached, here, first)
	copies, err := l.baseOf10(ref)
	return append(figures, copies), errors.Join(err, p.forget(true))
}

// alternate times a and b, and tidies up after b.
func alternate(runs int, a func() (float64, error), b, tidy func() error) (as, bs []float64, err error) {
	for range runs {
		ta, err := a()
		if err != nil {
			return nil, nil, err
		}
		tb, err := timed(b)
		if err := errors.Join(err, tidy()); err != nil {
			return nil, nil, err
		}
		as, bs = append(as, ta), append(bs, tb)
	}
	return as, bs, nil
}

func pullFigures(ours, theirs, cached, here []float64, costs []pullCost) []figure {
	var memory, busy []float64
	for i, c := range costs {
		memory = append(memory, c.peak)
		busy = append(busy, ours[i]/(c.cpu.Seconds()/2))
	}
	last := costs[len(costs)-1]
	return []figure{
		ratio("1.5 GB, 50,000 entries, 10 layers: image pull, to bootable", ours, theirs, "skopeo copy, umoci unpack", 0.8),
		{Name: "the same, wall against processor time / 2", Value: median(busy), Unit: "x", Limit: 1.3,
			Note: fmt.Sprintf("processor time %.1f s, of it the system's %.1f s; at work: %s", last.cpu.Seconds(), last.system.Seconds(), last.stages)},
		{Name: "the daemon's memory during it, at most", Value: median(memory), Unit: "MiB", Limit: 200},
		ratio("the same with its layers cached", cached, ours, "the first time", 0.7),
		{Name: "the same with the image there", Value: median(here), Unit: "s", Limit: 0.1, Ours: here},
	}
}

// puller pulls one image, again and again.
type puller struct {
	*lab
	ref   string
	costs []pullCost
}

// pullCost is what a pull took of the machine.
type pullCost struct {
	cpu, system time.Duration
	peak        float64 // MiB
	stages      string
}

func (p *puller) pull() error {
	_, err := p.banger("image", "pull", p.ref)
	return err
}

// forget deletes the image, if it is here, and with blobs what was downloaded.
func (p *puller) forget(blobs bool) error {
	if _, err := p.banger("image", "show", p.ref); err == nil {
		if _, err := p.banger("image", "delete", p.ref, "--yes"); err != nil {
			return err
		}
	}
	if !blobs {
		return nil
	}
	_, err := p.banger("image", "prune", "--yes")
	return err
}

// fresh times a pull of which nothing is here, and takes down what it cost.
func (p *puller) fresh() (float64, error) {
	if err := p.forget(true); err != nil {
		return 0, err
	}
	var d api.Daemon
	out, err := p.banger("daemon", "status", "--json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &d)
	}
	if err != nil {
		return 0, err
	}
	proc := filepath.Join("/proc", strconv.Itoa(d.PID))
	// The peak counts from here: proc(5), clear_refs.
	if err := os.WriteFile(filepath.Join(proc, "clear_refs"), []byte("5"), 0); err != nil {
		return 0, err
	}
	before, beforeSystem, err := cpuOf(proc)
	if err != nil {
		return 0, err
	}
	cmd := p.command("image", "pull", p.ref)
	t, err := timed(cmd.Run)
	if err != nil {
		return 0, fmt.Errorf("image pull: %w", err)
	}
	after, afterSystem, err := cpuOf(proc)
	if err != nil {
		return 0, err
	}
	c := pullCost{cpu: after - before + cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime(), system: afterSystem - beforeSystem}
	if c.peak, err = peakOf(proc); err != nil {
		return 0, err
	}
	c.stages, err = lastFlattening(p.layout.DaemonLog())
	p.costs = append(p.costs, c)
	return t, err
}

// cpuOf is the processor time of a process, and the system's share of it.
func cpuOf(proc string) (all, system time.Duration, err error) {
	b, err := os.ReadFile(filepath.Join(proc, "stat"))
	if err != nil {
		return 0, 0, err
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	const tick = 10 * time.Millisecond // USER_HZ is 100 wherever Linux runs
	user, uerr := strconv.Atoi(f[11])
	sys, serr := strconv.Atoi(f[12])
	return time.Duration(user+sys) * tick, time.Duration(sys) * tick, errors.Join(uerr, serr)
}

// peakOf is the most memory a process had, in MiB.
func peakOf(proc string) (float64, error) {
	b, err := os.ReadFile(filepath.Join(proc, "status"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "VmHWM:"); ok {
			kb, err := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kb / 1024, err
		}
	}
	return 0, errors.New("no VmHWM")
}

// lastFlattening is what the daemon's log says of the stages of its last one.
func lastFlattening(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	said := ""
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if line := sc.Text(); strings.Contains(line, `msg="flattened layers"`) {
			_, said, _ = strings.Cut(line, "decompress=")
		}
	}
	if said == "" {
		return "", errors.New("the daemon's log tells of no flattening")
	}
	return "decompress=" + said, nil
}

// baseOf10 makes ten machines of an image and says how many copies of it there
// are on the disk then.
func (l *lab) baseOf10(ref string) (figure, error) {
	var i api.Image
	out, err := l.banger("image", "show", ref, "--json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &i)
	}
	if err != nil {
		return figure{}, err
	}
	base, err := diskOf(l.layout.Image(i.ID).Dir)
	if err != nil {
		return figure{}, err
	}
	before, err := diskOf(l.root)
	if err != nil {
		return figure{}, err
	}
	var ids []string
	for range 10 {
		vm, err := l.create("--memory", "256M", "--image", ref)
		if err != nil {
			return figure{}, errors.Join(err, l.delete(ids...))
		}
		ids = append(ids, vm.ID)
	}
	after, err := diskOf(l.root)
	copies := 1 + float64(after-before)/float64(base)
	return figure{Name: "disk of the image and of all of 10 running machines, in copies of it", Value: copies, Unit: "copies", Limit: 1.1,
		Note: fmt.Sprintf("the image %d MB, all else of the machines %d MB", base>>20, (after-before)>>20)}, errors.Join(err, l.delete(ids...))
}

// diskOf is what a folder takes of the disk, in bytes; files that vanish meanwhile
// count nothing.
func diskOf(dir string) (int64, error) {
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		fi, err := d.Info()
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil {
			sum += fi.Sys().(*syscall.Stat_t).Blocks * 512
		}
		return err
	})
	return sum, err
}

// benchBusybox compares a machine of an image of busybox alone with one of the
// default image.
func benchBusybox(l *lab) ([]figure, error) {
	dir, err := os.MkdirTemp(filepath.Dir(l.root), "banger-b")
	if err != nil {
		return nil, err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	download := exec.Command("apt-get", "download", "-q", "busybox-static")
	download.Dir = dir
	if out, err := download.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("cannot download busybox-static: %w: %s", err, out)
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != 1 {
		return nil, fmt.Errorf("%d packages came: %w", len(debs), err)
	}
	root := filepath.Join(dir, "root")
	if err := quiet(context.Background(), "dpkg-deb", "-x", debs[0], root); err != nil {
		return nil, err
	}
	if err := os.Symlink("busybox", filepath.Join(root, "bin/true")); err != nil {
		return nil, err
	}
	tar := filepath.Join(dir, "busybox.tar")
	if err := quiet(context.Background(), "tar", "-C", root, "-cf", tar, "bin"); err != nil {
		return nil, err
	}
	if _, err := l.banger("image", "import", tar, "--name", "busybox"); err != nil {
		return nil, err
	}
	run := func(image ...string) func() error {
		return func() error {
			args := append([]string{"vm", "run", "--rm", "--vcpu", "1", "--memory", "512M"}, image...)
			_, err := l.banger(append(args, "--", "true")...)
			return err
		}
	}
	ours, theirs, err := l.pairs(run("--image", "busybox"), run())
	_, derr := l.banger("image", "delete", "busybox", "--yes")
	return []figure{ratio("vm run --rm of an image of busybox", ours, theirs, "the default image", 1.05)}, errors.Join(err, derr)
}

// startRegistry runs Debian's docker-registry on a loopback port.
func startRegistry(dir string) (address string, stop func(), err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	address = l.Addr().String()
	if err := l.Close(); err != nil {
		return "", nil, err
	}
	config := fmt.Sprintf("version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: %s\nhttp:\n  addr: %s\n", filepath.Join(dir, "registry"), address)
	path := filepath.Join(dir, "registry.yml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return "", nil, err
	}
	cmd := exec.Command("docker-registry", "serve", path)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	stop = func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		resp, err := http.Get("http://" + address + "/v2/")
		if err == nil {
			_ = resp.Body.Close()
			return address, stop, nil
		}
		if time.Now().After(deadline) {
			stop()
			return "", nil, err
		}
	}
}
