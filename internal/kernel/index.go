package kernel

import (
	"archive/tar"
	"strings"
)

// writeIndexes adds what depmod would make, so that modprobe works in the
// guest: the package leaves it to its installation.
func (s *moduleSet) writeIndexes(tw *tar.Writer) error {
	var dep, soft strings.Builder
	g := s.graph()
	for _, m := range s.list {
		order, err := g.closure([]string{m.info.name}, s.builtin)
		if err != nil {
			order = []string{m.info.name} // what it needs is nowhere; it cannot be loaded, the others can
		}
		dep.WriteString(m.path + ":")
		// depmod lists the nearest first.
		for i := len(order) - 2; i >= 0; i-- {
			dep.WriteString(" " + s.list[s.byName[order[i]]].path)
		}
		dep.WriteByte('\n')
		for _, d := range m.info.softdep {
			soft.WriteString("softdep " + m.info.name + " " + d + "\n")
		}
	}
	for _, f := range []struct{ name, text string }{
		{"modules.dep", dep.String()},
		{"modules.softdep", soft.String()},
	} {
		if err := tw.WriteHeader(&tar.Header{
			Typeflag: tar.TypeReg, Name: s.release + "/" + f.name, Mode: 0o644, Size: int64(len(f.text)), Format: tar.FormatPAX,
		}); err != nil {
			return err
		}
		if _, err := tw.Write([]byte(f.text)); err != nil {
			return err
		}
	}
	return nil
}
