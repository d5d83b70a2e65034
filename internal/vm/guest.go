package vm

import (
	"context"

	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/guestlink"
)

// linkGuest is the agent over the guest link.
type linkGuest struct{ *guestlink.Client }

func newGuest(k Keeper) Guest {
	return linkGuest{guestlink.NewClient(k.DialGuest, k.DialBulk)}
}

func (g linkGuest) Exec(ctx context.Context, req guestapi.ExecRequest, booting bool) (ExecStream, error) {
	// A guest that is not up yet would only cost the bulk way's patience.
	s, err := g.Client.Exec(ctx, req, guestlink.ExecOptions{NoBulk: booting})
	if err != nil {
		return nil, err
	}
	return s, nil
}
