package keeper

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/network"
	"github.com/bangervm/banger/internal/vmm"
)

const (
	defaultConsoleBytes = 1 << 20
	startTimeout        = 2 * time.Minute // with a template of no use and the boot after it
	// busyPatience is how long a VMM of before, killed with its keeper, may
	// take to let go of the disks.
	busyPatience = 5 * time.Second
)

// keeper is the state of Run.
type keeper struct {
	dir    layout.VMDir
	cfg    Config
	driver vmm.Driver
	log    *slog.Logger
	board  *board

	cancel  context.CancelFunc // kills the VM
	resumed chan struct{}      // holds one: the guest was let go on
	leaving chan struct{}      // closed when the API goes away
	machine vmm.Machine        // set before the phase is running
	net     *network.Network
}

// Run keeps one VM from its start to its end. ready is called once, with nil
// when the VMM runs or with why it does not. Ending ctx kills the VM. Run
// returns the error of a VM that did not start; how one that did has ended is in
// the exit file, which is there before the keeper's socket is gone.
func Run(ctx context.Context, dir layout.VMDir, cfg Config, driver vmm.Driver, log *slog.Logger, ready func(error)) error {
	k := &keeper{
		dir: dir, cfg: cfg, driver: driver, log: log, resumed: make(chan struct{}, 1), leaving: make(chan struct{}),
		board: newBoard(State{PID: os.Getpid(), BootID: cfg.BootID, Phase: PhaseStarting, StartedAt: time.Now().UTC()}),
	}
	lock, err := lockDir(dir.State)
	if err != nil {
		ready(err)
		return err
	}
	defer lock.Close()
	if err := os.Remove(dir.ExitFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
		err = api.Errorf(api.KindInternal, "cannot remove the last exit file: %w", err)
		ready(err)
		return err
	}
	ctx, k.cancel = context.WithCancel(ctx)
	defer k.cancel()
	exit, err := k.keep(ctx, ready)
	log.Info("the VM ended", "reason", exit.Reason, "detail", exit.Detail)
	return err
}

// lockPatience is how long the keeper of before may take to end, once its VMM
// has.
const lockPatience = 3 * time.Second

// lockDir makes sure that the VM has no other keeper.
func lockDir(path string) (*os.File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, api.Errorf(api.KindInternal, "cannot open the folder of the VM: %w", err)
	}
	give := time.Now().Add(lockPatience)
	for {
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(give) {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	if err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, api.Errorf(api.KindBusy, "cannot keep the VM in %s: another keeper does", path)
		}
		return nil, api.Errorf(api.KindInternal, "cannot lock the folder of the VM: %w", err)
	}
	return f, nil
}

// keep opens the doors, starts the VMM and waits for its end. On return the
// doors are closed and their names gone.
func (k *keeper) keep(ctx context.Context, ready func(error)) (exit vmm.Exit, err error) {
	told := false
	tell := func(err error) {
		if !told {
			told = true
			ready(err)
		}
	}
	var undo cleanups
	defer func() {
		// Who watches sees the last state, and the exit file is there, before
		// the socket closes.
		if err != nil {
			exit = vmm.Exit{Reason: vmm.ReasonCrashed, Detail: err.Error(), At: time.Now().UTC()}
			if ctx.Err() != nil {
				exit.Reason = vmm.ReasonKilled
			}
		}
		if e := writeJSON(k.dir.ExitFile(), exit); e != nil {
			k.log.Error("cannot write the exit file", "error", e)
		}
		k.board.update(func(s *State) {
			s.Phase, s.Exit, s.AgentReady = PhaseExited, &exit, false
		})
		undo.run()
		if err != nil {
			tell(err)
		}
	}()

	if err := k.serveAPI(&undo); err != nil {
		return exit, err
	}
	limit := k.cfg.ConsoleBytes
	if limit <= 0 {
		limit = defaultConsoleBytes
	}
	console, err := openLog(k.dir.ConsoleLog(), limit)
	if err != nil {
		return exit, api.Errorf(api.KindInternal, "cannot open the console log: %w", err)
	}
	undo.push(func() { console.Close() })

	spec := k.cfg.Spec
	spec.RunDir, spec.LogFile, spec.MetricsFile = k.dir.Run, k.dir.VMMLog(), k.dir.VMMMetrics()
	if spec.Network, err = k.startNetwork(ctx, &undo); err != nil {
		return exit, err
	}
	if k.machine, err = k.start(ctx, spec, console); err != nil {
		return exit, err
	}
	if t, ok := k.machine.(vmm.Tapper); ok && t.Tap() != nil {
		if err := k.net.Attach(t.Tap()); err != nil {
			k.machine.Kill()
			<-k.machine.Done()
			return exit, err
		}
	}
	for path, dial := range map[string]func(context.Context) (net.Conn, error){
		k.dir.GuestSocket(): k.machine.DialGuest,
		k.dir.BulkSocket():  k.dialBulk,
	} {
		d, err := openDoor(path, dial, k.log)
		if err != nil {
			k.machine.Kill()
			<-k.machine.Done()
			return exit, err
		}
		undo.push(d.close)
	}
	k.board.update(func(s *State) {
		s.Phase, s.VMMPID = PhaseRunning, k.machine.PID()
	})
	tell(nil)
	return k.wait(ctx), nil
}

