package daemon

import (
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/vm"
	"github.com/bangervm/banger/internal/vmm"
)

// probeFunc finds out what really runs a driver's guests on this host, and why.
type probeFunc func(ctx context.Context, kernel layout.KernelDir) (vmm.Accelerator, string, error)

// candidate is a driver with its probe.
type candidate struct {
	driver vmm.Driver
	probe  probeFunc
}

// chooser decides what a VM runs on. Callers at the same time share one probe of
// each driver, which goes on though the one that began it gives up.
type chooser struct {
	candidates []candidate // the preferred one first; the last runs anywhere
	// carries says, with an error, that a kernel lacks the driver of a transport.
	carries func(layout.KernelDir, guestapi.Transport) error

	life context.Context // of the probes
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu      sync.Mutex
	closed  bool
	flights map[string]*verdict // the probes under way, by driver
}

// verdict is what a probe found, once done is closed.
type verdict struct {
	done        chan struct{}
	accelerator vmm.Accelerator
	reason      string
	err         error
}

func newChooser(carries func(layout.KernelDir, guestapi.Transport) error, candidates ...candidate) *chooser {
	c := &chooser{candidates: candidates, carries: carries, flights: map[string]*verdict{}}
	c.life, c.stop = context.WithCancel(context.Background())
	return c
}

// close ends the probes under way and waits for them.
func (c *chooser) close(context.Context) error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.stop()
	c.wg.Wait()
	return nil
}

// Choose gives the driver and the accelerator for what a VM asks for: the first
// driver that can, or the one it names.
func (c *chooser) Choose(ctx context.Context, driver, accelerator string, kernel layout.KernelDir) (vm.Choice, error) {
	if accelerator == "" {
		accelerator = "auto"
	}
	if !slices.Contains([]string{"auto", string(vmm.KVM), string(vmm.TCG)}, accelerator) {
		return vm.Choice{}, api.Errorf(api.KindInvalid, "cannot use accelerator %q: want auto, kvm or tcg", clip(accelerator))
	}
	if driver != "" && driver != "auto" {
		for _, one := range c.candidates {
			if one.driver.Name() == driver {
				return c.consider(ctx, one, accelerator, kernel)
			}
		}
		return vm.Choice{}, api.Errorf(api.KindUnsupported, "cannot use driver %q: this version has %s", clip(driver), strings.Join(c.names(), " and ")).
			WithHint("banger doctor")
	}
	var passedOver []string
	for i, one := range c.candidates {
		choice, err := c.consider(ctx, one, accelerator, kernel)
		if err == nil {
			choice.Reason = reasons(choice.Reason, passedOver)
			return choice, nil
		}
		if ctx.Err() != nil || c.life.Err() != nil || i == len(c.candidates)-1 {
			return choice, err
		}
		if accelerator == string(vmm.TCG) {
			continue // nobody expects it of a driver that has none
		}
		passedOver = append(passedOver, "not "+one.driver.Name()+": "+why(err))
	}
	return vm.Choice{}, api.Errorf(api.KindInternal, "cannot choose a driver: there is none")
}

func (c *chooser) names() []string {
	var names []string
	for _, one := range c.candidates {
		names = append(names, one.driver.Name())
	}
	return names
}

// reasons joins why a driver was taken with why others were not, unless that is
// the same.
func reasons(taken string, passedOver []string) string {
	all := []string{taken}
	for _, p := range passedOver {
		if !strings.HasSuffix(p, ": "+taken) {
			all = append(all, p)
		}
	}
	return strings.Join(all, "; ")
}

// why is an error as the second half of a sentence.
func why(err error) string {
	text := api.AsError(err).Message
	if _, cause, found := strings.Cut(text, ": "); found && strings.HasPrefix(text, "cannot ") {
		return cause
	}
	return text
}

// consider says whether the driver can run what is asked for, and on what.
func (c *chooser) consider(ctx context.Context, one candidate, accelerator string, kernel layout.KernelDir) (vm.Choice, error) {
	name, can := one.driver.Name(), one.driver.Capabilities()
	choice := vm.Choice{Driver: name, Serials: can.Serials}
	if accelerator != "auto" && !slices.Contains(can.Accelerators, vmm.Accelerator(accelerator)) {
		return choice, api.Errorf(api.KindUnsupported, "cannot use %s: it has no accelerator %s", name, accelerator).WithHint("banger doctor")
	}
	if _, err := one.driver.Check(ctx); err != nil {
		return choice, err
	}
	var err error
	if choice.Transport, err = c.transport(can, kernel); err != nil {
		return choice, err
	}
	if accelerator == string(vmm.TCG) {
		choice.Accelerator, choice.Reason = vmm.TCG, "asked for"
		return choice, nil
	}
	found, err := c.shared(ctx, one, kernel)
	if err != nil {
		return choice, err
	}
	switch {
	case !slices.Contains(can.Accelerators, found.accelerator):
		return choice, api.Errorf(api.KindUnsupported, "cannot use %s: %s", name, found.reason).WithHint("banger doctor")
	case accelerator == string(vmm.KVM) && found.accelerator != vmm.KVM:
		return choice, api.Errorf(api.KindUnsupported, "cannot use kvm: %s", found.reason).WithHint("banger doctor")
	}
	choice.Accelerator, choice.Reason = found.accelerator, found.reason
	return choice, nil
}

// transport is the first of the driver's that the kernel has the driver of.
func (c *chooser) transport(can vmm.Capabilities, kernel layout.KernelDir) (guestapi.Transport, error) {
	var first error
	for _, t := range can.Transports {
		err := c.carries(kernel, t)
		if err == nil {
			return t, nil
		}
		if first == nil {
			first = err
		}
	}
	return "", first
}

// shared waits for the driver's probe under way, or begins one.
func (c *chooser) shared(ctx context.Context, one candidate, kernel layout.KernelDir) (*verdict, error) {
	name := one.driver.Name()
	c.mu.Lock()
	v := c.flights[name]
	if v == nil {
		if c.closed {
			c.mu.Unlock()
			return nil, errLeaving()
		}
		v = &verdict{done: make(chan struct{})}
		c.flights[name] = v
		c.wg.Add(1)
		go c.fly(v, one, kernel)
	}
	c.mu.Unlock()
	select {
	case <-v.done:
		return v, v.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func (c *chooser) fly(v *verdict, one candidate, kernel layout.KernelDir) {
	defer c.wg.Done()
	v.accelerator, v.reason, v.err = one.probe(c.life, kernel)
	c.mu.Lock()
	delete(c.flights, one.driver.Name())
	c.mu.Unlock()
	close(v.done)
}
