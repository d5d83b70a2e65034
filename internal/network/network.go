package network

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"

	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/adapters/gonet"
	"gvisor.dev/gvisor/pkg/tcpip/network/arp"
	"gvisor.dev/gvisor/pkg/tcpip/network/ipv4"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
	"gvisor.dev/gvisor/pkg/tcpip/transport/icmp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/tcp"
	"gvisor.dev/gvisor/pkg/tcpip/transport/udp"

	"github.com/bangervm/banger/api"
)

const (
	nic = 1
	// maxFlows bounds the guest's connections and UDP flows together, maxUDP the
	// flows alone, maxQueries its DNS queries under way: each takes a descriptor
	// and up to 128 KiB.
	maxFlows   = 4096
	maxUDP     = 1024
	maxQueries = 256
	// spareFiles are descriptors the guest cannot use up: its keeper's own.
	spareFiles = 256
	// maxHandshakes bounds connections that are being made.
	maxHandshakes = 512
)

// Network is a running user-mode network; User.Start makes it.
type Network struct {
	user      User
	log       *slog.Logger
	forbidden []netip.Prefix
	listener  net.Listener
	stack     *stack.Stack
	wire      *wire
	resolvers *resolvers
	queries   chan struct{} // holds one for each DNS query under way
	up, down  *meter        // what the guest sends, what it is sent

	ctx    context.Context // ends with the network
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu     sync.Mutex
	closed bool
	places int // how many flows there may be
	flows  int
	udp    int                    // those of them that are UDP
	conns  map[io.Closer]struct{} // the VMM's
}

// Start serves the VMM that connects to the listener, which the network closes
// when it is closed; nil means that Attach brings one. ctx bounds Start only.
func (u User) Start(ctx context.Context, listener net.Listener, log *slog.Logger) (*Network, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	gatewayMAC, _, err := u.check()
	if err != nil {
		return nil, err
	}
	n := &Network{
		user: u, log: log, forbidden: forbidden(), listener: listener, resolvers: newResolvers(u.ResolvConf),
		wire:  &wire{mtu: uint32(u.MTU), mac: tcpip.LinkAddress(gatewayMAC), gateway: u.Gateway.As4()},
		conns: map[io.Closer]struct{}{}, places: flowPlaces(), queries: make(chan struct{}, maxQueries),
		up: newMeter(u.BytesPerSecond), down: newMeter(u.BytesPerSecond),
	}
	if n.stack, err = newStack(u, n.wire); err != nil {
		return nil, api.Errorf(api.KindInternal, "cannot set up the user network: %w", err)
	}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.stack.SetTransportProtocolHandler(tcp.ProtocolNumber, tcp.NewForwarder(n.stack, 0, maxHandshakes, n.forwardTCP).HandlePacket)
	n.stack.SetTransportProtocolHandler(udp.ProtocolNumber, udp.NewForwarder(n.stack, n.forwardUDP).HandlePacket)
	if listener != nil {
		n.wg.Go(n.accept)
	}
	return n, nil
}

// Attach serves the VMM at the other end of a tap, which the network closes when
// it is closed or the tap ends.
func (n *Network) Attach(file *os.File) error {
	way, err := newTap(file)
	if err != nil {
		_ = file.Close()
		return api.Errorf(api.KindInternal, "cannot use the tap: %w", err)
	}
	if !n.adopt(file) {
		_ = file.Close()
		return api.Errorf(api.KindBadState, "cannot use the tap: the network is closed")
	}
	n.wg.Go(func() { n.serve(way, file) })
	return nil
}

// serve carries frames until their way ends.
func (n *Network) serve(way carrier, end io.Closer) {
	if err := n.wire.serve(way); err != nil && n.ctx.Err() == nil {
		n.log.Debug("the VMM left the user network", "reason", err)
	}
	n.mu.Lock()
	delete(n.conns, end)
	n.mu.Unlock()
	end.Close()
}

