package kernel

import (
	"slices"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
)

// bootModules are what a guest needs before it has its disks; the modules these
// need come along.
var bootModules = [...]string{"virtio_mmio", "virtio_blk", "overlay", "virtio_net", "ext4"}

// laterModules are of use once the guest is up, where the kernel has them.
var laterModules = [...]string{"virtio_balloon", "virtio_rng"}

// transportModule is the driver of a transport.
func transportModule(t guestapi.Transport) string {
	if t == guestapi.TransportVsock {
		return "vmw_vsock_virtio_transport"
	}
	return "virtio_console"
}

// bootPlan is what boot.cpio holds.
type bootPlan []bootList

// bootList is one list of guestapi.ModulesPath.
type bootList struct {
	name    string
	modules []string
}

// names of all modules.
func (p bootPlan) names() []string {
	var all []string
	for _, l := range p {
		all = append(all, l.modules...)
	}
	return all
}

// plan finds what a guest with this kernel is to load, and when. Modules that
// several lists need are on the first.
func (u *unpacker) plan() (bootPlan, error) {
	g, builtin := u.modules.bootGraph(), u.modules.builtin
	var p bootPlan
	add := func(list string, wanted ...string) error {
		order, err := g.closure(wanted, builtin)
		if err != nil {
			return api.Errorf(api.KindUnsupported, "cannot boot a guest with kernel %s: %w", u.release, err)
		}
		here := p.names()
		p = append(p, bootList{list, slices.DeleteFunc(order, func(name string) bool { return slices.Contains(here, name) })})
		return nil
	}
	if err := add(guestapi.LoadAlways, bootModules[:]...); err != nil {
		return nil, err
	}
	for _, t := range u.transports {
		if err := add(guestapi.LoadAlways+"."+string(t), transportModule(t)); err != nil {
			return nil, err
		}
	}
	for _, module := range laterModules {
		// Whether the kernel has it, and whatever it needs, is all the same.
		_ = add(guestapi.LoadLater, module)
	}
	return p, nil
}

// Carries says whether guests with this kernel can have that transport.
func (m Manifest) Carries(t guestapi.Transport) bool {
	if len(m.Transports) == 0 {
		return t == guestapi.TransportSerial
	}
	return slices.Contains(m.Transports, t)
}
