package kernel

import (
	"bytes"
	"debug/elf"
	"fmt"
	"strings"
)

// modinfo is what a module says of itself.
type modinfo struct {
	name    string
	depends []string
	aliases []string
	softdep []string
	release string // of the kernel it was built for
	bytes   int64  // of the section
}

// maxModinfo bounds the section with a module's own words, in bytes.
const maxModinfo = 1 << 20

// readModinfo reads the .modinfo section of a module, uncompressed.
func readModinfo(b []byte) (modinfo, error) {
	err := checkSections(bytes.NewReader(b))
	var f *elf.File
	if err == nil {
		f, err = elf.NewFile(bytes.NewReader(b))
	}
	if err != nil {
		return modinfo{}, fmt.Errorf("not an ELF file that can be read: %w", err)
	}
	defer func() { _ = f.Close() }()
	s := f.Section(".modinfo")
	if s == nil || s.Type == elf.SHT_NOBITS {
		return modinfo{}, fmt.Errorf("no .modinfo section")
	}
	if s.Size > maxModinfo || s.Flags&elf.SHF_COMPRESSED != 0 {
		return modinfo{}, fmt.Errorf(".modinfo section of %d bytes", s.Size)
	}
	data, err := s.Data()
	if err != nil {
		return modinfo{}, fmt.Errorf(".modinfo section: %w", err)
	}
	m := parseModinfo(data)
	m.bytes = int64(len(data))
	return m, nil
}

// parseModinfo reads key=value entries, each closed by a zero byte.
func parseModinfo(data []byte) modinfo {
	var m modinfo
	for entry := range bytes.SplitSeq(data, []byte{0}) {
		k, v, ok := strings.Cut(string(entry), "=")
		if !ok || strings.ContainsAny(v, "\n") {
			continue
		}
		switch k {
		case "name":
			m.name = moduleName(v)
		case "depends":
			for d := range strings.SplitSeq(v, ",") {
				if d != "" {
					m.depends = append(m.depends, moduleName(d))
				}
			}
		case "alias":
			m.aliases = append(m.aliases, v)
		case "softdep":
			m.softdep = append(m.softdep, v)
		case "vermagic":
			m.release, _, _ = strings.Cut(v, " ")
		}
	}
	return m
}

// moduleName is the name by which modules know each other: dashes and
// underscores are the same, and neither folder nor suffix counts.
func moduleName(path string) string {
	name := path[strings.LastIndexByte(path, '/')+1:]
	if i := strings.Index(name, ".ko"); i >= 0 {
		name = name[:i]
	}
	return strings.ReplaceAll(name, "-", "_")
}
