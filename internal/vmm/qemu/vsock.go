package qemu

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
)

// vhostDevice is how a host offers vsock to its guests.
const vhostDevice = "/dev/vhost-vsock"

const (
	// firstCID is the lowest context id a guest may have: 2 is the host.
	firstCID = 3
	// lastCID keeps out of the way of ids with a meaning of their own.
	lastCID  = 1<<31 - 1
	cidTries = 100
	// A guest that is not up does not answer, or refuses: its host asks again.
	vsockWait  = 2 * time.Second
	vsockPause = 20 * time.Millisecond
)

// vhostVsock is a guest's end of vsock on the host. The context id is ours from
// the moment it is taken, before QEMU runs: no other machine can get it between.
type vhostVsock struct {
	file *os.File
	cid  uint32
}

func openVhostVsock(device string) (*vhostVsock, error) {
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	switch {
	case errors.Is(err, os.ErrNotExist), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENXIO):
		return nil, api.Errorf(api.KindUnsupported, "cannot use vsock for the guest link: this host has no %s", device).WithHint("sudo modprobe vhost_vsock")
	case errors.Is(err, os.ErrPermission):
		return nil, api.Errorf(api.KindDenied, "cannot use vsock for the guest link: no permission to open %s", device).WithHint("sudo setfacl -m u:$USER:rw %s", device)
	case err != nil:
		return nil, api.Errorf(api.KindInternal, "cannot use vsock for the guest link: %w", err)
	}
	for range cidTries {
		cid := firstCID + rand.Uint32N(lastCID-firstCID)
		err = ioctlUint64(f, vhostVsockSetGuestCID, uint64(cid))
		if err == nil {
			return &vhostVsock{f, cid}, nil
		}
		if !errors.Is(err, unix.EADDRINUSE) {
			break
		}
	}
	f.Close()
	return nil, api.Errorf(api.KindInternal, "cannot use vsock for the guest link: no context id is given: %w", err)
}

// vsockLink dials the agent over vhost-vsock. Other users of the host reach the
// guest as well: the token tells us from them.
type vsockLink struct {
	cid   uint32
	token string
	ended context.Context
	end   context.CancelFunc
}

func newVsockLink(cid uint32, token string) *vsockLink {
	l := &vsockLink{cid: cid, token: token}
	l.ended, l.end = context.WithCancel(context.Background())
	return l
}

// Close ends those who still dial.
func (l *vsockLink) Close() error {
	l.end()
	return nil
}

// Dial opens one connection, and waits for a guest that is not up.
func (l *vsockLink) Dial(ctx context.Context) (net.Conn, error) {
	for {
		conn, err := dialVsock(ctx, l.cid, guestapi.VsockPort)
		if err == nil {
			if _, err = io.WriteString(conn, l.token); err == nil {
				return conn, nil
			}
			conn.Close()
		}
		pause := time.NewTimer(vsockPause)
		select {
		case <-pause.C:
		case <-ctx.Done():
			pause.Stop()
			return nil, ctx.Err()
		case <-l.ended.Done():
			pause.Stop()
			return nil, net.ErrClosed
		}
	}
}

// dialVsock connects once, within vsockWait.
func dialVsock(ctx context.Context, cid, port uint32) (net.Conn, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	err = unix.Connect(fd, &unix.SockaddrVM{CID: cid, Port: port})
	if err != nil && !errors.Is(err, unix.EINPROGRESS) {
		unix.Close(fd)
		return nil, os.NewSyscallError("connect", err)
	}
	conn := &vsockConn{os.NewFile(uintptr(fd), "vsock"), vsockAddr(cid)}
	if err == nil {
		return conn, nil
	}
	if err := conn.connected(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return conn, nil
}

// vsockConn is one connection to a guest. The net package has no vsock; the
// runtime's poller takes any socket.
type vsockConn struct {
	*os.File
	remote vsockAddr
}

// connected waits until the connection stands or is refused.
func (c *vsockConn) connected(ctx context.Context) error {
	if err := c.SetWriteDeadline(time.Now().Add(vsockWait)); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = c.SetWriteDeadline(time.Unix(1, 0)) })
	defer stop()
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var refused error
	first := true
	err = raw.Write(func(fd uintptr) bool {
		if first { // the poller comes back once the socket can be written to
			first = false
			return false
		}
		n, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if err != nil {
			refused = err
		} else if n != 0 {
			refused = unix.Errno(n)
		}
		return true
	})
	if err := errors.Join(err, refused); err != nil {
		return os.NewSyscallError("connect", err)
	}
	if !stop() {
		return ctx.Err()
	}
	return c.SetWriteDeadline(time.Time{})
}

func (c *vsockConn) LocalAddr() net.Addr  { return vsockAddr(unix.VMADDR_CID_HOST) }
func (c *vsockConn) RemoteAddr() net.Addr { return c.remote }

// vsockAddr is a context id.
type vsockAddr uint32

// Network is vsock.
func (vsockAddr) Network() string { return "vsock" }

func (a vsockAddr) String() string { return "vsock:" + strconv.FormatUint(uint64(a), 10) }
