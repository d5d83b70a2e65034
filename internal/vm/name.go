package vm

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	mrand "math/rand/v2"
	"strings"

	"github.com/bangervm/banger/api"
)

const maxName = 63

// checkName refuses what cannot be a name, and never changes one. instead is
// the command that the nearest good name would go into, at its %s.
func checkName(name, instead string) error {
	bad := func(why string) error {
		e := api.Errorf(api.KindInvalid, "cannot use %q as the name of a vm: %s", name, why)
		if s := suggestName(name); s != "" && s != name {
			e = api.Errorf(api.KindInvalid, "%s; did you mean %s?", e.Message, s)
			e.Hint = strings.Replace(instead, "%s", s, 1)
		}
		return e
	}
	switch {
	case name == "":
		return bad("it is empty")
	case len(name) > maxName:
		return bad(fmt.Sprintf("it is %d characters long, %d are allowed", len(name), maxName))
	case name[0] == '-' || name[len(name)-1] == '-':
		return bad("it begins or ends with a hyphen")
	}
	for _, r := range name {
		if !nameRune(r) {
			return bad(fmt.Sprintf("%q is not one of a-z 0-9 -", r))
		}
	}
	return nil
}

func nameRune(r rune) bool {
	return r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-'
}

// suggestName is the nearest valid name, for a hint only.
func suggestName(name string) string {
	s := strings.Map(func(r rune) rune {
		switch {
		case nameRune(r):
			return r
		case r == '_' || r == '.' || r == ' ':
			return '-'
		}
		return -1
	}, strings.ToLower(name))
	if len(s) > maxName {
		s = s[:maxName]
	}
	return strings.Trim(s, "-")
}

// newID is a fresh id: 16 characters of lower-case hex.
func newID() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

// newToken is 64 characters of lower-case hex.
func newToken() string {
	var b [32]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}

// newName is a readable name; later attempts carry a number, so that a full
// house does not matter.
func newName(attempt int) string {
	name := adjectives[mrand.IntN(len(adjectives))] + "-" + nouns[mrand.IntN(len(nouns))]
	if attempt >= 3 {
		name = fmt.Sprintf("%s-%d", name, 10+mrand.IntN(9990))
	}
	return name
}

var adjectives = [...]string{
	"agile", "amber", "ample", "bold", "brave", "brisk", "bright", "calm", "clear", "clever",
	"cosmic", "crisp", "daring", "deft", "eager", "early", "fancy", "fleet", "fond", "frank",
	"fresh", "gentle", "glad", "golden", "grand", "happy", "hardy", "honest", "humble", "ideal",
	"jolly", "keen", "kind", "lively", "loyal", "lucid", "lucky", "mellow", "merry", "mild",
	"modest", "neat", "nimble", "noble", "patient", "plain", "polite", "prime", "proud", "quick",
	"quiet", "rapid", "ready", "robust", "round", "royal", "sharp", "silent", "silver", "simple",
	"smart", "smooth", "snug", "solid", "steady", "sunny", "swift", "tidy", "vivid", "warm",
	"wise", "witty", "young", "zesty",
}

var nouns = [...]string{
	"acorn", "anchor", "apple", "aspen", "badger", "beacon", "beetle", "birch", "bison", "brook",
	"canyon", "cedar", "cherry", "cliff", "cloud", "comet", "coral", "crane", "creek", "dolphin",
	"eagle", "ember", "falcon", "fern", "finch", "forest", "fox", "garden", "glade", "harbor",
	"hare", "hawk", "hazel", "heron", "island", "ivy", "jaguar", "kite", "lagoon", "lake",
	"lantern", "lark", "lemon", "lily", "lynx", "maple", "marten", "meadow", "moose", "moth",
	"oak", "olive", "orchid", "otter", "owl", "panda", "pebble", "pine", "planet", "plum",
	"pony", "puffin", "quail", "raven", "reef", "river", "robin", "sable", "salmon", "sparrow",
	"spruce", "stone", "stork", "summit", "thistle", "tiger", "tulip", "valley", "walnut", "willow",
	"wren", "yak", "zebra",
}
