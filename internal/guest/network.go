package guest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/guestapi"
)

// nicPatience is how long eth0 may take to appear.
const nicPatience = 2 * time.Second

// setupNetwork brings up the loopback and, in mode user, eth0 with its address,
// MTU and default route; a mac is eth0's from now on.
func setupNetwork(n guestapi.Network, mac net.HardwareAddr) error {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("cannot set up the network: %w", err)
	}
	defer unix.Close(fd)
	nl := &netlink{fd: fd}
	lo, err := linkIndex("lo", 0)
	if err == nil {
		err = nl.linkUp(lo, 0)
	}
	if err != nil {
		return fmt.Errorf("cannot bring up the loopback: %w", err)
	}
	if n.Mode != "user" {
		return nil
	}
	prefix, err := netip.ParsePrefix(n.Address)
	if err != nil {
		return fmt.Errorf("cannot set up eth0: %w", err)
	}
	gateway, err := netip.ParseAddr(n.Gateway)
	if err != nil {
		return fmt.Errorf("cannot set up eth0: %w", err)
	}
	eth, err := linkIndex("eth0", nicPatience)
	if err == nil {
		_ = nl.noLinkLocal(eth) // a kernel without IPv6 has nothing to turn off
		if mac != nil {
			err = nl.setMAC(eth, mac)
		}
		err = errors.Join(err, nl.linkUp(eth, n.MTU))
	}
	if err == nil {
		err = nl.addAddress(eth, prefix)
	}
	if err == nil {
		err = nl.addDefaultRoute(eth, gateway)
	}
	if err != nil {
		return fmt.Errorf("cannot set up eth0: %w", err)
	}
	return nil
}

func linkIndex(name string, patience time.Duration) (int32, error) {
	deadline := time.Now().Add(patience)
	for {
		b, err := os.ReadFile("/sys/class/net/" + name + "/ifindex")
		if err == nil {
			n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 32)
			return int32(n), err
		}
		if time.Now().After(deadline) {
			return 0, fmt.Errorf("there is no device %s", name)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// netlink sends the few routing messages a boot needs; a library would be
// larger than the rest of the agent.
type netlink struct {
	fd  int
	seq uint32
}

func (nl *netlink) linkUp(index int32, mtu int) error {
	body := make([]byte, unix.SizeofIfInfomsg)
	m := (*unix.IfInfomsg)(unsafe.Pointer(&body[0]))
	m.Index, m.Flags, m.Change = index, unix.IFF_UP, unix.IFF_UP
	if mtu > 0 {
		body = attribute(body, unix.IFLA_MTU, binary.NativeEndian.AppendUint32(nil, uint32(mtu)))
	}
	return nl.do(unix.RTM_NEWLINK, 0, body)
}

func (nl *netlink) setMAC(index int32, mac net.HardwareAddr) error {
	body := make([]byte, unix.SizeofIfInfomsg)
	(*unix.IfInfomsg)(unsafe.Pointer(&body[0])).Index = index
	return nl.do(unix.RTM_NEWLINK, 0, attribute(body, unix.IFLA_ADDRESS, mac))
}

// noLinkLocal lets eth0 begin without an IPv6 address of its own making: the
// user network has no IPv6 neighbours to look for.
func (nl *netlink) noLinkLocal(index int32) error {
	body := make([]byte, unix.SizeofIfInfomsg)
	(*unix.IfInfomsg)(unsafe.Pointer(&body[0])).Index = index
	mode := attribute(nil, inet6AddrGenMode, []byte{addrGenModeNone})
	return nl.do(unix.RTM_NEWLINK, 0, attribute(body, unix.IFLA_AF_SPEC, attribute(nil, unix.AF_INET6, mode)))
}

// IFLA_INET6_ADDR_GEN_MODE and IN6_ADDR_GEN_MODE_NONE of linux/if_link.h.
const (
	inet6AddrGenMode = 8
	addrGenModeNone  = 1
)

func (nl *netlink) addAddress(index int32, p netip.Prefix) error {
	body := make([]byte, unix.SizeofIfAddrmsg)
	m := (*unix.IfAddrmsg)(unsafe.Pointer(&body[0]))
	m.Family, m.Prefixlen, m.Index = family(p.Addr()), uint8(p.Bits()), uint32(index)
	body = attribute(body, unix.IFA_LOCAL, p.Addr().AsSlice())
	body = attribute(body, unix.IFA_ADDRESS, p.Addr().AsSlice())
	return nl.do(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, body)
}

func (nl *netlink) addDefaultRoute(index int32, gateway netip.Addr) error {
	body := make([]byte, unix.SizeofRtMsg)
	m := (*unix.RtMsg)(unsafe.Pointer(&body[0]))
	m.Family, m.Table, m.Protocol, m.Type = family(gateway), unix.RT_TABLE_MAIN, unix.RTPROT_BOOT, unix.RTN_UNICAST
	body = attribute(body, unix.RTA_GATEWAY, gateway.AsSlice())
	body = attribute(body, unix.RTA_OIF, binary.NativeEndian.AppendUint32(nil, uint32(index)))
	return nl.do(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, body)
}

func family(a netip.Addr) uint8 {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// attribute appends one routing attribute, padded to four bytes.
func attribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// do sends one request and waits for the kernel's acknowledgement.
func (nl *netlink) do(kind, flags uint16, body []byte) error {
	nl.seq++
	b := binary.NativeEndian.AppendUint32(nil, uint32(unix.SizeofNlMsghdr+len(body)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = binary.NativeEndian.AppendUint16(b, flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	b = binary.NativeEndian.AppendUint32(b, nl.seq)
	b = binary.NativeEndian.AppendUint32(b, 0)
	b = append(b, body...)
	if err := unix.Sendto(nl.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return err
	}
	buf := make([]byte, 8192)
	for {
		n, _, err := unix.Recvfrom(nl.fd, buf, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if done, err := acknowledged(buf[:n], nl.seq); done {
			return err
		}
	}
}

// acknowledged looks for the answer to request seq in one datagram.
func acknowledged(b []byte, seq uint32) (bool, error) {
	for len(b) >= unix.SizeofNlMsghdr {
		size := binary.NativeEndian.Uint32(b)
		if size < unix.SizeofNlMsghdr || int(size) > len(b) {
			break
		}
		kind, got := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint32(b[8:])
		if kind == unix.NLMSG_ERROR && got == seq && size >= unix.SizeofNlMsghdr+4 {
			if errno := -int32(binary.NativeEndian.Uint32(b[unix.SizeofNlMsghdr:])); errno != 0 {
				return true, unix.Errno(errno)
			}
			return true, nil
		}
		b = b[min(len(b), int(size+3)&^3):]
	}
	return false, nil
}
