package fake_test

import (
	"log/slog"
	"testing"

	"github.com/bangervm/banger/internal/vmm"
	"github.com/bangervm/banger/internal/vmm/fake"
	"github.com/bangervm/banger/internal/vmm/vmmtest"
)

func TestConformance(t *testing.T) {
	t.Parallel()
	vmmtest.Run(t,
		func(*testing.T) vmm.Driver { return fake.New(fake.Options{}, slog.New(slog.DiscardHandler)) },
		func(t *testing.T) vmm.Spec {
			return vmm.Spec{ID: "t", VCPUs: 1, MemoryBytes: 1 << 20, RunDir: t.TempDir()}
		})
}
