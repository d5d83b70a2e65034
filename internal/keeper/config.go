package keeper

import (
	"encoding/json"
	"os"
	"path/filepath"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/network"
	"github.com/bangervm/banger/internal/vmm"
)

// Config is all a keeper is told, in layout.VMDir.KeeperConfig.
type Config struct {
	// BootID tells one life of the VM from the next; Launch makes one up when
	// it is empty.
	BootID string `json:"boot_id"`
	// Spec of the machine. The keeper fills in RunDir, LogFile and Network.
	Spec vmm.Spec `json:"spec"`
	// Driver is the VMM's driver: firecracker or qemu.
	Driver     string `json:"driver"`
	QEMUBinary string `json:"qemu_binary,omitempty"`
	// FirecrackerBinary is found by the daemon, so that all look at the same.
	FirecrackerBinary string `json:"firecracker_binary,omitempty"`
	// Network is nil for a machine without.
	Network *network.User `json:"network,omitempty"`
	// Token admits to the guest's bulk port.
	Token string `json:"token,omitempty"`
	// ConsoleBytes bounds the console log; as much again is kept of what was
	// before. 0 means 1 MiB.
	ConsoleBytes int64 `json:"console_bytes,omitempty"`
	// Verbose logs for debugging.
	Verbose bool `json:"verbose,omitempty"`
}

// Phase is how far a keeper's VM is.
type Phase string

// The phases.
const (
	PhaseStarting Phase = "starting" // the VMM is being launched
	PhaseRunning  Phase = "running"
	PhaseExited   Phase = "exited" // the keeper is about to end
)

// State is what a keeper says of its VM.
type State struct {
	PID       int       `json:"pid"`               // the keeper's
	VMMPID    int       `json:"vmm_pid,omitempty"` // 0 before the VMM runs
	BootID    string    `json:"boot_id"`
	Phase     Phase     `json:"phase"`
	StartedAt time.Time `json:"started_at"`
	// AgentReady is set once the guest's agent has answered.
	AgentReady bool `json:"agent_ready"`
	// Paused says that the guest's processors stand still at our request.
	Paused bool `json:"paused,omitempty"`
	// Waits is why they stand still though nobody asked: what the guest waits
	// for on the host.
	Waits string `json:"waits,omitempty"`
	// NoTemplate is why a machine that was to go on from a template has booted.
	NoTemplate string    `json:"no_template,omitempty"`
	Exit       *vmm.Exit `json:"exit,omitempty"`
}

func readConfig(path string) (Config, error) {
	var c Config
	b, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err != nil {
		return c, api.Errorf(api.KindInternal, "cannot read keeper configuration %s: %w", path, err)
	}
	return c, nil
}

// writeJSON replaces the file, whole or not at all. What it is for does not
// outlive the host's boot, so nothing waits for the disk.
func writeJSON(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*") // mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if e := f.Close(); err == nil {
		err = e
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
	}
	return err
}
