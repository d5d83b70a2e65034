package kernel

import (
	"errors"
	"syscall"

	"github.com/bangervm/banger/api"
)

// noSpace gives an error about a full disk its kind; others stay.
func noSpace(err error, dir string) error {
	if errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) {
		return api.Errorf(api.KindNoSpace, "cannot write kernel to %s: %w", dir, err).WithHint("banger vm prune --dry-run")
	}
	return err
}
