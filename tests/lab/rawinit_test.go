package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// The init made of system calls is a program that the kernel runs, with its
// strings, arrays and children where it looks for them.
func TestInitProgramRuns(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name string
		run  string
		good bool
	}{{"a child that ends well", "/bin/true", true}, {"one that does not exist", "/nonexistent", false}} {
		p := &initProgram{}
		p.child(func() { p.syscall(sysExecve, p.text(c.run), p.words(c.run), p.words()) })
		if c.good {
			p.reap()
		}
		p.syscall(sysExit, num(7))
		path := filepath.Join(t.TempDir(), "init")
		if err := os.WriteFile(path, p.elf(), 0o700); err != nil {
			t.Fatal(err)
		}
		err := exec.Command(path).Run()
		var exit *exec.ExitError
		if e, ok := err.(*exec.ExitError); ok {
			exit = e
		}
		if exit == nil || exit.ExitCode() != 7 {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
