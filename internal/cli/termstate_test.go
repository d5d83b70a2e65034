package cli

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// termState is the settings of a terminal.
func termState(t *testing.T, f *os.File) unix.Termios {
	t.Helper()
	s, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	if err != nil {
		t.Fatal(err)
	}
	return *s
}
