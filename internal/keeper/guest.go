package keeper

import (
	"context"
	"time"

	"github.com/bangervm/banger/internal/guestlink"
)

const (
	clockEvery   = 30 * time.Second
	clockTimeout = 10 * time.Second
	// firstLook leaves the guest alone while it boots and its first command
	// begins: a question more is a question it has to answer first.
	firstLook = 2 * time.Second
)

// lookAfterGuest waits for the agent, then keeps the guest's clock right: the
// emulated clock knows seconds only, and one under software emulation drifts.
func (k *keeper) lookAfterGuest(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-time.After(firstLook):
	}
	c := guestlink.NewClient(k.machine.DialGuest, nil)
	defer c.Close()
	for {
		ask, cancel := context.WithTimeout(ctx, time.Minute)
		_, err := c.Health(ask)
		cancel()
		if err == nil {
			break
		}
		k.log.Debug("the agent does not answer", "error", err)
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
	k.board.update(func(s *State) { s.AgentReady = true })

	next := time.NewTimer(0)
	defer next.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.resumed:
		case <-next.C:
		}
		if s, _ := k.board.read(); !s.Paused {
			ask, cancel := context.WithTimeout(ctx, clockTimeout)
			if err := c.SyncTime(ask); err != nil && ctx.Err() == nil {
				k.log.Debug("cannot set the guest's clock", "error", err)
			}
			cancel()
		}
		next.Reset(clockEvery)
	}
}
