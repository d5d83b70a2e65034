package config

import (
	"fmt"
	"strconv"
	"strings"
)

// With less than these a machine hardly boots, or one packet does not fit in; with
// more than maxRate QEMU does not count.
const (
	minDiskRate       = 1 << 20
	minDiskOperations = 100
	minNetworkRate    = 64 << 10
	maxRate           = 1 << 40
	maxOperations     = 1_000_000_000
)

const noLimit = "leave the key out for no limit"

// rate reads a number of bytes a second, e.g. 50M. A number without a unit is
// refused, as of disks.
func rate(field func(*Config) *int64, least int64) func(*Config, string) error {
	return func(c *Config, s string) error {
		if isZero(s) {
			return fmt.Errorf("%q bytes a second would stop it; %s", clip(s), noLimit)
		}
		n, unit, err := parseSize("rate", s)
		if err != nil {
			return err
		}
		if unit == "" {
			return fmt.Errorf("%q has no unit; write it like 50M, or %sB for bytes", clip(s), strings.TrimSpace(s))
		}
		bytes, err := scale("rate", s, n, unit)
		switch {
		case err != nil:
			return err
		case bytes < least:
			return fmt.Errorf("%q a second is less than the minimum of %s; %s", clip(s), FormatSize(least), noLimit)
		case bytes > maxRate:
			return fmt.Errorf("%q a second is more than %s; %s", clip(s), FormatSize(maxRate), noLimit)
		}
		*field(c) = bytes
		return nil
	}
}

func operations(c *Config, s string) error {
	if isZero(s) {
		return fmt.Errorf("%q operations a second would stop it; %s", clip(s), noLimit)
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < minDiskOperations || n > maxOperations {
		return fmt.Errorf("%q is not a number from %d to %d; %s", clip(s), minDiskOperations, int64(maxOperations), noLimit)
	}
	c.Limits.DiskOperations = n
	return nil
}

// isZero says whether the text is a zero, with or without a unit.
func isZero(s string) bool {
	number := strings.TrimRight(strings.ToLower(strings.TrimSpace(s)), "bkmgtpi ")
	return number != "" && strings.Trim(number, "0.") == "" && strings.Contains(number, "0")
}

// orNothing shows no limit as no value.
func orNothing(n int64) any {
	if n == 0 {
		return nil
	}
	return n
}
