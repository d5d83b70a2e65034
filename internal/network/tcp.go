package network

import (
	"context"
	"io"
	"net"
	"net/netip"
	"strconv"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// dialTimeout is how long a destination may take to accept a connection.
const dialTimeout = 30 * time.Second

const dnsPort = 53

// forwardTCP makes one connection of the guest into one of ours. It runs in a
// goroutine of its own, which ends with the connection. Ours comes first: what
// refuses us refuses the guest.
func (n *Network) forwardTCP(r *tcp.ForwarderRequest) {
	if !n.begin() {
		r.Complete(true)
		return
	}
	defer n.end()
	to := netip.AddrPortFrom(netip.AddrFrom4(r.ID().LocalAddress.As4()), r.ID().LocalPort)
	out, err := n.dialOut(to)
	if err != nil {
		n.log.Debug("refused a connection of the guest", "to", to, "error", err)
		r.Complete(true)
		return
	}
	defer out.Close()
	var queue waiter.Queue
	ep, fault := r.CreateEndpoint(&queue)
	r.Complete(fault != nil)
	if fault != nil {
		return
	}
	in := gonet.NewTCPConn(&queue, ep)
	defer in.Close()
	stop := context.AfterFunc(n.ctx, func() {
		in.Close()
		out.Close()
	})
	defer stop()
	n.splice(in, out)
}

func (n *Network) dialOut(to netip.AddrPort) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(n.ctx, dialTimeout)
	defer cancel()
	if to.Addr() == n.user.Gateway && to.Port() == dnsPort {
		return n.resolvers.dialTCP(ctx)
	}
	if !n.allowed(to.Addr()) {
		return nil, errForbidden
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp4", to.String())
}

// halfConn is a connection one of whose directions can be closed.
type halfConn interface {
	net.Conn
	CloseWrite() error
}

// splice copies both ways until both directions ended.
func (n *Network) splice(guest, out net.Conn) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		copyHalf(n.ctx, guest, out, n.down)
	}()
	copyHalf(n.ctx, out, guest, n.up)
	<-done
}

// copyHalf copies one direction; its clean end is passed on, an error ends both.
func copyHalf(ctx context.Context, dst, src net.Conn, m *meter) {
	_, err := io.CopyBuffer(struct{ io.Writer }{metered{dst, m, ctx}}, struct{ io.Reader }{src}, m.buffer())
	if half, ok := dst.(halfConn); ok && err == nil {
		half.CloseWrite()
		return
	}
	dst.Close()
	src.Close()
}

func hostPort(host string) string { return net.JoinHostPort(host, strconv.Itoa(dnsPort)) }
