package version

import (
	"bytes"
	"crypto/sha256"
	"debug/elf"
	"encoding/hex"
	"fmt"
	"os"
	"runtime"
)

// version is set when the binary is linked:
// -ldflags "-X github.com/bangervm/banger/internal/version.version=1.2.3".
var version = "dev"

// HeaderBuild carries the build of a request's sender, and back the daemon's.
const HeaderBuild = "X-Banger-Build"

// Info is one binary's account of itself.
type Info struct {
	Version string // e.g. 1.2.3, or dev
	Build   string // 12 hex digits, the same for the same binary wherever it lies
	Go      string // version of the Go tool chain
}

// Current describes the running binary. It costs a few small reads.
func Current() Info {
	return Info{Version: version, Build: build("/proc/self/exe"), Go: runtime.Version()}
}

// build shortens the linker's content-addressed build id, which lies in a note
// of the binary. Where there is none (-ldflags -buildid=), size and time of
// change of the file must do. /proc/self/exe is the file that was started,
// though another took its place since.
func build(exe string) string {
	id := note(exe)
	if id == nil {
		fi, err := os.Stat(exe)
		if err != nil {
			return "unknown"
		}
		id = fmt.Appendf(nil, "%d %d", fi.Size(), fi.ModTime().UnixNano())
	}
	sum := sha256.Sum256(id)
	return hex.EncodeToString(sum[:6])
}

// note reads the payload of the ELF note the Go linker writes.
func note(exe string) []byte {
	f, err := elf.Open(exe)
	if err != nil {
		return nil
	}
	defer f.Close()
	s := f.Section(".note.go.buildid")
	if s == nil || s.Size > 4096 {
		return nil
	}
	b, err := s.Data()
	// name size, payload size, type, then "Go\0\0", then the payload.
	if err != nil || len(b) <= 16 || !bytes.Equal(b[12:16], []byte("Go\x00\x00")) {
		return nil
	}
	return b[16:]
}
