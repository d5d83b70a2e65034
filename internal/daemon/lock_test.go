package daemon

import (
	"context"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/layout"
)

func testLayout(t *testing.T) layout.Layout {
	t.Helper()
	dir, err := os.MkdirTemp("", "banger-test-") // short enough for a socket's path
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	l, err := layout.Resolve(func(key string) string { return map[string]string{"BANGER_ROOT": dir}[key] }, os.Getuid())
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Ensure(); err != nil {
		t.Fatal(err)
	}
	return l
}

func TestSecondDaemonIsRefused(t *testing.T) {
	t.Parallel()
	l := testLayout(t)
	first, err := takeLock(t.Context(), l, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = takeLock(t.Context(), l, 0)
	if api.KindOf(err) != api.KindBadState || !strings.Contains(err.Error(), "pid "+strconv.Itoa(os.Getpid())) {
		t.Errorf("the second lock: %v", err)
	}
	// One that serves is named without waiting.
	ln, err := listen(l)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, err := takeLock(t.Context(), l, time.Hour); api.KindOf(err) != api.KindBadState || time.Since(began) > 10*time.Second {
		t.Errorf("the lock of a serving daemon: %v after %s", err, time.Since(began))
	}
	ln.Close()
	// One that leaves is waited for.
	go func() {
		time.Sleep(20 * time.Millisecond)
		first.Close()
	}()
	second, err := takeLock(t.Context(), l, 20*time.Second)
	if err != nil {
		t.Fatalf("after the first left: %v", err)
	}
	defer second.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := takeLock(ctx, l, time.Hour); err == nil {
		t.Error("a cancelled wait got the lock")
	}
	// Another root is another matter.
	other, err := takeLock(t.Context(), testLayout(t), 0)
	if err != nil {
		t.Fatal(err)
	}
	other.Close()
}

func TestListen(t *testing.T) {
	t.Parallel()
	l := testLayout(t)
	// A socket that a dead daemon left.
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: l.DaemonSocket()})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	ln, err := listen(l)
	if err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(l.DaemonSocket()); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("socket: %v %v", fi, err)
	}
	ln.Close()
	if err := os.WriteFile(l.DaemonSocket(), []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listen(l); api.KindOf(err) != api.KindDenied {
		t.Errorf("listening over a file: %v", err)
	}
	if b, _ := os.ReadFile(l.DaemonSocket()); string(b) != "precious" {
		t.Error("the file is gone")
	}
}
