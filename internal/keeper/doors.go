package keeper

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
)

// maxStreams bounds the connections of one door.
const maxStreams = 1024

// listenUnix makes a socket only its owner can reach, in place of a stale one.
func listenUnix(path string) (*net.UnixListener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, api.Errorf(api.KindInternal, "cannot remove stale socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, api.Errorf(api.KindInternal, "cannot listen on %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		l.Close()
		return nil, api.Errorf(api.KindInternal, "cannot close %s to others: %w", path, err)
	}
	return l, nil // closing it removes its name
}

// door joins each connection to a socket with a stream that dial opens.
type door struct {
	listener *net.UnixListener
	dial     func(ctx context.Context) (net.Conn, error)
	log      *slog.Logger

	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	places chan struct{}
}

func openDoor(path string, dial func(ctx context.Context) (net.Conn, error), log *slog.Logger) (*door, error) {
	l, err := listenUnix(path)
	if err != nil {
		return nil, err
	}
	d := &door{listener: l, dial: dial, log: log, places: make(chan struct{}, maxStreams)}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	d.wg.Go(d.accept)
	return d, nil
}

// close ends all streams and waits for them.
func (d *door) close() {
	d.cancel()
	d.listener.Close()
	d.wg.Wait()
}

func (d *door) accept() {
	for {
		conn, err := d.listener.AcceptUnix()
		if err != nil {
			if d.ctx.Err() != nil {
				return
			}
			d.log.Error("cannot accept", "socket", d.listener.Addr(), "error", err)
			select { // out of descriptors, most likely: some will be free again
			case <-time.After(100 * time.Millisecond):
			case <-d.ctx.Done():
				return
			}
			continue
		}
		select {
		case d.places <- struct{}{}:
			d.wg.Go(func() {
				d.serve(conn)
				<-d.places
			})
		default:
			conn.Close()
		}
	}
}

func (d *door) serve(conn *net.UnixConn) {
	defer conn.Close()
	ctx, cancel := context.WithCancel(d.ctx)
	defer cancel()
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		cancelWhenGone(ctx, conn, cancel)
	}()
	stream, err := d.dial(ctx)
	cancel()
	<-watched
	if err != nil {
		d.log.Debug("cannot open a stream to the guest", "error", err)
		return
	}
	defer stream.Close()
	stop := context.AfterFunc(d.ctx, func() {
		conn.Close()
		stream.Close()
	})
	defer stop()
	splice(conn, stream)
}

// cancelWhenGone cancels when the other end of conn is closed, so that nobody
// waits for a guest on behalf of a client that has left. It reads nothing.
func cancelWhenGone(ctx context.Context, conn *net.UnixConn, cancel context.CancelFunc) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	t := time.NewTicker(500 * time.Millisecond)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		gone := false
		err := raw.Control(func(fd uintptr) {
			p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
			n, err := unix.Poll(p, 0)
			gone = err == nil && n > 0 && p[0].Revents&(unix.POLLHUP|unix.POLLERR) != 0
		})
		if gone || err != nil {
			cancel()
			return
		}
	}
}

// copySize balances the memory of idle streams against system calls.
const copySize = 64 << 10

// splice copies both ways between a client and the guest. The guest's clean end
// is passed on; a client's is the end of both, since it closes only when it is
// done: a guest that keeps its half open would hold the place for ever.
func splice(client, guest net.Conn) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		copyHalf(client, guest)
	}()
	copyHalf(guest, client)
	client.Close()
	guest.Close()
	<-done
}

func copyHalf(dst, src net.Conn) {
	_, err := io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, make([]byte, copySize))
	if half, ok := dst.(interface{ CloseWrite() error }); ok && err == nil {
		half.CloseWrite()
		return
	}
	dst.Close()
	src.Close()
}
