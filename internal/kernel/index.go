package kernel

import (
	"archive/tar"
	"context"
	"fmt"
	"strings"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/ext4"
)

// indexes are what depmod would make, so that modprobe works in the guest: the
// package leaves it to its installation.
type indexes struct {
	dep, alias, softdep, devname           strings.Builder
	depBin, aliasBin, builtin, builtinBins trie
}

// maxIndex bounds modules.dep, in bytes.
const maxIndex = 64 << 20

// writeIndexes adds the indexes to the tree. Of many modules that need each other
// they take a while to make, no longer than ctx allows.
func (s *moduleSet) writeIndexes(ctx context.Context, tw *tar.Writer) error {
	var x indexes
	x.alias.WriteString("# Aliases extracted from modules themselves.\n")
	x.softdep.WriteString("# Soft dependencies extracted from modules themselves.\n")
	x.devname.WriteString("# Device nodes to trigger on-demand module loading.\n")
	g := s.graph()
	for i, m := range s.list {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		line := m.path + ":" + s.needs(g, m)
		x.dep.WriteString(line + "\n")
		if x.dep.Len() > maxIndex {
			return api.Errorf(api.KindInvalid, "its modules need too many others: modules.dep would have more than %d bytes", maxIndex)
		}
		x.depBin.insert(m.info.name, line, i)
		x.add(m.info, i)
	}
	for name := range s.builtin {
		x.builtin.insert(name, "", 0)
	}
	for _, a := range s.builtinAliases {
		x.builtinBins.insert(normalAlias(a.alias), a.module, 0)
	}
	var symbols trie
	for _, f := range []struct {
		name string
		data []byte
	}{
		{"modules.dep", []byte(x.dep.String())},
		{"modules.dep.bin", x.depBin.bytes()},
		{"modules.alias", []byte(x.alias.String())},
		{"modules.alias.bin", x.aliasBin.bytes()},
		{"modules.softdep", []byte(x.softdep.String())},
		{"modules.devname", []byte(x.devname.String())},
		{"modules.builtin.bin", x.builtin.bytes()},
		{"modules.builtin.alias.bin", x.builtinBins.bytes()},
		{"modules.symbols.bin", symbols.bytes()}, // nobody asks by symbol, but modprobe opens it
	} {
		h := &tar.Header{Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(f.data)), ModTime: s.time}
		if err := tw.WriteHeader(ext4.Member(h, s.release+"/"+f.name, "")); err != nil {
			return err
		}
		if _, err := tw.Write(f.data); err != nil {
			return err
		}
	}
	return nil
}

// needs lists the paths of what a module needs, the last to be loaded first.
func (s *moduleSet) needs(g graph, m module) string {
	order, err := g.closure([]string{m.info.name}, s.builtin)
	if err != nil {
		return "" // what it needs is nowhere, or too much: it cannot be loaded, the others can
	}
	var b strings.Builder
	for i := len(order) - 2; i >= 0; i-- {
		b.WriteString(" " + s.list[s.byName[order[i]]].path)
	}
	return b.String()
}

// add notes a module's own words.
func (x *indexes) add(m modinfo, priority int) {
	device, major, minor, kind := "", 0, 0, ""
	for _, a := range m.aliases {
		fmt.Fprintf(&x.alias, "alias %s %s\n", a, m.name)
		x.aliasBin.insert(normalAlias(a), m.name, priority)
		if v, ok := strings.CutPrefix(a, "devname:"); ok {
			device = v
		}
		for prefix, k := range map[string]string{"char-major-": "c", "block-major-": "b"} {
			if v, ok := strings.CutPrefix(a, prefix); ok {
				var a, b int
				if n, _ := fmt.Sscanf(v, "%d-%d", &a, &b); n == 2 {
					kind, major, minor = k, a, b
				}
			}
		}
	}
	for _, d := range m.softdep {
		fmt.Fprintf(&x.softdep, "softdep %s %s\n", m.name, d)
	}
	if device != "" && kind != "" {
		fmt.Fprintf(&x.devname, "%s %s %s%d:%d\n", m.name, device, kind, major, minor)
	}
}

// normalAlias is an alias as modprobe looks it up: underscores for dashes, but
// not within brackets.
func normalAlias(a string) string {
	b := []byte(a)
	inside := false
	for i, c := range b {
		switch c {
		case '[':
			inside = true
		case ']':
			inside = false
		case '-':
			if !inside {
				b[i] = '_'
			}
		}
	}
	return string(b)
}
