package config

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

func TestSizes(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		text   string
		memory int64  // 0: refused
		disk   int64  // 0: refused
		says   string // in both refusals
	}{
		{"512M", 512 * mib, 512 * mib, ""},
		{"2G", 2 * gib, 2 * gib, ""},
		{"2GiB", 2 * gib, 2 * gib, ""},
		{"2GB", 2 * gib, 2 * gib, ""},
		{"2gib", 2 * gib, 2 * gib, ""},
		{"1.5G", 1536 * mib, 1536 * mib, ""},
		{"0.5g", 512 * mib, 512 * mib, ""},
		{"1.5 GiB", 1536 * mib, 1536 * mib, ""},
		{" 2G ", 2 * gib, 2 * gib, ""},
		{"262144K", 256 * mib, 256 * mib, ""},
		{"134217728B", 128 * mib, 128 * mib, ""},
		{"1T", 1 << 40, 1 << 40, ""},
		{"0.1T", 109951162777, 109951162777, ""},
		{"1P", 1 << 50, 1 << 50, ""},
		{"1024P", 1 << 60, 1 << 60, ""},
		{"127.9M", 0, 134112870, ""},
		// A bare number is MiB of memory, and no disk.
		{"512", 512 * mib, 0, ""},
		{"128", 128 * mib, 0, ""},
		{"1536.5", 1611137024, 0, ""},
		{"4", 0, 0, "4G?"},
		{"8", 0, 0, "8G?"},
		{"1.5", 0, 0, "1.5G?"},
		// Refused.
		{"", 0, 0, "empty"},
		{"  ", 0, 0, "empty"},
		{"0", 0, 0, "zero"},
		{"0G", 0, 0, "zero"},
		{"0.0M", 0, 0, "zero"},
		{"-1G", 0, 0, "negative"},
		{"-512", 0, 0, "negative"},
		{"0.1B", 0, 0, "less than a byte"},
		{"1025P", 0, 0, "beyond"},
		{"9999999999999P", 0, 0, "beyond"},
		{strings.Repeat("9", 33) + "G", 0, 0, "too long"},
		{"2X", 0, 0, "unknown unit"},
		{"2Gi", 0, 0, "unknown unit"},
		{"2GiBs", 0, 0, "unknown unit"},
		{"2BB", 0, 0, "unknown unit"},
		{"2BiB", 0, 0, "unknown unit"},
		{"2G2", 0, 0, "unknown unit"},
		{"1e3M", 0, 0, "unknown unit"},
		{"0x10M", 0, 0, ""},
		{"1_000M", 0, 0, "unknown unit"},
		{"1,5G", 0, 0, "unknown unit"},
		{"1.2.3G", 0, 0, "number"},
		{"1.G", 0, 0, "number"},
		{".5G", 0, 0, "number"},
		{"G", 0, 0, "number"},
		{"+1G", 0, 0, "number"},
		{"inf", 0, 0, "number"},
		{"NaN", 0, 0, "number"},
		{"２G", 0, 0, "number"},
		{"2G\n", 2 * gib, 2 * gib, ""},
		{"2\x00G", 0, 0, "unknown unit"},
	} {
		for what, parse := range map[string]func(string) (int64, error){"memory": ParseMemory, "disk": ParseDisk} {
			want := tc.memory
			if what == "disk" {
				want = tc.disk
			}
			got, err := parse(tc.text)
			if got != want || (err == nil) != (want != 0) {
				t.Errorf("%s %q: %d %v, want %d", what, tc.text, got, err, want)
			}
			if err == nil {
				continue
			}
			if e := api.AsError(err); e.Kind != api.KindInvalid || !strings.HasPrefix(e.Message, "cannot use ") {
				t.Errorf("%s %q: %+v", what, tc.text, e)
			}
			if tc.memory == 0 && tc.disk == 0 && !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%s %q: %q does not say %q", what, tc.text, err, tc.says)
			}
		}
	}
}

func TestTheMinimumOfMemoryIsNamed(t *testing.T) {
	t.Parallel()
	for text, says := range map[string]string{"4": "did you mean 4G?", "4M": "did you mean 4G?", "100M": "minimum of 128M", "1K": "minimum of 128M", "1.5": "did you mean 1.5G?"} {
		if _, err := ParseMemory(text); err == nil || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), "128M") {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestFormatSize(t *testing.T) {
	t.Parallel()
	for n, want := range map[int64]string{0: "0B", 1: "1B", 1024: "1K", 1536 * mib: "1536M", 8 * gib: "8G", maxSize: "1024P", mib + 1: "1048577B"} {
		if got := FormatSize(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
		if n == 0 {
			continue
		}
		if back, err := ParseDisk(want); back != n || err != nil {
			t.Errorf("%s reads as %d, %v", want, back, err)
		}
	}
}

func TestDurations(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]time.Duration{
		"30s": 30 * time.Second, "1h30m": 90 * time.Minute, "90": 90 * time.Second, "1.5": 1500 * time.Millisecond, "0.5s": 500 * time.Millisecond,
		"100ms": 100 * time.Millisecond, " 5m ": 5 * time.Minute, "9000000000": 9000000000 * time.Second, "1ns": 1,
		// Refused.
		"": 0, " ": 0, "0": 0, "0s": 0, "-5": 0, "-5m": 0, "5 m": 0, "5d": 0, "abc": 0, "1e3": 0, "inf": 0, "NaN": 0, "1-2": 0, ".": 0,
		"9999999999": 0, "99999999999999999999999999": 0, "300000h30000000h": 0, "0.0000000001": 0,
	} {
		got, err := ParseDuration(text)
		if got != want || (err == nil) != (want != 0) {
			t.Errorf("%q: %v %v, want %v", text, got, err, want)
		}
		if err != nil && api.KindOf(err) != api.KindInvalid {
			t.Errorf("%q: %+v", text, err)
		}
	}
}

func FuzzSizes(f *testing.F) {
	for _, s := range []string{"512M", "2GiB", "1.5G", "4", "-1", "0.1B", "9999P", "1e9", "２G"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for what, parse := range map[string]func(string) (int64, error){"memory": ParseMemory, "disk": ParseDisk} {
			n, err := parse(s)
			switch {
			case err != nil && (n != 0 || api.KindOf(err) != api.KindInvalid || len(err.Error()) > 1000):
				t.Errorf("%s %q: %d %v", what, s, n, err)
			case err == nil && (n <= 0 || n > maxSize):
				t.Errorf("%s %q: %d", what, s, n)
			case err == nil && what == "memory" && n < MinMemory:
				t.Errorf("%s %q: %d", what, s, n)
			case err == nil:
				if back, err := ParseDisk(FormatSize(n)); back != n || err != nil {
					t.Errorf("%s %q: %d reads as %d, %v", what, s, n, back, err)
				}
			}
		}
		if d, err := ParseDuration(s); (err == nil) != (d > 0) || d == math.MinInt64 {
			t.Errorf("duration %q: %v %v", s, d, err)
		}
	})
}
