package qemu

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/vmm/qemu/testkernel"
)

// stub is a program that behaves like some QEMU.
func stub(t *testing.T, script string) *Driver {
	t.Helper()
	path := filepath.Join(t.TempDir(), programName)
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script), 0o700); err != nil {
		t.Fatal(err)
	}
	return New(Options{Binary: path}, slog.New(slog.DiscardHandler))
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		script string
		kind   api.Kind
		text   string
	}{
		"right":      {"echo 'QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)'", "", "7.2.22"},
		"newer":      {"echo 'QEMU emulator version 10.0'", "", "10.0.0"},
		"old":        {"echo 'QEMU emulator version 6.2.0'", api.KindUnsupported, "6.2.0 is older than 7.2"},
		"other":      {"echo bochs", api.KindUnsupported, "not QEMU's"},
		"broken":     {"exit 3", api.KindUnavailable, "exit status 3"},
		"talkative":  {"while echo 'QEMU emulator version 7.2.22'; do :; done | head -n 100000", "", "7.2.22"},
		"says a lot": {"head -c 1000000 /dev/zero", api.KindUnsupported, "not QEMU's"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			v, err := stub(t, c.script).Check(t.Context())
			if api.KindOf(err) != c.kind || !strings.Contains(v.Text+fmt.Sprint(err), c.text) {
				t.Errorf("got %+v, %v", v, err)
			}
			if err != nil && api.AsError(err).Hint == "" {
				t.Error("no hint")
			}
		})
	}
}

func TestCheckMissing(t *testing.T) {
	t.Parallel()
	d := New(Options{Binary: "/nonexistent/qemu"}, slog.New(slog.DiscardHandler))
	_, err := d.Check(t.Context())
	if api.KindOf(err) != api.KindUnavailable || api.AsError(err).Hint == "" {
		t.Errorf("Check: %v", err)
	}
	if _, err := d.Start(t.Context(), testSpec(t, new(testkernel.Program).Halt()), io.Discard); api.KindOf(err) != api.KindUnavailable {
		t.Errorf("Start: %v", err)
	}
}

// A QEMU that does not come up is an error that tells why, and leaves nothing.
func TestStartFails(t *testing.T) {
	t.Parallel()
	const ok = `[ "$1" = --version ] && { echo 'QEMU emulator version 7.2.0'; exit; }` + "\n"
	for name, c := range map[string]struct {
		script string
		kind   api.Kind
		text   string
	}{
		"too old for our arguments": {`[ "$1" = --version ] && { echo 'QEMU emulator version 5.2.0'; exit; }; echo "qemu: -netdev stream: bad" >&2; exit 1`, api.KindUnsupported, "older than"},
		"last words":                {ok + `echo "qemu-system-x86_64: no such thing" >&2; exit 1`, api.KindUnavailable, "no such thing"},
		"silent":                    {ok + "exit 1", api.KindUnavailable, "exit status 1"},
		"no permission":             {ok + `echo "Could not access KVM kernel module: Permission denied" >&2; exit 1`, api.KindDenied, "KVM"},
		"garbage for QMP":           {ok + "head -c 2000000 /dev/zero >&3 2>/dev/null; sleep 60", api.KindUnavailable, "cannot start QEMU"},
		"another greeting":          {ok + `echo '{"return":{}}' >&3; sleep 60`, api.KindUnavailable, "greeting"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			spec := testSpec(t, new(testkernel.Program).Halt())
			_, err := stub(t, c.script).Start(t.Context(), spec, io.Discard)
			if api.KindOf(err) != c.kind || !strings.Contains(fmt.Sprint(err), c.text) {
				t.Errorf("got %v (%s)", err, api.KindOf(err))
			}
			if _, err := os.Stat(filepath.Join(spec.RunDir, linkSocket)); !os.IsNotExist(err) {
				t.Errorf("the link's socket is left: %v", err)
			}
		})
	}
}
