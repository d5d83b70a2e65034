package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/guestapi"
)

// What drives disks and the network device: it looks at them when it is loaded, so
// that a guest which is to go on with others has not loaded it yet.
var deviceModules = [...]string{"virtio_blk", "virtio_net"}

// isDeviceModule says so of a module's file.
func isDeviceModule(file string) bool {
	name, _, _ := strings.Cut(filepath.Base(file), ".")
	for _, m := range deviceModules {
		if strings.ReplaceAll(name, "-", "_") == m {
			return true
		}
	}
	return false
}

// park boots as far as all machines of a kind are the same, says so on the console,
// and waits. The host then copies the machine; each copy is told by a Wake what to
// be. It gives that, and which modules are still to be loaded.
func (i *initProcess) park(cfg guestapi.Config) (guestapi.Config, func(module string) bool, error) {
	fail := func(err error) (guestapi.Config, func(string) bool, error) {
		return cfg, nil, fmt.Errorf("cannot park: %w", err)
	}
	if cfg.Transport != guestapi.TransportSerial {
		return fail(fmt.Errorf("the transport is %s", cfg.Transport))
	}
	if err := loadBootModules(cfg.Transport, func(m string) bool { return !isDeviceModule(m) }); err != nil {
		return fail(err)
	}
	if entries, err := os.ReadDir("/sys/bus/virtio/drivers"); err == nil {
		for _, e := range entries {
			if isDeviceModule(e.Name()) {
				return fail(fmt.Errorf("%s is part of this kernel and has looked at the devices", e.Name()))
			}
		}
	}
	ctx := context.Background() // PID 1 ends with the machine
	path, err := findPort(ctx, "/sys/class/virtio-ports", guestapi.PortName)
	if err != nil {
		return fail(err)
	}
	port, err := os.OpenFile("/dev/"+path, os.O_RDWR, 0)
	if err != nil {
		return fail(err)
	}
	for _, check := range []func() error{reseeds, soundTimer} {
		if err := check(); err != nil {
			return fail(err)
		}
	}
	fmt.Fprintln(os.Stdout, guestapi.ParkedMark)
	if err := awaitHost(ctx, port, 2*time.Millisecond); err != nil {
		return fail(err)
	}
	w, err := guestapi.ReadWake(port)
	if err != nil {
		return fail(err)
	}
	i.began = time.Now()
	// Before anything else: until then all copies have the same random numbers.
	if err := reseed(w.Config.Seed); err != nil {
		return fail(err)
	}
	if err := setTime(time.Unix(0, w.UnixNano)); err != nil {
		return fail(err)
	}
	if w.Config, err = checkConfig(w.Config); err != nil {
		return fail(err)
	}
	if w.Config.Park || w.Config.Transport != cfg.Transport {
		return fail(errors.New("it is told to do so again, or to use another transport"))
	}
	if w.MAC != "" {
		if i.mac, err = net.ParseMAC(w.MAC); err != nil {
			return fail(err)
		}
	}
	if _, err := port.Write([]byte{guestapi.WakeReply}); err != nil {
		return fail(err)
	}
	i.woken = port
	return w.Config, isDeviceModule, nil
}

const (
	timerTries = 20
	timerSleep = 20 * time.Millisecond
)

// soundTimer sees that the timer runs at the rate which the kernel measured when it
// booted: on a busy host that may go wrong, and every copy would have it.
func soundTimer() error {
	best := time.Hour
	for range timerTries { // the host may let us wait, but not each time
		began := time.Now()
		time.Sleep(timerSleep)
		if best = min(best, time.Since(began)); best < timerSleep*5/4 {
			return nil
		}
	}
	return fmt.Errorf("its timer is wrong: to sleep for %s takes %s", timerSleep, best)
}

// reseeds says with an error that the kernel, older than 5.18, goes on with random
// numbers laid up before it was given new ones.
func reseeds() error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	var major, minor int
	release := unix.ByteSliceToString(u.Release[:])
	if _, err := fmt.Sscanf(release, "%d.%d", &major, &minor); err != nil || major < 5 || major == 5 && minor < 18 {
		return fmt.Errorf("kernel %s lays up random numbers, which all copies would have", release)
	}
	return nil
}

// openLink gives the guest link's port; at first the one by which a parked guest
// was woken.
func (i *initProcess) openLink(ctx context.Context) (io.ReadWriteCloser, error) {
	if f := i.woken; f != nil {
		i.woken = nil
		return f, nil
	}
	return openPort(ctx)
}
