package network

import (
	"net"
	"net/netip"
)

// forbidden are the destinations that are never dialled for a guest.
func forbidden() []netip.Prefix {
	var p []netip.Prefix
	for _, s := range []string{
		"0.0.0.0/8",          // this host: connecting to 0.0.0.0 is connecting to the loopback
		"127.0.0.0/8",        // loopback
		"169.254.0.0/16",     // link-local: metadata services of clouds
		"100.100.100.200/32", // Alibaba's
		"168.63.129.16/32",   // Azure's; where it is the resolver, we ask it ourselves
		"224.0.0.0/4",        // multicast
		"240.0.0.0/4",        // reserved, broadcast
	} {
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}

// allowed says whether a guest may reach the address through this host.
func (n *Network) allowed(a netip.Addr) bool {
	if !a.Is4() || n.user.Subnet.Contains(a) {
		return false
	}
	for _, p := range n.forbidden {
		if p.Contains(a) {
			return false
		}
	}
	return !onLoopback(a)
}

// onLoopback says whether the host's loopback device has the address: people
// put service addresses there.
func onLoopback(a netip.Addr) bool {
	devices, err := net.Interfaces()
	if err != nil {
		return true
	}
	for _, d := range devices {
		if d.Flags&net.FlagLoopback == 0 {
			continue
		}
		addresses, err := d.Addrs()
		if err != nil {
			return true
		}
		for _, at := range addresses {
			if ip, ok := at.(*net.IPNet); ok {
				if on, ok := netip.AddrFromSlice(ip.IP); ok && on.Unmap() == a {
					return true
				}
			}
		}
	}
	return false
}