// startNetwork starts the user network, where the VM has one, and says how the
// VMM gets at it: by a socket, or by a tap that it brings.
func (k *keeper) startNetwork(ctx context.Context, undo *cleanups) (*vmm.NIC, error) {
	u := k.cfg.Network
	if u == nil {
		return nil, nil
	}
	nic := &vmm.NIC{MAC: u.GuestMAC, MTU: u.MTU}
	var l net.Listener // stays nil, not a nil pointer, for a tap
	if !k.driver.Capabilities().Tap {
		unix, err := listenUnix(k.dir.NetSocket())
		if err != nil {
			return nil, err
		}
		l, nic.Socket = unix, k.dir.NetSocket()
	}
	var err error
	if k.net, err = u.Start(ctx, l, k.log); err != nil {
		if l != nil {
			l.Close()
		}
		return nil, err
	}
	undo.push(func() { k.net.Close() })
	return nic, nil
}

// start launches the VMM, with patience for one of before that is still dying. Where
// a template is of no use the machine boots.
func (k *keeper) start(ctx context.Context, spec vmm.Spec, console *logFile) (vmm.Machine, error) {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	give := time.Now().Add(busyPatience)
	for {
		m, err := k.driver.Start(ctx, spec, console)
		if err == nil {
			return m, nil
		}
		if spec.Template != nil && api.KindOf(err) != api.KindBusy && ctx.Err() == nil {
			k.log.Warn("cannot go on from a template: booting", "error", err)
			k.board.update(func(s *State) { s.NoTemplate = err.Error() })
			spec.Template, spec.Wake = nil, nil
			continue
		}
		if api.KindOf(err) != api.KindBusy || time.Now().After(give) {
			return nil, err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return nil, err
		}
	}
}

// wait looks after the running machine until its end.
func (k *keeper) wait(ctx context.Context) vmm.Exit {
	care, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() { k.lookAfterGuest(care) })
	wg.Go(func() { giveMemoryBack(care) })
	if w, ok := k.machine.(vmm.Waiter); ok {
		wg.Go(func() { k.tellWaits(care, w.Waits()) })
	}
	select {
	case <-k.machine.Done():
	case <-ctx.Done():
		if err := k.machine.Kill(); err != nil && api.KindOf(err) != api.KindBadState {
			k.log.Error("cannot kill the VMM", "error", err)
		}
		<-k.machine.Done()
	}
	stop()
	wg.Wait()
	return k.machine.Exit()
}

// tellWaits says in the state what the guest waits for.
func (k *keeper) tellWaits(ctx context.Context, waits <-chan string) {
	for {
		select {
		case why := <-waits:
			k.board.update(func(s *State) { s.Waits = why })
		case <-ctx.Done():
			return
		}
	}
}

// dialBulk opens a stream that begins with the token, by the user network where
// there is one, else by the guest link.
func (k *keeper) dialBulk(ctx context.Context) (net.Conn, error) {
	if k.net != nil && k.cfg.Token != "" {
		conn, err := k.dialBulkPort(ctx)
		if err == nil {
			return conn, nil
		}
		k.log.Debug("the bulk way does not answer", "error", err)
	}
	return k.machine.DialGuest(ctx)
}

// serveAPI opens the keeper's own socket.
func (k *keeper) serveAPI(undo *cleanups) error {
	l, err := listenUnix(k.dir.KeeperSocket())
	if err != nil {
		return err
	}
	s := &http.Server{
		Handler:           k.routes(),
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(k.log.Handler(), slog.LevelDebug),
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.Serve(l)
	}()
	undo.push(func() {
		close(k.leaving) // watchers have seen the last state
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if s.Shutdown(ctx) != nil {
			s.Close()
		}
		<-served
	})
	return nil
}

// cleanups is what is to be undone, in reverse.
type cleanups []func()

func (c *cleanups) push(f func()) { *c = append(*c, f) }

func (c *cleanups) run() {
	for i := len(*c) - 1; i >= 0; i-- {
		(*c)[i]()
	}
	*c = nil
}

// running gives the machine for a verb.
func (k *keeper) running(verb string) (vmm.Machine, error) {
	s, _ := k.board.read()
	if s.Phase != PhaseRunning {
		return nil, api.Errorf(api.KindBadState, "cannot %s: the machine is %s", verb, s.Phase)
	}
	return k.machine, nil
}
