package vm

import (
	"context"
	"sort"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/store"
)

// List gives all VMs that pass the filters, the oldest first. A VM that cannot
// be read is listed as broken, and breaks nothing.
func (m *Manager) List(ctx context.Context, filters []string) ([]api.VM, error) {
	f, err := parseFilters(filters)
	if err != nil {
		return nil, err
	}
	all, err := m.d.Store.VMs(ctx)
	if err != nil {
		return nil, err
	}
	sort.SliceStable(all, func(i, j int) bool { return all[i].CreatedAt.Before(all[j].CreatedAt) })
	out := make([]api.VM, 0, len(all))
	for _, rec := range all {
		if v := m.view(rec); f.match(v) {
			out = append(out, v)
		}
	}
	return out, nil
}

// Show gives one VM.
func (m *Manager) Show(ctx context.Context, ref string) (api.VM, error) {
	rec, err := m.find(ctx, ref)
	if err != nil {
		return api.VM{}, err
	}
	return m.view(rec), nil
}

// status is the record corrected by what is observed.
func (m *Manager) status(rec store.VM) api.Status {
	s, _ := m.observe(rec)
	return s
}

func (m *Manager) observe(rec store.VM) (api.Status, *running) {
	m.mu.Lock()
	mc := m.machines[rec.ID]
	m.mu.Unlock()
	if mc == nil {
		return settled(rec.Status, false), nil
	}
	mc.mu.Lock()
	defer mc.mu.Unlock()
	var r *running
	if mc.run != nil {
		c := *mc.run
		r = &c
	}
	if mc.phase != "" {
		return mc.phase, r
	}
	return settled(rec.Status, mc.run != nil), r
}

// settled is the status of a machine that no verb is busy with.
func settled(recorded api.Status, runs bool) api.Status {
	switch recorded {
	case api.StatusBroken, api.StatusDeleting, api.StatusCreating:
		return recorded
	case api.StatusPaused:
		if runs {
			return recorded
		}
	}
	if runs {
		return api.StatusRunning
	}
	return api.StatusStopped
}

// view is the VM as the API shows it.
func (m *Manager) view(rec store.VM) api.VM {
	status, run := m.observe(rec)
	v := api.VM{
		ID: rec.ID, Name: rec.Name, Status: status, Labels: rec.Labels,
		Image:  api.ImageRef{Name: rec.ImageName, Digest: rec.ImageDigest},
		Kernel: api.KernelRef{Name: rec.KernelName, Version: rec.KernelVer},
		Driver: first(rec.UsedDriver, rec.Driver), Accelerator: first(rec.UsedAccelerator, rec.Accelerator),
		AcceleratorReason: rec.AcceleratorReason, Init: rec.Init, InitReason: rec.InitReason, RootDisk: rec.RootDisk, RootDiskReason: rec.RootDiskReason,
		VCPUs: rec.VCPUs, MemoryBytes: rec.MemoryBytes, DiskBytes: rec.DiskBytes, SystemOverlayBytes: rec.SystemOverlayBytes,
		Limits:    rec.Limits,
		Network:   api.VMNetwork{Mode: rec.Network, Ports: []api.VMPort{}},
		CreatedAt: rec.CreatedAt, StartedAt: rec.StartedAt, StoppedAt: rec.StoppedAt, LastUsedAt: rec.LastUsedAt,
		ExitCode: rec.ExitCode, Error: rec.Error, AutoRemove: rec.AutoRemove,
	}
	if v.Labels == nil {
		v.Labels = map[string]string{}
	}
	if rec.Network == networkUser {
		v.Network.Address = address(m.d.Network.Address)
	}
	if run == nil {
		if status == api.StatusStopped {
			if lost := m.lostDisk(rec, m.d.Layout.VM(rec.ID)); lost != nil {
				v.Error = lost
			}
		}
		return v
	}
	v.Ready = run.ready && status == api.StatusRunning
	v.StoppedAt = nil
	v.Warnings = run.health.Warnings
	if in := run.health.Init; in != nil {
		v.InitState, v.FailedUnits = in.State, in.Failed
	}
	if run.handle.ImageID != "" && run.handle.ImageID != rec.ImageID {
		v.Pending = append(v.Pending, "image")
	}
	if run.waits != "" {
		v.Error = api.Errorf(api.KindNoSpace, "vm %q waits: %s; it goes on when there is room", rec.Name, run.waits).
			WithHint("df -h %s", m.d.Layout.State)
	}
	if run.handle.VCPUs != 0 && run.handle.VCPUs != rec.VCPUs {
		v.Pending = append(v.Pending, "vcpus")
	}
	if run.handle.MemoryBytes != 0 && run.handle.MemoryBytes != rec.MemoryBytes {
		v.Pending = append(v.Pending, "memory_bytes")
	}
	if size(m.d.Layout.VM(rec.ID).WorkDisk()) < rec.DiskBytes {
		v.Pending = append(v.Pending, "disk_bytes")
	}
	if root := m.rootOf(rec.RootDisk); root.small(root.file(m.d.Layout.VM(rec.ID)), rec.SystemOverlayBytes) {
		v.Pending = append(v.Pending, "system_overlay_bytes")
	}
	return v
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}
