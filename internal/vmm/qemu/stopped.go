package qemu

import (
	"context"
	"errors"
	"time"

	"github.com/bangervm/banger/internal/vmm/qemu/qmp"
)

// retryFull is how often a machine that stopped over a full host disk is let go
// on, to see whether there is space again.
const retryFull = 2 * time.Second

// timerLost is what the kernel says when it measured the processor's timer
// while we did not run, on a busy host: it then goes on without a timer, and
// stands still a little later. There is no way to tell it the timer's rate; the
// cure is to boot again.
const timerLost = "APIC frequency too slow, disabling apic timer"

const (
	maxReboots = 10
	// rebootTime is how long after the start the kernel may say so. Later it is
	// the guest's users who print.
	rebootTime = time.Minute
)

// keepRunning looks after processors that stopped though nobody asked: over a
// full disk they are let go on from time to time (the write is tried again and
// nothing is lost); after an internal error of QEMU or KVM there is nothing
// left to wait for. It returns when QEMU is gone.
func (m *Machine) keepRunning() {
	reboots := 0
	waiting := false
	var calm <-chan time.Time // set while the guest goes on to see whether it can
	for {
		select {
		case <-m.process.Done():
			return
		case <-m.lost:
			if reboots++; reboots <= maxReboots && time.Since(m.started) < rebootTime {
				m.bootAgain()
			}
			continue
		case <-calm:
			waiting, calm = false, nil
			m.wait("")
			continue
		case <-m.events:
		}
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		var status struct {
			Status string `json:"status"`
		}
		err := m.qmp.Execute(ctx, "query-status", nil, &status)
		cancel()
		if err != nil {
			continue // QEMU is ending, or so stuck that the next event will show
		}
		switch status.Status {
		case "io-error":
			if calm = nil; !waiting {
				waiting = true
				m.log.Warn("the guest waits: no space left for its disks on the host", "vm", m.id)
				m.wait("no space is left on the host for what it writes to its disks")
			}
			m.pause(retryFull)
			m.letGo()
			calm = time.After(retryFull)
		case "internal-error":
			m.log.Error("QEMU stopped over an internal error", "vm", m.id)
			m.mu.Lock()
			if m.shutdown == "" {
				m.shutdown = "stopped over an internal error"
			}
			m.mu.Unlock()
			m.process.Kill()
		}
	}
}

// bootAgain resets the machine, which otherwise ends at a reset.
func (m *Machine) bootAgain() {
	m.log.Info("the guest's kernel lost its timer: booting again", "vm", m.id)
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for _, c := range []struct {
		command   string
		arguments any
	}{
		{"set-action", map[string]string{"reboot": "reset"}},
		{"system_reset", nil},
		{"set-action", map[string]string{"reboot": "shutdown"}}, // the request for the reset is in
	} {
		if err := m.qmp.Execute(ctx, c.command, c.arguments, nil); err != nil && !errors.Is(err, qmp.ErrClosed) {
			m.log.Warn("cannot boot the guest again", "vm", m.id, "error", err)
			return
		}
	}
}

func (m *Machine) letGo() {
	m.mu.Lock()
	wanted := m.paused
	m.mu.Unlock()
	if wanted {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := m.qmp.Execute(ctx, "cont", nil, nil); err != nil {
		m.log.Warn("cannot let the guest go on", "vm", m.id, "error", err)
	}
}

// pause waits, or until QEMU is gone.
func (m *Machine) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-m.process.Done():
	}
}
