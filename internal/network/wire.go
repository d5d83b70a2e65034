package network

import (
	"sync"

	"gvisor.dev/gvisor/pkg/buffer"
	"gvisor.dev/gvisor/pkg/tcpip"
	"gvisor.dev/gvisor/pkg/tcpip/header"
	"gvisor.dev/gvisor/pkg/tcpip/stack"
)

// ethernetHead is the length of a frame's header in bytes.
const ethernetHead = header.EthernetMinimumSize

// wire is the gateway's network device: it passes Ethernet frames on to whatever
// carries them. It implements stack.LinkEndpoint.
type wire struct {
	mtu     uint32
	mac     tcpip.LinkAddress
	gateway [4]byte

	attach     sync.RWMutex
	dispatcher stack.NetworkDispatcher

	write sync.Mutex
	way   carrier // nil while no VMM is connected
	head  [ethernetHead]byte
	parts [][]byte
}

// carrier takes frames to the VMM and brings its own.
type carrier interface {
	// read gives one frame; nil one that is too short to be a frame. Only one
	// goroutine reads.
	read(longest int) (*buffer.View, error)
	// write sends the frame that the parts make. Only one goroutine writes.
	write(parts [][]byte) error
}

var _ stack.LinkEndpoint = (*wire)(nil)

// serve reads frames until they end. Only one serve runs at a time.
func (w *wire) serve(way carrier) error {
	w.write.Lock()
	w.way = way
	w.write.Unlock()
	defer func() {
		w.write.Lock()
		w.way = nil
		w.write.Unlock()
	}()
	for {
		frame, err := way.read(int(w.mtu) + ethernetHead)
		if err != nil {
			return err
		}
		if frame != nil {
			w.receive(frame)
		}
	}
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
		if w.way != nil && !w.spoofedARP(p) {
			src := w.mac
			if p.EgressRoute.LocalLinkAddress != "" {
				src = p.EgressRoute.LocalLinkAddress
			}
			header.Ethernet(w.head[:]).Encode(&header.EthernetFields{
				Type: p.NetworkProtocolNumber, SrcAddr: src, DstAddr: p.EgressRoute.RemoteLinkAddress,
			})
			parts := append(w.parts[:0], w.head[:])
			parts = append(parts, p.AsSlices()...)
			w.parts = parts[:0]
			if err := w.way.write(parts); err != nil {
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
