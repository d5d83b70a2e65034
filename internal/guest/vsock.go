package guest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// vsockBacklog is how many connections of the host may wait to be accepted.
const vsockBacklog = 128

// vsockListener gives the host's vsock connections. The net package has no
// vsock, the runtime's poller takes any socket.
type vsockListener struct {
	file *os.File
	port uint32
}

func listenVsock(port uint32) (*vsockListener, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_ANY, Port: port}); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("bind", err)
	}
	if err := unix.Listen(fd, vsockBacklog); err != nil {
		_ = unix.Close(fd)
		return nil, os.NewSyscallError("listen", err)
	}
	return &vsockListener{os.NewFile(uintptr(fd), "vsock"), port}, nil
}

// Accept gives the next connection of the host. Others, from inside the guest,
// are closed: who may connect may do everything.
func (l *vsockListener) Accept() (net.Conn, error) {
	raw, err := l.file.SyscallConn()
	if err != nil {
		return nil, err
	}
	for {
		var fd int
		var from unix.Sockaddr
		var fault error
		if err := raw.Read(func(listening uintptr) bool {
			fd, from, fault = unix.Accept4(int(listening), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			return !errors.Is(fault, unix.EAGAIN)
		}); err != nil {
			return nil, net.ErrClosed
		}
		switch {
		case errors.Is(fault, unix.ECONNABORTED), errors.Is(fault, unix.ECONNRESET), errors.Is(fault, unix.EINTR):
			continue // the host changed its mind
		case errors.Is(fault, unix.EMFILE), errors.Is(fault, unix.ENFILE), errors.Is(fault, unix.ENOMEM), errors.Is(fault, unix.ENOBUFS):
			time.Sleep(100 * time.Millisecond) // some will be free again
			continue
		case fault != nil:
			return nil, os.NewSyscallError("accept", fault)
		}
		peer, ok := from.(*unix.SockaddrVM)
		if !ok || peer.CID != unix.VMADDR_CID_HOST {
			_ = unix.Close(fd)
			continue
		}
		return &vsockConn{os.NewFile(uintptr(fd), "vsock"), vsockAddr(l.port), vsockAddr(peer.Port)}, nil
	}
}

// Close ends Accept.
func (l *vsockListener) Close() error { return l.file.Close() }

// Addr is the port.
func (l *vsockListener) Addr() net.Addr { return vsockAddr(l.port) }

// vsockConn is one connection of the host.
type vsockConn struct {
	*os.File
	local, remote vsockAddr
}

func (c *vsockConn) LocalAddr() net.Addr  { return c.local }
func (c *vsockConn) RemoteAddr() net.Addr { return c.remote }

// vsockAddr is a port of the guest or the host.
type vsockAddr uint32

// Network is vsock.
func (vsockAddr) Network() string { return "vsock" }

func (a vsockAddr) String() string { return fmt.Sprintf("vsock:%d", uint32(a)) }
