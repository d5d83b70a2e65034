package probe

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/vmm"
	"github.com/bangervm/banger/internal/vmm/console"
)

// Options of one probe.
type Options struct {
	Driver vmm.Driver
	// Kernel is the vmlinux to boot.
	Kernel string
	// Initrd writes the initramfs of a guest that boots with
	// guestapi.Config{Probe: true} to path.
	Initrd func(ctx context.Context, path string) error
	// CachePath is where verdicts are kept; empty means nowhere.
	CachePath string
	// HostBoot identifies this boot of the host.
	HostBoot string
	Log      *slog.Logger

	// Device is /dev/kvm when empty; Tun, which a driver with a tap needs too, is
	// /dev/net/tun.
	Device, Tun string
	// FirstOutput is how long the guest's kernel may take to say its first
	// word, Total how long until userspace. Zero means 5 s and 20 s, and more on
	// a slow host; see patience.
	FirstOutput, Total time.Duration
}

// slowest is how many times what is usual a slow host gets.
const slowest = 6

// patience is how long a guest may take on a host that took so long to launch
// its VMM. That is 0.1 s as a rule; on a host that is busy, or emulated itself,
// all else takes longer in the same measure.
func patience(usual, launch time.Duration) time.Duration {
	return min(max(usual, usual*(launch/(100*time.Millisecond))/slowest), slowest*usual)
}

// memory of the probe's guest in bytes.
const memory = 256 << 20

// Run gives the accelerator to use, and why, in words for people. An error means
// that there is no answer: no VMM, no initramfs, or ctx ended.
func Run(ctx context.Context, o Options) (vmm.Accelerator, string, error) {
	if o.Device == "" {
		o.Device = "/dev/kvm"
	}
	if o.Tun == "" {
		o.Tun = "/dev/net/tun"
	}
	if o.FirstOutput == 0 {
		o.FirstOutput = 5 * time.Second
	}
	if o.Total == 0 {
		o.Total = 20 * time.Second
	}
	devices := []string{o.Device}
	if o.Driver.Capabilities().Tap {
		devices = append(devices, o.Tun)
	}
	for _, device := range devices {
		if reason := closed(device); reason != "" {
			return vmm.TCG, reason, nil
		}
	}
	version, err := o.Driver.Check(ctx)
	if err != nil {
		return "", "", err
	}
	key, err := identify(o, version)
	if err != nil {
		return "", "", err
	}
	if v, ok := recall(o.CachePath, key); ok {
		return v.Accelerator, v.Reason, nil
	}
	v, err := boot(ctx, o)
	if err != nil {
		return "", "", err
	}
	v.Key, v.At = key, time.Now().UTC()
	if v.passing {
		return v.Accelerator, v.Reason, nil
	}
	if err := keep(o.CachePath, v); err != nil {
		o.Log.Warn("cannot keep the verdict on the accelerator", "error", err)
	}
	o.Log.Info("probed the accelerator", "accelerator", v.Accelerator, "reason", v.Reason)
	return v.Accelerator, v.Reason, nil
}

// network is what a driver's guest has when it takes a tap: a host may lack what
// that needs.
func network(d vmm.Driver) *vmm.NIC {
	if !d.Capabilities().Tap {
		return nil
	}
	return &vmm.NIC{MAC: "52:54:00:00:00:01", MTU: 1500}
}

// closed says why the device cannot be used at all, without a guest.
func closed(device string) string {
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	switch {
	case err == nil:
		f.Close()
		return ""
	case errors.Is(err, os.ErrNotExist):
		return "this host has no " + device
	case errors.Is(err, os.ErrPermission):
		return "no permission to open " + device
	}
	return fmt.Sprintf("cannot open %s: %v", device, errors.Unwrap(err))
}

// boot starts a guest and watches it.
func boot(ctx context.Context, o Options) (verdict, error) {
	tcg := func(format string, args ...any) (verdict, error) {
		return verdict{Accelerator: vmm.TCG, Reason: o.Device + " opens, but " + fmt.Sprintf(format, args...)}, nil
	}
	dir, err := os.MkdirTemp("", "banger-probe-") // mode 0700
	if err != nil {
		return verdict{}, api.Errorf(api.KindInternal, "cannot probe the accelerator: %w", err)
	}
	defer os.RemoveAll(dir)
	initrd := filepath.Join(dir, "initrd")
	if err := o.Initrd(ctx, initrd); err != nil {
		return verdict{}, fmt.Errorf("cannot probe the accelerator: %w", err)
	}

	began := time.Now()
	launch, cancel := context.WithTimeout(ctx, slowest*o.Total)
	defer cancel()
	out := console.Listen(guestapi.ProbeReply)
	m, err := o.Driver.Start(launch, vmm.Spec{
		ID: "probe", Name: "probe", VCPUs: 1, MemoryBytes: memory, Accelerator: vmm.KVM,
		Kernel: o.Kernel, Initrd: initrd, Network: network(o.Driver),
		// The kernel's first words, long before its console is set up.
		Cmdline: []string{"earlyprintk=ttyS0"},
		RunDir:  dir, LogFile: filepath.Join(dir, "log"),
	}, out)
	if err != nil {
		if ctx.Err() != nil {
			return verdict{}, ctx.Err()
		}
		v, _ := tcg("no guest starts under it: %v", err)
		// What the host does not let us have, its administrator may give.
		v.passing = api.KindOf(err) == api.KindUnsupported
		return v, nil
	}
	defer func() {
		m.Kill() // a machine that has ended needs none
		<-m.Done()
		if t, ok := m.(vmm.Tapper); ok {
			if tap := t.Tap(); tap != nil {
				_ = tap.Close()
			}
		}
	}()

	launched := time.Since(began)
	firstOutput, total := patience(o.FirstOutput, launched), patience(o.Total, launched)
	deadline, cancel := context.WithTimeout(ctx, total)
	defer cancel()
	first := time.NewTimer(firstOutput)
	defer first.Stop()
	said := out.First
	for {
		select {
		case <-out.Found:
			return verdict{Accelerator: vmm.KVM, Reason: fmt.Sprintf("a guest booted under %s in %.1f s", o.Device, time.Since(began).Seconds())}, nil
		case <-said:
			first.Stop()
			said = nil
		case <-first.C:
			return tcg("a guest's kernel said nothing within %s", firstOutput.Round(time.Millisecond))
		case <-m.Done():
			select {
			case <-out.Found: // its last words were the right ones
				continue
			default:
			}
			e := m.Exit()
			return tcg("a guest ended before its userspace: %s %s", e.Reason, e.Detail)
		case <-ctx.Done():
			return verdict{}, ctx.Err()
		case <-deadline.Done():
			return tcg("a guest did not reach its userspace within %s", total.Round(time.Millisecond))
		}
	}
}
