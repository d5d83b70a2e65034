package cell

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

const (
	bridgeName = "bridge"
	ourTap     = "ours"
)

// make gives the other end of the owner's tap: a second one, joined to it by a bridge.
// A packet socket on the one tap would do with less, but what it holds for a slow
// reader is bounded by the host's settings to a few large frames, and what is
// more is lost.
func (t Tap) make(owner int) (*os.File, error) {
	// Nothing in here speaks for itself. Where /proc cannot be written a few
	// frames of the bridge's own come along, which nobody heeds.
	_ = os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0)
	theirs, err := openTap(t.Name, unix.IFF_VNET_HDR)
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	// It stays when we close it, for the VMM's user to open.
	for _, request := range []uint{unix.TUNSETOWNER, unix.TUNSETPERSIST} {
		value := owner // 0 is the only user in here
		if request == unix.TUNSETPERSIST {
			value = 1
		}
		if err := unix.IoctlSetInt(int(theirs.Fd()), request, value); err != nil {
			return nil, fmt.Errorf("cannot keep tap %s: %w", t.Name, err)
		}
	}
	ours, err := openTap(ourTap, 0)
	if err != nil {
		return nil, err
	}
	if err := join(t.MTU, t.Name, ourTap); err != nil {
		_ = ours.Close()
		return nil, err
	}
	return ours, nil
}

// openTap makes a tap device.
func openTap(name string, flags uint16) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open /dev/net/tun: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	r, err := unix.NewIfreq(name)
	if err == nil {
		r.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | flags)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, r)
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("cannot make tap %s: %w", name, err)
	}
	return f, nil
}

// join makes a bridge over the devices and switches all of them on.
func join(mtu int, names ...string) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	// This request takes a name only, which is what the others begin with.
	if err := request(s, unix.SIOCBRADDBR, bridgeName, 0); err != nil {
		return fmt.Errorf("cannot make a bridge: %w", err)
	}
	for _, name := range names {
		if err := request(s, unix.SIOCSIFMTU, name, uint32(mtu)); err != nil {
			return fmt.Errorf("cannot set the MTU of %s to %d: %w", name, mtu, err)
		}
		index, err := unix.NewIfreq(name)
		if err == nil {
			err = unix.IoctlIfreq(s, unix.SIOCGIFINDEX, index)
		}
		if err == nil {
			err = request(s, unix.SIOCBRADDIF, bridgeName, index.Uint32())
		}
		if err != nil {
			return fmt.Errorf("cannot join %s to the bridge: %w", name, err)
		}
	}
	for _, name := range append(names, bridgeName) {
		flags, err := unix.NewIfreq(name)
		if err == nil {
			flags.SetUint16(unix.IFF_UP | unix.IFF_NOARP)
			err = unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, flags)
		}
		if err != nil {
			return fmt.Errorf("cannot switch %s on: %w", name, err)
		}
	}
	return nil
}

// request sends one of a device's settings.
func request(s int, what uint, name string, value uint32) error {
	r, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	r.SetUint32(value)
	return unix.IoctlIfreq(s, what, r)
}
