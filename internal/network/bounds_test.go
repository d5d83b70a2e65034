package network

import (
	"context"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// A guest that asks for thousands of names at once takes no more descriptors
// than it has places.
func TestQueriesAreBounded(t *testing.T) {
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	// An address for documentation: packets to it are lost.
	if err := os.WriteFile(conf, []byte("nameserver 198.51.100.1\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	n := &Network{log: slog.New(slog.DiscardHandler), resolvers: newResolvers(conf), queries: make(chan struct{}, maxQueries)}
	n.ctx, n.cancel = context.WithCancel(t.Context())
	files := func() int {
		e, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(e)
	}
	before := files()
	query := append([]byte{1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, "\x07example\x03com\x00\x00\x01\x00\x01"...)
	var wg sync.WaitGroup
	for range 2 * maxQueries / maxSocketQueries {
		guest, in := net.Pipe()
		wg.Go(func() { n.serveDNS(in) })
		wg.Go(func() {
			defer guest.Close()
			for range 2 * maxSocketQueries {
				guest.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
				if _, err := guest.Write(query); err != nil {
					return
				}
			}
			<-n.ctx.Done()
		})
	}
	time.Sleep(200 * time.Millisecond)
	if got := files() - before; got > maxQueries+16 {
		t.Errorf("%d descriptors are in use", got)
	}
	n.cancel()
	wg.Wait()
	if len(n.queries) != 0 {
		t.Errorf("%d queries never ended", len(n.queries))
	}
}

// UDP flows, which nobody closes, leave places to connections, and go sooner
// where there are many.
func TestUDPLeavesPlaces(t *testing.T) {
	t.Parallel()
	n := &Network{places: maxFlows}
	if d := n.udpPatience(); d != udpIdle {
		t.Errorf("alone, a flow lives for %s", d)
	}
	flows := 0
	for n.beginUDP() {
		flows++
	}
	if flows != maxUDP || n.udpPatience() != udpCrowded {
		t.Errorf("%d flows, each lives for %s", flows, n.udpPatience())
	}
	if !n.begin() {
		t.Error("no place is left for a connection")
	}
	n.end()
	for range flows {
		n.endUDP()
	}
	if n.flows != 0 || n.udp != 0 || n.udpPatience() != udpIdle {
		t.Errorf("%d flows, %d of UDP are left", n.flows, n.udp)
	}
	if p := flowPlaces(); p < 1 || p > maxFlows {
		t.Errorf("%d places", p)
	}
}
