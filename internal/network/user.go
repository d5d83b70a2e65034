package network

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
)

// User is the configuration of one guest's user-mode network. Each guest has a
// network of its own, so all may have the same addresses.
type User struct {
	Subnet     netip.Prefix `json:"subnet"`
	Gateway    netip.Addr   `json:"gateway"`
	Guest      netip.Addr   `json:"guest"`
	GatewayMAC string       `json:"gateway_mac"`
	GuestMAC   string       `json:"guest_mac"`
	// MTU of the guest's device in bytes. Connections end in this process, so a
	// large one costs nothing outside and saves a packet's overhead.
	MTU int `json:"mtu"`
	// BytesPerSecond is what the guest's flows may carry in each direction; zero is
	// no limit.
	BytesPerSecond int64 `json:"bytes_per_second,omitempty"`
	// ResolvConf names the file with the resolvers; empty means the host's.
	ResolvConf string `json:"resolv_conf,omitempty"`
}

// maxMTU is what a virtio network device carries at most, in bytes.
const maxMTU = 65520

// DefaultUser is the network every guest gets.
func DefaultUser() User {
	return User{
		Subnet:     netip.MustParsePrefix("192.168.127.0/24"),
		Gateway:    netip.MustParseAddr("192.168.127.1"),
		Guest:      netip.MustParseAddr("192.168.127.2"),
		GatewayMAC: "52:54:00:ba:00:01",
		GuestMAC:   "52:54:00:ba:00:02",
		MTU:        maxMTU,
	}
}

// ForGuest is what the guest must know to use it.
func (u User) ForGuest() guestapi.Network {
	return guestapi.Network{
		Mode:    "user",
		Address: netip.PrefixFrom(u.Guest, u.Subnet.Bits()).String(),
		Gateway: u.Gateway.String(),
		DNS:     []string{u.Gateway.String()},
		MTU:     u.MTU,
	}
}

func (u User) check() (gateway, guest net.HardwareAddr, err error) {
	switch {
	case !u.Subnet.IsValid() || !u.Subnet.Addr().Is4():
		err = fmt.Errorf("subnet %q is not an IPv4 one", u.Subnet)
	case !u.Subnet.Contains(u.Gateway) || !u.Subnet.Contains(u.Guest) || u.Gateway == u.Guest:
		err = fmt.Errorf("gateway %s and guest %s are not two addresses of %s", u.Gateway, u.Guest, u.Subnet)
	case u.MTU < 576 || u.MTU > maxMTU:
		err = fmt.Errorf("MTU %d is not between 576 and %d", u.MTU, maxMTU)
	}
	if b := u.BytesPerSecond; err == nil && (b < 0 || b > 0 && b < minRate) {
		err = fmt.Errorf("%d bytes a second are fewer than %d", b, minRate)
	}
	if err == nil {
		gateway, err = parseMAC(u.GatewayMAC)
	}
	if err == nil {
		guest, err = parseMAC(u.GuestMAC)
	}
	if err != nil {
		return nil, nil, api.Errorf(api.KindInvalid, "cannot set up the user network: %w", err)
	}
	return gateway, guest, nil
}

func parseMAC(s string) (net.HardwareAddr, error) {
	mac, err := net.ParseMAC(s)
	if err == nil && (len(mac) != 6 || mac[0]&1 != 0) {
		err = fmt.Errorf("%q is not an Ethernet unicast address", s)
	}
	return mac, err
}
