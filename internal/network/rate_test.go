package network

import (
	"context"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
)

// All connections together get the rate, no less and no more, and what is small
// has its turn among them soon.
func TestMeter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const perSecond, each, connections = 1 << 20, 5 << 20, 4
		ctx, cancel := context.WithCancel(t.Context())
		m := newMeter(perSecond)
		start := time.Now()
		var wg sync.WaitGroup
		for range connections {
			src, feed := net.Pipe()
			dst, drain := net.Pipe()
			wg.Go(func() { copyHalf(ctx, dst, src, m) })
			wg.Go(func() { _, _ = feed.Write(make([]byte, each)); _ = feed.Close() })
			wg.Go(func() {
				if n, err := io.Copy(io.Discard, drain); n != each || err != nil {
					t.Errorf("%d bytes came, %v", n, err)
				}
			})
		}
		time.Sleep(3 * time.Second)
		asked := time.Now()
		if err := m.wait(ctx, 100); err != nil {
			t.Error(err)
		}
		if took := time.Since(asked); took > connections*25*time.Millisecond {
			t.Errorf("a small packet waited for %s", took)
		}
		wg.Wait()
		const want = (connections*each - perSecond) / perSecond * time.Second // a second's worth came at once
		if took := time.Since(start); took < want || took > want+time.Second {
			t.Errorf("it took %s, not %s", took, want)
		}
		for m.limit.TokensAt(time.Now()) > 0 {
			_ = m.wait(ctx, minRate)
		}
		cancel()
		if err := m.wait(ctx, minRate); err == nil {
			t.Error("a wait outlives the network")
		}
	})
	if err := (*meter)(nil).wait(t.Context(), 1<<40); err != nil {
		t.Errorf("no limit: %v", err)
	}
}

// A network with a limit keeps it in both directions, of connections and of
// packets. Only lower bounds: the host may be slow.
func TestLimitedNetwork(t *testing.T) {
	t.Parallel()
	host := hostAddress(t)
	const perSecond, sent = 1 << 20, 3 << 20
	const least = 1900 * time.Millisecond // two seconds; the first second's worth comes at once
	_, guest := newNetwork(t, func(u *User) { u.BytesPerSecond = perSecond })
	l, err := net.Listen("tcp4", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, send := range map[string]func(ours, guests net.Conn) (from, to net.Conn){
		"from the guest": func(ours, guests net.Conn) (from, to net.Conn) { return guests, ours },
		"to the guest":   func(ours, guests net.Conn) (from, to net.Conn) { return ours, guests },
	} {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		in, err := dialFrom(ctx, guest, l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		out, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		from, to := send(out, in)
		go func() {
			_, _ = from.Write(make([]byte, sent))
			_ = from.(halfConn).CloseWrite()
		}()
		n, err := io.Copy(io.Discard, to)
		if took := time.Since(start); n != sent || err != nil || took < least {
			t.Errorf("%s: %d bytes took %s, %v", name, n, took, err)
		}
		_ = in.Close()
		_ = out.Close()
	}

	server, err := net.ListenPacket("udp4", net.JoinHostPort(host, "0"))
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	at := netip.MustParseAddrPort(server.LocalAddr().String())
	c, err := gonet.DialUDP(guest, nil, &tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFrom4(at.Addr().As4()), Port: at.Port()}, ipv4.ProtocolNumber)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const packet = 32 << 10
	start := time.Now()
	// Its answer is the guest's leave to send the next, so that none is lost.
	go func() {
		b := make([]byte, packet)
		for {
			k, from, err := server.ReadFrom(b)
			if err != nil {
				return
			}
			_, _ = server.WriteTo([]byte(strconv.Itoa(k)), from)
		}
	}()
	answer := make([]byte, 16)
	for n := 0; n < sent; {
		if _, err := c.Write(make([]byte, packet)); err != nil {
			t.Fatal(err)
		}
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
		if k, err := c.Read(answer); err == nil && string(answer[:k]) == strconv.Itoa(packet) {
			n += packet
		}
		if time.Since(start) > patience {
			t.Fatalf("after %s %d bytes came", patience, n)
		}
	}
	if took := time.Since(start); took < least {
		t.Errorf("%d bytes of packets took %s", sent, took)
	}
}
