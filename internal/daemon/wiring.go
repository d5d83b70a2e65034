package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/catalog"
	"github.com/bangervm/banger/internal/debian"
	"github.com/bangervm/banger/internal/fetch"
	"github.com/bangervm/banger/internal/guestbin"
	"github.com/bangervm/banger/internal/host"
	"github.com/bangervm/banger/internal/host/cgroup"
	"github.com/bangervm/banger/internal/host/mapper"
	"github.com/bangervm/banger/internal/image"
	"github.com/bangervm/banger/internal/initramfs"
	"github.com/bangervm/banger/internal/kernel"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/network"
	"github.com/bangervm/banger/internal/oci"
	"github.com/bangervm/banger/internal/operation"
	"github.com/bangervm/banger/internal/sshkey"
	"github.com/bangervm/banger/internal/store"
	"github.com/bangervm/banger/internal/vm"
	"github.com/bangervm/banger/internal/vmm"
	"github.com/bangervm/banger/internal/vmm/firecracker"
	"github.com/bangervm/banger/internal/vmm/firecracker/release"
	"github.com/bangervm/banger/internal/vmm/qemu"
)

// closers end what was made, the last one first.
type closers []func(context.Context) error

func (c *closers) push(f func(context.Context) error) { *c = append(*c, f) }

func (c *closers) close(ctx context.Context) error {
	var errs []error
	for len(*c) > 0 {
		last := (*c)[len(*c)-1]
		*c = (*c)[:len(*c)-1]
		errs = append(errs, last(ctx))
	}
	return errors.Join(errs...)
}

