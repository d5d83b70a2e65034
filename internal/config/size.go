package config

import (
	"math/big"
	"strings"

	"github.com/bangervm/banger/api"
)

// MinMemory is the least memory a machine boots with.
const MinMemory = 128 << 20

// maxSize keeps sums of sizes within an int64.
const maxSize = 1 << 60

// unitShift holds the binary units; K, KB and KiB mean the same.
var unitShift = map[byte]uint{'b': 0, 'k': 10, 'm': 20, 'g': 30, 't': 40, 'p': 50}

// ParseMemory reads a size of memory, e.g. 512M, 2GiB, 1.5G; a bare number is
// MiB. The result is in bytes, at least MinMemory.
func ParseMemory(s string) (int64, error) {
	n, unit, err := parseSize("memory", s)
	if err != nil {
		return 0, err
	}
	bare := unit == ""
	if bare {
		unit = "m"
	}
	bytes, err := scale("memory", s, n, unit)
	if err != nil {
		return 0, err
	}
	if bytes < MinMemory {
		e := api.Errorf(api.KindInvalid, "cannot use memory %q: that is below the minimum of %s", s, FormatSize(MinMemory))
		if bare || unit == "m" && n.IsInt() {
			meant := n.RatString()
			if bare {
				meant = strings.TrimSpace(s)
			}
			return 0, api.Errorf(api.KindInvalid, "%s; did you mean %sG?", e.Message, meant).WithHint("--memory %sG", meant)
		}
		return 0, e.WithHint("--memory %s", FormatSize(MinMemory))
	}
	return bytes, nil
}

// ParseDisk reads the size of a disk, e.g. 8G or 1.5T, in bytes. A number
// without a unit is refused.
func ParseDisk(s string) (int64, error) {
	n, unit, err := parseSize("disk size", s)
	if err != nil {
		return 0, err
	}
	if unit == "" {
		return 0, api.Errorf(api.KindInvalid, "cannot use disk size %q: it has no unit; did you mean %sG?", s, strings.TrimSpace(s)).
			WithHint("--disk-size %sG", strings.TrimSpace(s))
	}
	return scale("disk size", s, n, unit)
}

// parseSize splits a size into its number, above zero, and its unit: empty or a
// letter of unitShift.
func parseSize(what, s string) (*big.Rat, string, error) {
	bad := func(why string) (*big.Rat, string, error) {
		return nil, "", api.Errorf(api.KindInvalid, "cannot use %s %q: %s; write it like 512M, 2G or 1.5G", what, clip(s), why)
	}
	text := strings.ToLower(strings.TrimSpace(s))
	if text == "" {
		return bad("it is empty")
	}
	if strings.HasPrefix(text, "-") {
		return bad("it is negative")
	}
	end := len(text)
	for i, r := range text {
		if (r < '0' || r > '9') && r != '.' {
			end = i
			break
		}
	}
	number, unit := text[:end], strings.TrimLeft(text[end:], " ")
	whole, fraction, dotted := strings.Cut(number, ".")
	if whole == "" || dotted && fraction == "" || strings.Contains(fraction, ".") {
		return bad("it does not begin with a number")
	}
	if len(number) > 32 {
		return bad("the number is too long")
	}
	n, ok := new(big.Rat).SetString(number)
	if !ok {
		return bad("it does not begin with a number")
	}
	if n.Sign() == 0 {
		return bad("it is zero")
	}
	if unit == "" {
		return n, "", nil
	}
	if _, known := unitShift[unit[0]]; !known || unit != "b" && unit[1:] != "" && unit[1:] != "b" && unit[1:] != "ib" || strings.HasPrefix(unit, "bi") || unit == "bb" {
		return bad("unknown unit " + clip(unit))
	}
	return n, unit[:1], nil
}

// scale gives n units in whole bytes.
func scale(what, s string, n *big.Rat, unit string) (int64, error) {
	r := new(big.Rat).Mul(n, new(big.Rat).SetInt64(1<<unitShift[unit[0]]))
	bytes := new(big.Int).Quo(r.Num(), r.Denom())
	switch {
	case bytes.Sign() == 0:
		return 0, api.Errorf(api.KindInvalid, "cannot use %s %q: it is less than a byte; write it like 512M, 2G or 1.5G", what, clip(s))
	case bytes.Cmp(big.NewInt(maxSize)) > 0:
		return 0, api.Errorf(api.KindInvalid, "cannot use %s %q: it is beyond %s", what, clip(s), FormatSize(maxSize))
	}
	return bytes.Int64(), nil
}

// FormatSize writes a size so that ParseDisk reads the same number, with the
// largest unit that needs no fraction.
func FormatSize(bytes int64) string {
	const units = "BKMGTP"
	u := 0
	for u < len(units)-1 && bytes != 0 && bytes%1024 == 0 {
		bytes /= 1024
		u++
	}
	return big.NewInt(bytes).String() + units[u:u+1]
}

// clip keeps a user's text in a message short.
func clip(s string) string {
	if len(s) > 60 {
		return strings.ToValidUTF8(s[:60], "") + "…"
	}
	return s
}
