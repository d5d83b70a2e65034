package pull

import "github.com/bangervm/banger/api"

// CheckName refuses what no thing of the noun can be called.
func CheckName(noun, name string) error {
	ok := len(name) >= 1 && len(name) <= 63 && name[0] != '-' && name[len(name)-1] != '-'
	for _, c := range []byte(name) {
		ok = ok && (c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '-')
	}
	if ok {
		return nil
	}
	if len(name) > 80 {
		name = name[:80] + "…"
	}
	return api.Errorf(api.KindInvalid, "cannot name %s %q: a name is 1 to 63 of a-z, 0-9 and -, with no hyphen at either end", noun, name)
}
