package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/host"
	"github.com/bangervm/banger/internal/initramfs"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/vmm"
	"github.com/bangervm/banger/internal/vmm/probe"
	"github.com/bangervm/banger/internal/vmm/qemu"
)

// direct runs rows on this very host: inside a lab, and on any host with KVM.
type direct struct {
	packages string // folder with pkg/PATH/NAME.test
	banger   string
	store    string // the store rows may use
	user     string // the ordinary user of rows as dev, for root
	out      string // logs and results go here
}

// checkKVM refuses a host on which no guest runs under KVM: what is counted
// there as KVM would be something else.
func checkKVM(ctx context.Context, store string) error {
	kernel, err := storeKernel(store)
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "banger-kvm-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	o := probe.Options{
		Driver: qemu.New(qemu.Options{}, log), Kernel: kernel.VMLinux(), Log: log,
		// An emulated host on a busy one: whether KVM works is asked, not how fast.
		FirstOutput: time.Minute, Total: 4 * time.Minute,
		Initrd: func(_ context.Context, path string) error {
			return initramfs.Write(layout.Layout{Cache: dir}, path, kernel.BootModules(), guestapi.Config{Protocol: guestapi.Protocol, Probe: true})
		},
	}
	if os.Getenv("BANGER_LAB") != "" { // once a boot
		o.HostBoot, o.CachePath = host.New(os.Getenv).BootID(), "/lab/tmp/kvm.json"
	}
	accelerator, why, err := probe.Run(ctx, o)
	if err != nil {
		return err
	}
	if accelerator != vmm.KVM {
		return fmt.Errorf("no guest runs under KVM here: %s", why)
	}
	say("%s", why)
	return nil
}

// run runs one row and keeps its output as ROW.log.
func (d direct) run(ctx context.Context, r row) (result, error) {
	ctx, cancel := context.WithTimeout(ctx, r.timeout())
	defer cancel()
	who, err := d.who(r)
	if err != nil {
		return result{}, err
	}
	if d.store != "" && who != nil {
		if err := output(ctx, "chown", "-R", who.Username+":", d.store); err != nil {
			return result{}, err
		}
	}
	dir := filepath.Join(d.packages, packageDir(r.Package))
	argv := []string{
		filepath.Join(dir, testBinary(r.Package)), "-test.v", "-test.count=1", "-test.run", r.Run, "-test.timeout", r.timeout().String(),
	}
	if r.Host == hostSystemd {
		if argv, err = d.session(argv, r); err != nil {
			return result{}, err
		}
	}
	var log bytes.Buffer
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = &log, &log
	cmd.Env = append(withoutBanger(os.Environ()), "BANGER_BIN="+d.banger, "BANGER_TEST_STORE="+d.store, "BANGER_LAB="+os.Getenv("BANGER_LAB"))
	cmd.Env = append(cmd.Env, r.environment()...)
	// Its own process group: what it leaves behind at a time-out goes too.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	if who != nil {
		if err := become(cmd, who); err != nil {
			return result{}, err
		}
	}
	began := time.Now()
	runErr := cmd.Run()
	got, err := count(bytes.NewReader(log.Bytes()))
	if err != nil {
		return result{}, err
	}
	got.Row, got.Seconds = r.Name, time.Since(began).Seconds()
	switch {
	case ctx.Err() != nil:
		got.Problem = fmt.Sprintf("did not end within %s", r.timeout())
	case runErr != nil && got.Failed == 0:
		got.Problem = fmt.Sprintf("ended with %v", runErr)
	}
	return got, os.WriteFile(filepath.Join(d.out, r.Name+".log"), log.Bytes(), 0o644)
}

// session puts a row that wants systemd into a scope: what a login of the row's
// user has.
func (d direct) session(argv []string, r row) ([]string, error) {
	if !exists("/run/systemd/system") {
		return nil, fmt.Errorf("row %s wants systemd as process 1, and this host has another", r.Name)
	}
	return inSession(argv, r.As), nil
}

// who is the user to become for a row; nil means to stay who we are.
func (d direct) who(r row) (*user.User, error) {
	root := os.Geteuid() == 0
	switch {
	case r.As == "root" && !root:
		return nil, fmt.Errorf("row %s runs as root, and we are not", r.Name)
	case r.As == "root":
		return user.Current()
	case !root:
		return nil, nil
	}
	u, err := user.Lookup(d.user)
	if err != nil {
		return nil, fmt.Errorf("row %s runs as an ordinary user: %w; -user names one who may open /dev/kvm", r.Name, err)
	}
	return u, nil
}

