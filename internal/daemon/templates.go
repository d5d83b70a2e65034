package daemon

import (
	"context"
	"path/filepath"
	"time"

	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/guestbin"
	"github.com/bangervm/banger/internal/host"
	"github.com/bangervm/banger/internal/initramfs"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/network"
	"github.com/bangervm/banger/internal/template"
	"github.com/bangervm/banger/internal/vm"
	"github.com/bangervm/banger/internal/vmm"
)

// templatesOf keeps templates for the drivers; nil where the configuration wants none.
func templatesOf(o Options, world *host.Real, drivers ...vmm.Driver) (*template.Manager, error) {
	if !o.Config.Templates {
		// None of them is of this boot of the host: removed.
		return nil, template.New(template.Options{Dir: o.Layout.Templates(), Runtime: o.Layout.Runtime, Log: o.Log}).Close(context.Background())
	}
	guest, err := guestbin.Open()
	if err != nil {
		return nil, err
	}
	return template.New(template.Options{
		Dir: o.Layout.Templates(), Runtime: o.Layout.Runtime, HostBoot: world.BootID(), Guest: guest.Build, Drivers: drivers, Log: o.Log,
		Initrd: func(path, kernel string, config guestapi.Config) error {
			return initramfs.Write(o.Layout, path, layout.KernelDir{Dir: filepath.Dir(kernel)}.BootModules(), config)
		},
		FreeDisk: world.FreeDisk, FreeMemory: world.MemoryAvailable, InMemory: world.InMemory, Now: time.Now,
		Banger: ownProgram(), MAC: network.DefaultUser().GuestMAC,
	}), nil
}

// vmTemplates is the manager as machines need it: nil, not a nil pointer, for none.
func vmTemplates(m *template.Manager) vm.Templates {
	if m == nil {
		return nil
	}
	return m
}
