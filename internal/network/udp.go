package network

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"
	"gvisor.dev/gvisor/pkg/waiter"
)

// udpIdle is how long a UDP flow lives without a packet, udpCrowded when there
// are more than crowd: a guest that asks a thousand name servers needs their
// places again before the minute is over.
const (
	udpIdle    = 90 * time.Second
	udpCrowded = 10 * time.Second
	crowd      = maxUDP / 4
)

func (n *Network) udpPatience() time.Duration {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.udp > crowd {
		return udpCrowded
	}
	return udpIdle
}

// maxDatagram is the largest UDP payload in bytes.
const maxDatagram = 65507

var errForbidden = errors.New("this destination is not for guests")

// forwardUDP begins a flow: one port of the guest to one destination. It is
// called by the stack, so it starts a goroutine.
func (n *Network) forwardUDP(r *udp.ForwarderRequest) {
	to := netip.AddrPortFrom(netip.AddrFrom4(r.ID().LocalAddress.As4()), r.ID().LocalPort)
	dns := to.Addr() == n.user.Gateway && to.Port() == dnsPort
	if !dns && !n.allowed(to.Addr()) {
		return
	}
	begin, end := n.beginUDP, n.endUDP
	if dns { // gone in a moment
		begin, end = n.begin, n.end
	}
	if !begin() {
		return
	}
	var queue waiter.Queue
	ep, fault := r.CreateEndpoint(&queue)
	if fault != nil {
		end()
		return
	}
	in := gonet.NewUDPConn(&queue, ep)
	go func() { // counted by begin
		defer end()
		defer in.Close()
		if dns {
			n.serveDNS(in)
			return
		}
		var d net.Dialer
		out, err := d.DialContext(n.ctx, "udp4", to.String())
		if err != nil {
			n.log.Debug("refused a packet of the guest", "to", to, "error", err)
			return
		}
		defer out.Close()
		n.exchange(in, out)
	}()
}

// exchange copies packets both ways until none comes any more.
func (n *Network) exchange(in, out net.Conn) {
	f := &flow{n: n}
	f.touch()
	stop := context.AfterFunc(n.ctx, func() {
		in.Close()
		out.Close()
	})
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() { f.copy(metered{in, n.down, n.ctx}, out) })
	wg.Go(func() { f.copy(metered{out, n.up, n.ctx}, in) })
	wg.Wait()
}

// flow is when the last packet of either direction came.
type flow struct {
	n    *Network
	mu   sync.Mutex
	last time.Time
}

func (f *flow) touch() {
	f.mu.Lock()
	f.last = time.Now()
	f.mu.Unlock()
}

func (f *flow) idle() time.Duration {
	f.mu.Lock()
	defer f.mu.Unlock()
	return time.Since(f.last)
}

// tick is how often a flow looks whether it is over.
const tick = 2 * time.Second

func (f *flow) copy(dst, src net.Conn) {
	b := make([]byte, maxDatagram)
	for f.n.ctx.Err() == nil {
		src.SetReadDeadline(time.Now().Add(tick))
		k, err := src.Read(b)
		var t interface{ Timeout() bool }
		switch {
		case err == nil:
			f.touch()
			dst.Write(b[:k]) // a packet lost is what UDP allows
		case errors.As(err, &t) && t.Timeout():
			if f.idle() > f.n.udpPatience() {
				return
			}
		default:
			// Refused, e.g. by ICMP. The other direction may have words yet.
			if f.idle() > tick {
				return
			}
			time.Sleep(10 * time.Millisecond)
		}
	}
}
