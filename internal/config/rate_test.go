package config

import (
	"strings"
	"testing"

	"github.com/bangervm/banger/api"
)

func TestLimits(t *testing.T) {
	t.Parallel()
	c, err := load(t, `
[limits]
disk_bytes_per_second = "50M"
disk_operations_per_second = 2000
network_bytes_per_second = "1.5GiB"
`, map[string]string{"BANGER_LIMITS_DISK_BYTES_PER_SECOND": " 8388608 b "})
	if want := (Limits{DiskBytes: 8 << 20, DiskOperations: 2000, NetworkBytes: 3 << 29}); err != nil || c.Limits != want {
		t.Errorf("%+v, %v", c.Limits, err)
	}
	if c, err = load(t, "", nil); err != nil || c.Limits != (Limits{}) {
		t.Errorf("nothing said: %+v, %v", c.Limits, err)
	}
}

func TestWrongLimitsSayWhatIsRight(t *testing.T) {
	t.Parallel()
	const bytes, operations, network = "disk_bytes_per_second", "disk_operations_per_second", "network_bytes_per_second"
	for name, tc := range map[string]struct{ key, value, says string }{
		"zero":                     {bytes, "0", "leave the key out for no limit"},
		"zero with a unit":         {bytes, `"0.0 MiB"`, "leave the key out for no limit"},
		"no unit":                  {bytes, "52428800", "no unit; write it like 50M, or 52428800B"},
		"a rate's unit":            {bytes, `"50M/s"`, "unknown unit m/s"},
		"negative":                 {bytes, `"-5M"`, "negative"},
		"less than it boots with":  {bytes, `"1023K"`, "minimum of 1M"},
		"more than QEMU counts":    {bytes, `"2T"`, "more than 1T"},
		"a word":                   {bytes, `"none"`, "does not begin with a number"},
		"truth":                    {bytes, "true", "does not begin with a number"},
		"zero operations":          {operations, "0", "leave the key out for no limit"},
		"too few operations":       {operations, "99", "from 100 to 1000000000"},
		"a fraction of operations": {operations, "100.5", "from 100 to 1000000000"},
		"operations with a unit":   {operations, `"2K"`, "from 100 to 1000000000"},
		"less than a packet":       {network, `"63K"`, "minimum of 64K"},
	} {
		_, err := load(t, "[limits]\n"+tc.key+" = "+tc.value+"\n", nil)
		if api.KindOf(err) != api.KindInvalid || !strings.Contains(err.Error(), tc.says) || !strings.Contains(err.Error(), "line 2: limits."+tc.key) {
			t.Errorf("%s: %v", name, err)
		}
	}
	_, err := load(t, "[limits]\ndisk_byte_per_second = \"5M\"\n", nil)
	if api.KindOf(err) != api.KindInvalid || !strings.Contains(err.Error(), "did you mean limits.disk_bytes_per_second?") {
		t.Errorf("a near key: %v", err)
	}
}