// become makes the command the user's, with their groups and home.
func become(cmd *exec.Cmd, u *user.User) error {
	ids, err := u.GroupIds()
	if err != nil {
		return err
	}
	cred := &syscall.Credential{}
	for _, n := range append([]string{u.Uid, u.Gid}, ids...) {
		if _, err := strconv.ParseUint(n, 10, 32); err != nil {
			return fmt.Errorf("user %s: id %s: %w", u.Username, n, err)
		}
	}
	number := func(s string) uint32 { n, _ := strconv.ParseUint(s, 10, 32); return uint32(n) } // checked above
	cred.Uid, cred.Gid = number(u.Uid), number(u.Gid)
	for _, id := range ids {
		cred.Groups = append(cred.Groups, number(id))
	}
	cmd.SysProcAttr.Credential = cred
	cmd.Env = append(cmd.Env, "HOME="+u.HomeDir, "USER="+u.Username, "LOGNAME="+u.Username)
	if dir := "/run/user/" + u.Uid; u.Uid != "0" && exists(dir) {
		cmd.Env = append(cmd.Env, "XDG_RUNTIME_DIR="+dir, "DBUS_SESSION_BUS_ADDRESS=unix:path="+dir+"/bus")
	}
	return nil
}

// suiteDirect runs rows here, one after the other.
func suiteDirect(ctx context.Context, o options, rows []row) (int, error) {
	d := direct{user: o.directUser, out: o.out, banger: os.Getenv("BANGER_BIN"), store: os.Getenv("BANGER_TEST_STORE"), packages: "/lab/in"}
	if os.Getenv("BANGER_LAB") == "" {
		remove, err := d.prepare(ctx, rows)
		if err != nil {
			return codeFailed, err
		}
		defer remove()
	}
	if d.out == "" {
		d.out = "."
	}
	if err := os.MkdirAll(d.out, 0o755); err != nil {
		return codeFailed, err
	}
	if err := checkKVM(ctx, d.store); err != nil {
		return codeFailed, err
	}
	results := map[string]result{}
	for _, r := range rows {
		if o.directAs != "" && r.As != o.directAs {
			continue
		}
		got, err := d.run(ctx, r)
		if err != nil {
			return codeFailed, err
		}
		results[r.Name] = got
		report(os.Stdout, r, got, filepath.Join(d.out, r.Name+".log"))
		if err := writeJSON(filepath.Join(d.out, r.Name+".json"), got); err != nil {
			return codeFailed, err
		}
	}
	if o.directAs != "" {
		rows = onlyAs(rows, o.directAs)
	}
	if len(rows) > 1 || os.Getenv("BANGER_LAB") == "" {
		if bad, _ := table(os.Stdout, rows, results); bad > 0 {
			return 1, nil
		}
		return 0, nil
	}
	for _, r := range rows {
		if results[r.Name].verdict(r) != "" {
			return 1, nil
		}
	}
	return 0, nil
}

func onlyAs(rows []row, as string) []row {
	var out []row
	for _, r := range rows {
		if r.As == as {
			out = append(out, r)
		}
	}
	return out
}

// prepare compiles the tests and copies a store, for a host that is no lab.
func (d *direct) prepare(ctx context.Context, rows []row) (remove func(), err error) {
	if d.banger, err = filepath.Abs("bin/banger"); err != nil {
		return nil, err
	}
	c, err := openCache()
	if err != nil {
		return nil, err
	}
	s, err := prepareStore(ctx, c)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "banger-direct-")
	if err != nil {
		return nil, err
	}
	remove = func() { os.RemoveAll(dir) }
	d.packages, d.store = dir, filepath.Join(dir, "store")
	for _, p := range packagesOf(rows) {
		if err == nil {
			err = carryTests(ctx, p, dir)
		}
	}
	// The user of some rows must get to all of it.
	if err == nil {
		err = errors.Join(os.Chmod(dir, 0o755), output(ctx, "cp", "-a", "--reflink=auto", s.root, d.store))
	}
	if err != nil {
		remove()
		return nil, err
	}
	return remove, nil
}

// report tells of one row, and shows what it printed when it is not well.
func report(w io.Writer, r row, got result, log string) {
	why := got.verdict(r)
	if why == "" {
		fmt.Fprintf(w, "ok      %-28s %d passed, %.0f s\n", r.Name, got.Passed, got.Seconds)
		return
	}
	text, err := os.ReadFile(log)
	if err != nil {
		text = []byte(err.Error())
	}
	fmt.Fprintf(w, "FAILED  %-28s %s (%d passed, %.0f s); what it printed:\n%s\n", r.Name, why, got.Passed, got.Seconds, tail(string(text), 64<<10))
}
