package qemu

import (
	"context"
	"time"
)

// retryFull is how often a machine that stopped over a full host disk is let go
// on, to see whether there is space again.
const retryFull = 2 * time.Second

// keepRunning looks after processors that stopped though nobody asked: over a
// full disk they are let go on from time to time (the write is tried again and
// nothing is lost); after an internal error of QEMU or KVM there is nothing
// left to wait for. It returns when QEMU is gone.
func (m *Machine) keepRunning() {
	for {
		select {
		case <-m.process.done:
			return
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
			m.log.Warn("the guest waits: no space left for its disks on the host", "vm", m.id)
			m.pause(retryFull)
			m.letGo()
		case "internal-error":
			m.log.Error("QEMU stopped over an internal error", "vm", m.id)
			m.mu.Lock()
			m.shutdown = "stopped over an internal error"
			m.mu.Unlock()
			m.process.kill()
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
	case <-m.process.done:
	}
}
