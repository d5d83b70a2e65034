package fake

import (
	"context"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// link is the way to the agent: a listener whose connections stand still while
// the machine is paused.
type link struct {
	incoming chan net.Conn
	closed   chan struct{}
	once     sync.Once

	mu    sync.Mutex
	going chan struct{} // closed while the machine runs
}

func newLink() *link {
	l := &link{incoming: make(chan net.Conn), closed: make(chan struct{}), going: make(chan struct{})}
	close(l.going)
	return l
}

func (l *link) pause() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.going:
		l.going = make(chan struct{})
	default:
	}
}

func (l *link) resume() {
	l.mu.Lock()
	defer l.mu.Unlock()
	select {
	case <-l.going:
	default:
		close(l.going)
	}
}

// await waits until the machine runs, or is gone.
func (l *link) await() {
	l.mu.Lock()
	going := l.going
	l.mu.Unlock()
	select {
	case <-going:
	case <-l.closed:
	}
}

// dial makes a pair of sockets, which hold some data as the real link does.
func (l *link) dial(ctx context.Context) (net.Conn, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	host, err := fileConn(fds[0])
	if err != nil {
		unix.Close(fds[1])
		return nil, err
	}
	guest, err := fileConn(fds[1])
	if err != nil {
		host.Close()
		return nil, err
	}
	select {
	case l.incoming <- &pausedConn{guest, l}:
		return host, nil
	case <-l.closed:
		err = net.ErrClosed
	case <-ctx.Done():
		err = ctx.Err()
	}
	host.Close()
	guest.Close()
	return nil, err
}

func fileConn(fd int) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "link")
	defer f.Close()
	return net.FileConn(f)
}

// Accept, Close and Addr make it the agent's listener.
func (l *link) Accept() (net.Conn, error) {
	select {
	case c := <-l.incoming:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

func (l *link) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

func (l *link) Addr() net.Addr { return &net.UnixAddr{Name: "fake", Net: "unix"} }

// pausedConn is the guest's end of a stream.
type pausedConn struct {
	net.Conn
	link *link
}

func (c *pausedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.link.await()
	return n, err
}

func (c *pausedConn) Write(p []byte) (int, error) {
	c.link.await()
	return c.Conn.Write(p)
}
