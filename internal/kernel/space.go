package kernel

import (
	"errors"
	"syscall"

	units "github.com/docker/go-units"

	"github.com/bangervm/banger/api"
)

// noSpace gives an error about a full disk its kind; others stay.
func noSpace(err error, dir string) error {
	if isFull(err) {
		return api.Errorf(api.KindNoSpace, "cannot write kernel to %s: %w", dir, err).WithHint("banger vm prune --dry-run")
	}
	return err
}

// isFull says whether an error is about a full disk.
func isFull(err error) bool { return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) }

func bytesSize(n int64) string { return units.BytesSize(float64(n)) }