func newStack(u User, w *wire) (*stack.Stack, error) {
	s := stack.New(stack.Options{
		NetworkProtocols:   []stack.NetworkProtocolFactory{ipv4.NewProtocol, arp.NewProtocol},
		TransportProtocols: []stack.TransportProtocolFactory{tcp.NewProtocol, udp.NewProtocol, icmp.NewProtocol4},
	})
	sack := tcpip.TCPSACKEnabled(true)
	if err := s.SetTransportProtocolOption(tcp.ProtocolNumber, &sack); err != nil {
		return nil, errors.New(err.String())
	}
	if err := s.CreateNIC(nic, w); err != nil {
		return nil, errors.New(err.String())
	}
	address := tcpip.AddressWithPrefix{Address: tcpip.AddrFrom4(u.Gateway.As4()), PrefixLen: u.Subnet.Bits()}
	if err := s.AddProtocolAddress(nic, tcpip.ProtocolAddress{Protocol: ipv4.ProtocolNumber, AddressWithPrefix: address}, stack.AddressProperties{}); err != nil {
		return nil, errors.New(err.String())
	}
	// The stack stands for every address but the guest's.
	if err := s.SetSpoofing(nic, true); err != nil {
		return nil, errors.New(err.String())
	}
	if err := s.SetPromiscuousMode(nic, true); err != nil {
		return nil, errors.New(err.String())
	}
	s.SetRouteTable([]tcpip.Route{{Destination: address.Subnet(), NIC: nic}})
	return s, nil
}

// accept serves one VMM after the other.
func (n *Network) accept() {
	for {
		conn, err := n.listener.Accept()
		if err != nil {
			if n.ctx.Err() == nil {
				n.log.Error("the user network accepts no VMM any more", "error", err)
			}
			return
		}
		if !n.adopt(conn) {
			conn.Close()
			return
		}
		n.serve(newStream(conn), conn)
	}
}

func (n *Network) adopt(conn io.Closer) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed {
		return false
	}
	n.conns[conn] = struct{}{}
	return true
}

// begin counts one more flow of the guest; false means refuse it.
func (n *Network) begin() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.closed || n.flows >= n.places {
		return false
	}
	n.flows++
	n.wg.Add(1)
	return true
}

func (n *Network) end() {
	n.mu.Lock()
	n.flows--
	n.mu.Unlock()
	n.wg.Done()
}

// beginUDP is begin for a UDP flow, which nobody closes: they share a part of
// the places, so that connections and names always find one.
func (n *Network) beginUDP() bool {
	n.mu.Lock()
	full := n.udp >= min(maxUDP, n.places/2)
	if !full {
		n.udp++
	}
	n.mu.Unlock()
	if full {
		return false
	}
	if !n.begin() {
		n.mu.Lock()
		n.udp--
		n.mu.Unlock()
		return false
	}
	return true
}

func (n *Network) endUDP() {
	n.mu.Lock()
	n.udp--
	n.mu.Unlock()
	n.end()
}

// flowPlaces is how many flows the descriptors of this process allow.
func flowPlaces() int {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil || r.Cur >= maxFlows+maxQueries+spareFiles {
		return maxFlows
	}
	return max(int(r.Cur)-maxQueries-spareFiles, int(r.Cur)/2)
}

// DialGuest connects to a TCP port of the guest, from the gateway's address.
func (n *Network) DialGuest(ctx context.Context, port uint16) (net.Conn, error) {
	conn, err := gonet.DialTCPWithBind(ctx, n.stack,
		tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFrom4(n.user.Gateway.As4())},
		tcpip.FullAddress{NIC: nic, Addr: tcpip.AddrFrom4(n.user.Guest.As4()), Port: port}, ipv4.ProtocolNumber)
	if err != nil {
		return nil, fmt.Errorf("cannot reach port %d of the guest: %w", port, err)
	}
	return conn, nil
}

// Close ends all connections and waits for everything the network runs.
func (n *Network) Close() error {
	n.mu.Lock()
	if n.closed {
		n.mu.Unlock()
		return nil
	}
	n.closed = true
	for c := range n.conns {
		c.Close()
	}
	n.mu.Unlock()
	n.cancel()
	var err error
	if n.listener != nil {
		err = n.listener.Close()
	}
	n.stack.Close()
	n.wg.Wait()
	n.stack.Wait()
	return err
}
