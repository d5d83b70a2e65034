package vm

import (
	"errors"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/docker/go-units"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/store"
)

const (
	networkUser = "user"
	networkNone = "none"

	auto = "auto"

	minMemory = 128 << 20
	minDisk   = 64 << 20
	maxDisk   = 16 << 40 // what ext4 holds with 4 KiB blocks

	maxEnv    = 1 << 20 // bytes of all variables together
	maxLabels = 64
	maxText   = 4096
)

// fill puts the configured defaults where the request is silent.
func (m *Manager) fill(r api.CreateVM) api.CreateVM {
	d := m.d.Defaults
	r.Image = first(r.Image, d.Image)
	r.Pull = first(r.Pull, "missing")
	r.Driver = first(r.Driver, first(d.Driver, auto))
	r.Accelerator = first(r.Accelerator, first(d.Accelerator, auto))
	r.Network = first(r.Network, first(d.Network, networkUser))
	r.RootDisk = first(r.RootDisk, auto)
	r.Init = first(r.Init, auto)
	if r.VCPUs == 0 {
		r.VCPUs = d.VCPUs
	}
	if r.MemoryBytes == 0 {
		r.MemoryBytes = d.MemoryBytes
	}
	if r.DiskBytes == 0 {
		r.DiskBytes = d.DiskBytes
	}
	if r.SystemOverlayBytes == 0 {
		r.SystemOverlayBytes = d.SystemOverlayBytes
	}
	return r
}

// checkCreate refuses a filled request that cannot be fulfilled on this host.
func (m *Manager) checkCreate(r api.CreateVM) error {
	if r.Name != "" {
		if err := checkName(r.Name, "banger vm create --name %s"); err != nil {
			return err
		}
	}
	if r.Image == "" {
		return api.Errorf(api.KindInvalid, "cannot create vm: no image given").WithHint("banger image catalog")
	}
	for _, c := range []struct {
		what, got string
		allowed   []string
	}{
		{"pull policy", r.Pull, []string{"missing", "always", "never"}},
		{"network", r.Network, []string{networkUser, networkNone}},
		{"driver", r.Driver, []string{auto, "firecracker", "qemu", "fake"}},
		{"accelerator", r.Accelerator, []string{auto, "kvm", "tcg"}},
		{"root disk", r.RootDisk, []string{auto, rootOverlay, rootReflink, rootSnapshot}},
		{"init", r.Init, []string{auto, initAgent, initImage}},
	} {
		if !oneOf(c.allowed, c.got) {
			return api.Errorf(api.KindInvalid, "cannot create vm: %s %q is not one of %s", c.what, c.got, strings.Join(c.allowed, ", "))
		}
	}
	for _, err := range []error{
		m.checkVCPUs(r.VCPUs), m.checkMemory(r.MemoryBytes),
		checkDisk("disk", r.DiskBytes), checkDisk("system overlay", r.SystemOverlayBytes),
		checkEnv(r.Env), checkLabels(r.Labels),
		checkText("workdir", r.Workdir), checkText("user", r.User), checkText("request id", r.RequestID),
	} {
		if err != nil {
			return err
		}
	}
	if r.Workdir != "" && !strings.HasPrefix(r.Workdir, "/") {
		return api.Errorf(api.KindInvalid, "cannot create vm: workdir %q is not an absolute path", r.Workdir)
	}
	if r.ImageEntrypoint && len(r.Entrypoint) > 0 {
		return api.Errorf(api.KindInvalid, "cannot create vm: an entrypoint of its own and the image's are one too many")
	}
	for _, a := range r.Entrypoint {
		if err := checkText("entrypoint", a); err != nil {
			return err
		}
	}
	return nil
}

func (m *Manager) checkVCPUs(n int) error {
	if limit := m.d.Host.CPUs(); n < 1 || n > limit {
		return api.Errorf(api.KindInvalid, "cannot give a vm %d cpus: between 1 and this host's %d are possible", n, limit)
	}
	return nil
}

func (m *Manager) checkMemory(n int64) error {
	if n < minMemory {
		e := api.Errorf(api.KindInvalid, "cannot give a vm %s of memory: at least %s are needed", bytesText(n), bytesText(minMemory))
		if n > 0 && n <= 512 { // taken for GiB
			return api.Errorf(api.KindInvalid, "%s; did you mean %dG?", e.Message, n).WithHint("banger vm create --memory %dG", n)
		}
		return e
	}
	if total, err := m.d.Host.MemoryTotal(); err == nil && n > total {
		return api.Errorf(api.KindInvalid, "cannot give a vm %s of memory: this host has %s", bytesText(n), bytesText(total))
	}
	return nil
}

func checkDisk(what string, n int64) error {
	if n < minDisk || n > maxDisk {
		return api.Errorf(api.KindInvalid, "cannot make a %s of %s: between %s and %s are possible", what, bytesText(n), bytesText(minDisk), bytesText(maxDisk))
	}
	return nil
}

