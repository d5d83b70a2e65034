package qemu

import (
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/vmm"
	"github.com/bangervm/banger/internal/vmm/qemu/testkernel"
)

// Each disk has the limits, with a second's worth at once, before the guest runs.
func TestDiskLimits(t *testing.T) {
	t.Parallel()
	type limits struct {
		Bytes           int64 `json:"bps"`
		BytesBurst      int64 `json:"bps_max"`
		Operations      int64 `json:"iops"`
		OperationsBurst int64 `json:"iops_max"`
	}
	for name, c := range map[string]struct {
		limits vmm.Limits
		want   limits
	}{
		"none":       {vmm.Limits{}, limits{}},
		"bytes":      {vmm.Limits{DiskBytesPerSecond: 5 << 20}, limits{Bytes: 5 << 20, BytesBurst: 5 << 20}},
		"operations": {vmm.Limits{DiskOperationsPerSecond: 100}, limits{Operations: 100, OperationsBurst: 100}},
		"the most that is configured": {
			vmm.Limits{DiskBytesPerSecond: 1 << 40, DiskOperationsPerSecond: 1e9}, limits{1 << 40, 1 << 40, 1e9, 1e9},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newTestDriver(t)
			spec := testSpec(t, new(testkernel.Program).Halt())
			spec.Limits = c.limits
			want := map[string]limits{}
			for _, serial := range []string{"root", "work"} {
				path := filepath.Join(spec.RunDir, serial)
				if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
					t.Fatal(err)
				}
				spec.Disks = append(spec.Disks, vmm.Disk{Path: path, Serial: serial, ReadOnly: serial == "root"})
				want[path] = c.want
			}
			m := start(t, d, spec, io.Discard)
			var blocks []struct {
				Inserted struct {
					File string
					limits
				}
			}
			if err := m.qmp.Execute(t.Context(), "query-block", nil, &blocks); err != nil {
				t.Fatal(err)
			}
			got := map[string]limits{}
			for _, b := range blocks {
				got[b.Inserted.File] = b.Inserted.limits
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestNegativeLimitsAreRefused(t *testing.T) {
	t.Parallel()
	spec := testSpec(t, new(testkernel.Program).Halt())
	spec.Limits.DiskBytesPerSecond = -1
	if err := validate(spec); api.KindOf(err) != api.KindInvalid {
		t.Errorf("got %v", err)
	}
}