// assemble makes every service, in the order of what they need, takes over what
// the last daemon left, and gives the func that ends them in reverse. The caller
// holds the lock. docs/adr/0001-explicit-wiring.md says why the order is this.
func assemble(ctx context.Context, o Options) (sv services, end func(context.Context) error, err error) {
	var made closers
	defer func() {
		if err != nil {
			err = errors.Join(err, made.close(context.WithoutCancel(ctx)))
		}
	}()
	clearStaging(ctx, o.Layout, o.Log, debian.RemoveTree)
	db, err := store.Open(ctx, o.Layout.Database(), o.Log)
	if err != nil {
		return sv, nil, err
	}
	made.push(func(context.Context) error { return db.Close() })
	events, err := newBus(ctx, db, o.Log, time.Now, api.Event{
		Kind: "daemon.started", Target: fmt.Sprint(os.Getpid()), Data: map[string]string{"version": o.Info.Version, "build": o.Info.Build},
	})
	if err != nil {
		return sv, nil, err
	}
	made.push(func(context.Context) error {
		events.Publish("daemon.stopped", fmt.Sprint(os.Getpid()), nil)
		events.Close()
		return nil
	})

	ops := operation.New(db, events.Operation, time.Now, o.Log)
	blobs := oci.OpenBlobs(o.Layout.Blobs())
	registries, err := oci.New(registryOptions(o, blobs))
	if err != nil {
		return sv, nil, err
	}
	downloads := fetch.New(fetch.Options{Plain: plainHosts(o.Config), Agent: "banger/" + o.Info.Version})
	configured, err := places(o.Config.Catalogs)
	if err != nil {
		return sv, nil, err
	}
	catalogs := catalog.New(configured, o.Layout.Catalogs(), downloads, time.Now, o.Log)
	kernels := kernel.New(o.Layout, db, ops, o.Log, kernel.Options{Mirror: o.Config.DebianMirror, Catalog: catalogs, Downloads: downloads})
	images := image.New(o.Layout, db, ops, o.Log, image.Options{
		Kernels: kernels, Sources: map[string]image.Source{image.FromBundle: image.Bundles{Downloads: downloads, Kernels: kernels, Now: time.Now}},
		Default: o.Config.DefaultImageName, Mirror: o.Config.DebianMirror, Catalog: catalogs,
		Registries: registries, Parse: image.Reference, Blobs: imageBlobs{blobs}, Event: events.Publish, KernelKnown: kernels.Known,
	})
	world := host.New(o.Getenv)
	fc := firecracker.New(firecracker.Options{
		Binary: o.Config.FirecrackerBin, Fetched: o.Layout.Firecracker(), Self: ownProgram(),
	}, o.Log)
	releases := release.New(o.Layout, ops, release.Options{
		URL: o.Config.FirecrackerURL, Digest: o.Config.FirecrackerDigest, Client: fetch.New(fetch.Options{Agent: "banger/" + o.Info.Version}),
		Check: func(ctx context.Context, program string) (vmm.Version, error) {
			return firecracker.New(firecracker.Options{Binary: program}, o.Log).Check(ctx)
		},
	})
	emulator := qemu.New(qemu.Options{Binary: o.Config.QEMUBin}, o.Log)
	choice := newChooser(kernelCarries,
		candidate{fc, proberOf(fc, o.Layout, world, o.Log)},
		candidate{emulator, proberOf(emulator, o.Layout, world, o.Log)})
	made.push(choice.close)
	templates, err := templatesOf(o, world, emulator)
	if err != nil {
		return sv, nil, err
	}
	if templates != nil {
		made.push(templates.Close)
	}
	user := network.DefaultUser()
	keys := sshkey.New(inHome(o.Config.SSHKeyPath, o.Getenv), o.Layout.SSHKey())
	vms := vm.New(vm.Deps{
		Layout: o.Layout, Store: db, Operations: ops,
		Images: vmImages{images}, Kernels: vmKernels{kernels}, Keepers: keepers{network: user, qemuBinary: o.Config.QEMUBin, firecracker: fc.Program},
		Initrd: func(_ context.Context, path string, k layout.KernelDir, cfg guestapi.Config) error {
			return initramfs.Write(o.Layout, path, k.BootModules(), cfg)
		},
		SSHKey: func() (guestapi.AuthorizedKey, error) {
			key, err := keys.Key()
			return guestapi.AuthorizedKey{Key: key.Line, Fingerprint: key.Fingerprint}, err
		},
		Host: world, Snapshots: vmSnapshots{mapper.New(o.Layout.State)}, Accel: choice, Templates: vmTemplates(templates), Network: user.ForGuest(),
		Defaults: vm.Defaults{
			Image: o.Config.DefaultImageName, Driver: o.Config.Driver, Accelerator: o.Config.Accel, Network: o.Config.Network,
			VCPUs: o.Config.VMDefaults.VCPU, MemoryBytes: o.Config.VMDefaults.Memory,
			DiskBytes: o.Config.VMDefaults.DiskSize, SystemOverlayBytes: o.Config.VMDefaults.SystemOverlaySize,
			Limits: api.VMLimits{
				DiskBytesPerSecond: o.Config.Limits.DiskBytes, DiskOperationsPerSecond: o.Config.Limits.DiskOperations,
				NetworkBytesPerSecond: o.Config.Limits.NetworkBytes,
			},
		},
		Build: o.Info.Build, Log: o.Log, Now: time.Now, Event: events.Publish,
	})
	made.push(vms.Close)
	made.push(ops.Close)

	for _, recover := range []func(context.Context) error{kernels.Recover, images.Recover, vms.Recover, ops.Recover} {
		if err := recover(ctx); err != nil {
			return sv, nil, err
		}
	}
	check := &doctor{
		layout: o.Layout, info: o.Info, root: os.Geteuid() == 0, replaced: replaced,
		accelerator: func(ctx context.Context) (vm.Choice, error) {
			k, err := defaultKernel(ctx, db, o.Layout)
			if api.KindOf(err) == api.KindNotFound {
				return vm.Choice{}, api.Errorf(api.KindNotFound, "there is no kernel here yet to boot a probe with")
			}
			if err != nil {
				return vm.Choice{}, err
			}
			return choice.Choose(ctx, o.Config.Driver, o.Config.Accel, k)
		},
		vmms:  []vmm.Driver{fc, emulator},
		tools: hostTools(os.Geteuid() == 0),
		tool: func(ctx context.Context, name string) (string, error) {
			t, err := world.Tool(ctx, name)
			return strings.TrimSpace(t.Path + " " + t.Version), err
		},
		namespaces: func(context.Context) error {
			return errors.Join(world.UserNamespaces(), world.SubIDs(os.Geteuid()))
		},
		groups: cgroup.Check,
		free:   world.FreeDisk, memory: world.MemoryAvailable, resolvers: world.Resolvers, store: db.Check,
		guest: func() error { _, err := guestbin.Open(); return err }, rootDisks: vms.RootDisks,
		image: func(ctx context.Context) (string, error) { return defaultImage(ctx, images, o.Config.DefaultImageName) },
		kernel: func(ctx context.Context) (string, error) {
			_, err := kernels.Resolve(ctx, "", "never", nil)
			return kernel.DefaultName, err
		},
	}
	return services{
		vms: httpVMs{vms}, images: images, kernels: kernels, catalogs: httpCatalogs{catalogs}, system: releases, operations: httpOperations{ops}, events: events, doctor: check.run,
	}, made.close, nil
}