func checkEnv(env []string) error {
	total := 0
	for _, e := range env {
		key, _, ok := strings.Cut(e, "=")
		if !ok || key == "" || strings.ContainsRune(e, 0) {
			return api.Errorf(api.KindInvalid, "cannot use environment variable %q: not KEY=VALUE", clip(e, 80))
		}
		total += len(e)
	}
	if total > maxEnv {
		return api.Errorf(api.KindInvalid, "cannot use the environment: %s exceed %s", bytesText(int64(total)), bytesText(maxEnv))
	}
	return nil
}

func checkLabels(labels map[string]string) error {
	if len(labels) > maxLabels {
		return api.Errorf(api.KindInvalid, "cannot label a vm: %d labels exceed %d", len(labels), maxLabels)
	}
	for k, v := range labels {
		if k == "" || strings.ContainsAny(k, "=\x00\n") || len(k) > 128 || strings.ContainsRune(v, 0) || len(v) > maxText {
			return api.Errorf(api.KindInvalid, "cannot use label %q: a key is 1 to 128 characters without =, a value at most %d", clip(k, 80), maxText)
		}
	}
	return nil
}

func checkText(what, s string) error {
	if len(s) > maxText || strings.ContainsRune(s, 0) {
		return api.Errorf(api.KindInvalid, "cannot use %s %q: too long, or with a zero byte", what, clip(s, 80))
	}
	return nil
}

// prerequisites names everything that keeps a machine from starting, at once
// and before anything is done.
func (m *Manager) prerequisites(verb, name string, memory int64, tools ...string) error {
	var missing []string
	kind, hint := api.KindNoSpace, "banger doctor"
	slices.Sort(tools)
	for _, t := range slices.Compact(tools) {
		if err := m.d.Host.LookTool(t); err != nil {
			kind = api.KindUnavailable
			missing = append(missing, err.Error())
		}
	}
	if free, err := m.d.Host.FreeDisk(m.d.Layout.State); err != nil {
		missing = append(missing, err.Error())
	} else if free < minFree {
		missing = append(missing, "only "+bytesText(free)+" of disk are free in "+m.d.Layout.State+", "+bytesText(minFree)+" are needed")
	}
	if memory > 0 {
		if avail, err := m.d.Host.MemoryAvailable(); err != nil {
			missing = append(missing, err.Error())
		} else if avail < memory {
			missing = append(missing, "only "+bytesText(avail)+" of memory are available, "+bytesText(memory)+" are needed")
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return api.Errorf(kind, "cannot %s %s: %s", verb, name, strings.Join(missing, "; ")).WithHint("%s", hint)
}

// minFree is the disk space a start wants: two empty file systems, an
// initramfs and room for logs.
const minFree = 128 << 20

// newRecord is the record of a filled request.
func (m *Manager) newRecord(p createParams, image store.Image, kernel store.Kernel) store.VM {
	r := p.Request
	rec := store.VM{
		ID: p.ID, Name: r.Name, Status: api.StatusCreating,
		ImageID: image.ID, ImageName: image.Name, ImageDigest: image.Digest,
		KernelID: kernel.ID, KernelName: kernel.Name, KernelVer: kernel.Version,
		Labels: r.Labels, VCPUs: r.VCPUs, MemoryBytes: r.MemoryBytes, DiskBytes: r.DiskBytes, SystemOverlayBytes: r.SystemOverlayBytes,
		Network: r.Network, Driver: r.Driver, Accelerator: r.Accelerator, InitAsked: r.Init,
		Env: r.Env, Workdir: r.Workdir, User: r.User, Entrypoint: r.Entrypoint, ImageEntrypoint: r.ImageEntrypoint,
		End: p.End, AutoRemove: r.AutoRemove || p.End == api.EndRemove,
		RequestID: r.RequestID, RequestHash: p.Hash, CreatedAt: m.now(),
	}
	rec.Init, rec.InitReason = chooseInit(r.Init, image.Config)
	rec.RootDisk, rec.RootDiskReason = chooseRoot(r.RootDisk)
	return rec
}

func bytesText(n int64) string {
	if n < 0 {
		return "-" + units.BytesSize(float64(-n))
	}
	return units.BytesSize(float64(n))
}

func clip(s string, n int) string {
	if len(s) > n {
		return s[:n] + "…"
	}
	return s
}

// address is the address of a CIDR, or what it was given.
func address(cidr string) string {
	if p, err := netip.ParsePrefix(cidr); err == nil {
		return p.Addr().String()
	}
	return cidr
}

// size of a file in bytes; 0 when there is none.
func size(path string) int64 {
	fi, err := os.Lstat(path)
	if err != nil {
		return 0
	}
	return fi.Size()
}

func diskKind(err error) api.Kind {
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return api.KindNoSpace
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return api.KindDenied
	}
	return api.KindInternal
}
