package keeper

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/vmm"
	"github.com/bangervm/banger/internal/vmm/firecracker"
	"github.com/bangervm/banger/internal/vmm/qemu"
)

// Command is the hidden command of the banger binary that is a keeper. Its
// arguments are the state and the run folder of the VM.
const Command = "keeper"

// readyFD is the descriptor on which a keeper tells Launch that its VMM runs,
// or why it does not, as one readyMessage; readyEnv says that it is there.
const (
	readyFD  = 3
	readyEnv = "BANGER_KEEPER_READY"
)

type readyMessage struct {
	Error *api.Error `json:"error,omitempty"`
}

// Main is the keeper process. It returns when the VM has ended; an error means
// that it never began.
func Main(args []string) error {
	if len(args) != 2 {
		return api.Errorf(api.KindInvalid, "cannot keep a VM: %d arguments given, not a state and a run folder", len(args))
	}
	// A keeper idles beside a VM: little memory matters more than speed. The
	// limit is soft, traffic may exceed it.
	debug.SetGCPercent(50)
	debug.SetMemoryLimit(48 << 20)
	ready := io.Discard
	if os.Getenv(readyEnv) != "" {
		os.Unsetenv(readyEnv)
		unix.CloseOnExec(readyFD)
		f := os.NewFile(readyFD, "ready")
		defer f.Close()
		ready = f
	}
	closeInherited()
	unix.Umask(0o077)
	dir := layout.VMDir{State: args[0], Run: args[1]}

	tell := func(err error) {
		json.NewEncoder(ready).Encode(readyMessage{api.AsError(err)})
		if c, ok := ready.(io.Closer); ok {
			c.Close()
		}
	}
	cfg, err := readConfig(dir.KeeperConfig())
	if err != nil {
		tell(err)
		return err
	}
	level := slog.LevelInfo
	if cfg.Verbose {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: level}))
	driver, err := newDriver(cfg, log)
	if err != nil {
		tell(err)
		return err
	}
	// A terminal that hangs up is no concern of ours; to be asked to end is.
	signal.Ignore(syscall.SIGHUP, syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	return Run(ctx, dir, cfg, driver, log, tell)
}

func newDriver(cfg Config, log *slog.Logger) (vmm.Driver, error) {
	switch cfg.Driver {
	case "qemu":
		return qemu.New(qemu.Options{Binary: cfg.QEMUBinary}, log), nil
	case "firecracker":
		return firecracker.New(firecracker.Options{Binary: cfg.FirecrackerBinary, Self: "/proc/self/exe"}, log), nil
	}
	return nil, api.Errorf(api.KindUnsupported, "cannot keep a VM: this keeper knows no driver %q", cfg.Driver)
}

// closeInherited closes what somebody forgot to close before starting us: a pipe
// held open here would make its reader wait for the VM's end.
func closeInherited() {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return
	}
	for _, e := range entries {
		fd, err := strconv.Atoi(e.Name())
		if err != nil || fd <= readyFD {
			continue
		}
		to, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || strings.HasPrefix(to, "anon_inode:") { // the Go runtime's own
			continue
		}
		unix.Close(fd)
	}
}
