package network

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"sync"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// ethernetHead is the length of a frame's header in bytes.
const ethernetHead = header.EthernetMinimumSize

// wire is the gateway's network device: Ethernet frames over a stream, each
// behind its length as uint32 big endian. It implements stack.LinkEndpoint.
type wire struct {
	mtu     uint32
	mac     tcpip.LinkAddress
	gateway [4]byte

	attach     sync.RWMutex
	dispatcher stack.NetworkDispatcher

	write sync.Mutex
	conn  net.Conn // nil while no VMM is connected
	head  [4 + ethernetHead]byte
	parts net.Buffers
}

var _ stack.LinkEndpoint = (*wire)(nil)

// serve reads frames from conn until it ends. Only one serve runs at a time.
func (w *wire) serve(conn net.Conn) error {
	w.write.Lock()
	w.conn = conn
	w.write.Unlock()
	defer func() {
		w.write.Lock()
		w.conn = nil
		w.write.Unlock()
	}()
	r := bufio.NewReaderSize(conn, 32<<10)
	for {
		frame, err := readFrame(r, int(w.mtu)+ethernetHead)
		if err != nil {
			return err
		}
		if frame != nil {
			w.receive(frame)
		}
	}
}

// readFrame reads one frame. One too short to be a frame gives nil; one longer
// than the device can send is an error: the stream is not what it should be.
func readFrame(r *bufio.Reader, longest int) (*buffer.View, error) {
	var size [4]byte
	if _, err := io.ReadFull(r, size[:]); err != nil {
		return nil, err
	}
	n := binary.BigEndian.Uint32(size[:])
	if n > uint32(longest) {
		return nil, fmt.Errorf("cannot read a frame: %d bytes exceed %d", n, longest)
	}
	if n < ethernetHead {
		_, err := r.Discard(int(n))
		return nil, err
	}
	v := buffer.NewViewSize(int(n))
	if _, err := io.ReadFull(r, v.AsSlice()); err != nil {
		v.Release()
		return nil, err
	}
	return v, nil
}

// receive hands a frame to the stack, if it is for us and of a kind the stack
// should see. It takes the frame over.
func (w *wire) receive(frame *buffer.View) {
	eth := header.Ethernet(frame.AsSlice())
	dst := eth.DestinationAddress()
	protocol := eth.Type()
	if (dst != w.mac && dst != header.EthernetBroadcastAddress) || !w.wanted(protocol, frame.AsSlice()[ethernetHead:]) {
		frame.Release()
		return
	}
	frame.TrimFront(ethernetHead)
	pkt := stack.NewPacketBuffer(stack.PacketBufferOptions{Payload: buffer.MakeWithView(frame)})
	defer pkt.DecRef()
	w.attach.RLock()
	d := w.dispatcher
	w.attach.RUnlock()
	if d != nil {
		d.DeliverNetworkPacket(protocol, pkt)
	}
}

// wanted says whether the stack should see the packet. The stack answers for
// every address, as it stands for all the world; of what it would answer by
// itself only that which concerns the gateway is let through, so that a ping of
// a host that is down is not answered by us.
func (w *wire) wanted(protocol tcpip.NetworkProtocolNumber, p []byte) bool {
	switch protocol {
	case header.ARPProtocolNumber:
		h := header.ARP(p)
		return len(p) >= header.ARPSize && h.IsValid() && [4]byte(h.ProtocolAddressTarget()) == w.gateway
	case header.IPv4ProtocolNumber:
		if len(p) < header.IPv4MinimumSize {
			return false
		}
		switch h := header.IPv4(p); h.TransportProtocol() {
		case header.TCPProtocolNumber, header.UDPProtocolNumber:
			return true
		case header.ICMPv4ProtocolNumber:
			return h.DestinationAddress().As4() == w.gateway
		}
	}
	return false
}

// WritePackets sends packets to the guest; while none is connected they are
// lost. A guest that takes nothing holds its own connections up, nobody else's.
func (w *wire) WritePackets(pkts stack.PacketBufferList) (int, tcpip.Error) {
	w.write.Lock()
	defer w.write.Unlock()
	n := 0
	for _, p := range pkts.AsSlice() {
		if w.conn != nil && !w.spoofedARP(p) {
			src := w.mac
			if p.EgressRoute.LocalLinkAddress != "" {
				src = p.EgressRoute.LocalLinkAddress
			}
			binary.BigEndian.PutUint32(w.head[:], uint32(ethernetHead+p.Size()))
			header.Ethernet(w.head[4:]).Encode(&header.EthernetFields{
				Type: p.NetworkProtocolNumber, SrcAddr: src, DstAddr: p.EgressRoute.RemoteLinkAddress,
			})
			parts := append(w.parts[:0], w.head[:])
			parts = append(parts, p.AsSlices()...)
			w.parts = parts[:0]
			if _, err := parts.WriteTo(w.conn); err != nil {
				return n, &tcpip.ErrClosedForSend{}
			}
		}
		n++
	}
	return n, nil
}

// spoofedARP says whether p would claim an address that is not the gateway's.
func (w *wire) spoofedARP(p *stack.PacketBuffer) bool {
	if p.NetworkProtocolNumber != header.ARPProtocolNumber {
		return false
	}
	h := header.ARP(p.NetworkHeader().Slice())
	return h.IsValid() && h.Op() == header.ARPReply && [4]byte(h.ProtocolAddressSender()) != w.gateway
}

// What follows is what the stack asks of a device.

func (w *wire) MTU() uint32                             { return w.mtu }
func (w *wire) SetMTU(uint32)                           {}
func (w *wire) MaxHeaderLength() uint16                 { return 0 }
func (w *wire) LinkAddress() tcpip.LinkAddress          { return w.mac }
func (w *wire) SetLinkAddress(tcpip.LinkAddress)        {}
func (w *wire) ARPHardwareType() header.ARPHardwareType { return header.ARPHardwareEther }
func (w *wire) AddHeader(*stack.PacketBuffer)           {}
func (w *wire) ParseHeader(*stack.PacketBuffer) bool    { return true }
func (w *wire) Wait()                                   {}
func (w *wire) Close()                                  {}
func (w *wire) SetOnCloseAction(func())                 {}

// Capabilities: addresses are resolved by ARP. Received checksums count as
// right: the stream loses and changes nothing.
func (w *wire) Capabilities() stack.LinkEndpointCapabilities {
	return stack.CapabilityResolutionRequired | stack.CapabilityRXChecksumOffload
}

func (w *wire) Attach(d stack.NetworkDispatcher) {
	w.attach.Lock()
	defer w.attach.Unlock()
	w.dispatcher = d
}

func (w *wire) IsAttached() bool {
	w.attach.RLock()
	defer w.attach.RUnlock()
	return w.dispatcher != nil
}
