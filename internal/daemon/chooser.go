package daemon

import (
	"context"
	"sync"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/vm"
	"github.com/bangervm/banger/internal/vmm"
)

// probeFunc finds out what really runs guests on this host, and why.
type probeFunc func(ctx context.Context, kernel layout.KernelDir) (vmm.Accelerator, string, error)

// chooser decides what a VM runs on. Callers at the same time share one probe,
// which goes on though the one that began it gives up.
type chooser struct {
	driver vmm.Driver
	probe  probeFunc

	life context.Context // of the probes
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu     sync.Mutex
	closed bool
	flight *verdict // the probe under way, if any
}

// verdict is what a probe found, once done is closed.
type verdict struct {
	done        chan struct{}
	accelerator vmm.Accelerator
	reason      string
	err         error
}

func newChooser(driver vmm.Driver, probe probeFunc) *chooser {
	c := &chooser{driver: driver, probe: probe}
	c.life, c.stop = context.WithCancel(context.Background())
	return c
}

// close ends a probe under way and waits for it.
func (c *chooser) close(context.Context) error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.stop()
	c.wg.Wait()
	return nil
}

// Choose gives the driver and the accelerator for what a VM asks for.
func (c *chooser) Choose(ctx context.Context, driver, accelerator string, kernel layout.KernelDir) (vm.Choice, error) {
	choice := vm.Choice{Driver: c.driver.Name()}
	if driver != "" && driver != "auto" && driver != c.driver.Name() {
		return choice, api.Errorf(api.KindUnsupported, "cannot use driver %q: this version has %s only", driver, c.driver.Name()).
			WithHint("banger doctor")
	}
	if _, err := c.driver.Check(ctx); err != nil {
		return choice, err
	}
	switch accelerator {
	case string(vmm.TCG):
		choice.Accelerator, choice.Reason = vmm.TCG, "asked for"
		return choice, nil
	case "", "auto", string(vmm.KVM):
	default:
		return choice, api.Errorf(api.KindInvalid, "cannot use accelerator %q: want auto, kvm or tcg", clip(accelerator))
	}
	found, err := c.shared(ctx, kernel)
	if err != nil {
		return choice, err
	}
	if accelerator == string(vmm.KVM) && found.accelerator != vmm.KVM {
		return choice, api.Errorf(api.KindUnsupported, "cannot use kvm: %s", found.reason).WithHint("banger doctor")
	}
	choice.Accelerator, choice.Reason = found.accelerator, found.reason
	return choice, nil
}

// shared waits for the probe under way, or begins one.
func (c *chooser) shared(ctx context.Context, kernel layout.KernelDir) (*verdict, error) {
	c.mu.Lock()
	v := c.flight
	if v == nil {
		if c.closed {
			c.mu.Unlock()
			return nil, errLeaving()
		}
		v = &verdict{done: make(chan struct{})}
		c.flight = v
		c.wg.Add(1)
		go c.fly(v, kernel)
	}
	c.mu.Unlock()
	select {
	case <-v.done:
		return v, v.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (c *chooser) fly(v *verdict, kernel layout.KernelDir) {
	defer c.wg.Done()
	v.accelerator, v.reason, v.err = c.probe(c.life, kernel)
	c.mu.Lock()
	c.flight = nil
	c.mu.Unlock()
	close(v.done)
}
