package config

import (
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/bangervm/banger/api"
)

// ParseDuration reads a duration as Go writes it, e.g. 90s, 1h30m; a bare
// number is seconds. It must be above zero.
func ParseDuration(s string) (time.Duration, error) {
	bad := func(why string) (time.Duration, error) {
		return 0, api.Errorf(api.KindInvalid, "cannot use duration %q: %s; write it like 30s, 5m or 1h30m", clip(s), why)
	}
	text := strings.TrimSpace(s)
	var d time.Duration
	if seconds, ok := bareNumber(text); ok {
		if seconds > math.MaxInt64/float64(time.Second) {
			return bad("it is beyond 292 years")
		}
		d = time.Duration(seconds * float64(time.Second))
	} else {
		var err error
		if d, err = time.ParseDuration(text); err != nil {
			return bad("it is no duration")
		}
	}
	switch {
	case d < 0:
		return bad("it is negative")
	case d == 0:
		return bad("it is zero")
	}
	return d, nil
}

// bareNumber reads digits with at most one point; no exponent, no inf.
func bareNumber(s string) (float64, bool) {
	if s == "" || strings.Trim(s, "-0123456789.") != "" {
		return 0, false
	}
	f, err := strconv.ParseFloat(s, 64)
	return f, err == nil
}