// registryOptions are how registries are talked to.
func registryOptions(o Options, blobs *oci.Blobs) oci.Options {
	hosts := map[string]oci.Registry{}
	for host, r := range o.Config.Registries {
		hosts[host] = oci.Registry(r)
	}
	docker := o.Getenv("DOCKER_CONFIG")
	if home := o.Getenv("HOME"); docker == "" && home != "" {
		docker = filepath.Join(home, ".docker")
	}
	return oci.Options{Blobs: blobs, Registries: hosts, DockerConfig: docker, UserAgent: "banger/" + o.Info.Version, Log: o.Log}
}

// inHome is the path with ~/ for the user's home put out.
func inHome(path string, getenv func(string) string) string {
	if rest, ok := strings.CutPrefix(path, "~/"); ok {
		return filepath.Join(getenv("HOME"), rest)
	}
	return path
}

// clearStaging deletes what a dead daemon left half-made. What does not go is
// in nobody's way but that of the disk: it is told of, and the daemon starts.
func clearStaging(ctx context.Context, l layout.Layout, log *slog.Logger, remove func(context.Context, string) error) {
	entries, err := os.ReadDir(l.Staging())
	if err != nil {
		log.Warn("cannot look at the staging folder", "error", err)
	}
	for _, e := range entries {
		if err := remove(ctx, filepath.Join(l.Staging(), e.Name())); err != nil {
			log.Warn("cannot clear the staging folder", "error", err)
		}
	}
}

// kernelCarries says, with an error, that a kernel lacks the driver of a
// transport of the guest link.
func kernelCarries(dir layout.KernelDir, t guestapi.Transport) error {
	m, err := kernel.ReadManifest(dir)
	if err != nil {
		return err
	}
	if m.Carries(t) {
		return nil
	}
	if len(m.Transports) == 0 {
		return api.Errorf(api.KindUnsupported, "cannot use kernel %s with the guest link %s: an older banger made it", m.Release, t).
			WithHint("banger kernel pull %s --force", kernel.DefaultName)
	}
	return api.Errorf(api.KindUnsupported, "cannot use kernel %s with the guest link %s: it lacks the driver", m.Release, t).
		WithHint("banger kernel list")
}

// defaultKernel is where the default kernel lies; kind not-found when it was
// not pulled yet.
func defaultKernel(ctx context.Context, db *store.DB, l layout.Layout) (layout.KernelDir, error) {
	k, err := db.KernelByName(ctx, kernel.DefaultName)
	if err != nil {
		return layout.KernelDir{}, err
	}
	return l.Kernel(k.ID), nil
}

// defaultImage looks for the configured image; kind not-found means that its
// first use will pull it.
func defaultImage(ctx context.Context, images *image.Manager, name string) (string, error) {
	_, err := images.Resolve(ctx, name, "never", nil)
	if api.KindOf(err) != api.KindNotFound {
		return name, err
	}
	entries, cerr := images.Catalog(ctx, false)
	if cerr != nil {
		return name, cerr
	}
	for _, e := range entries {
		if e.Name == name {
			return name, err
		}
	}
	return name, api.Errorf(api.KindInvalid, "cannot use default_image_name %q: it is neither here nor in the catalog", name).
		WithHint("banger image catalog")
}

// replaced says whether the file of the running program was removed or
// overwritten by another since it started.
func replaced() bool {
	target, err := os.Readlink("/proc/self/exe")
	return err == nil && strings.HasSuffix(target, " (deleted)")
}
