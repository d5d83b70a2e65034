package daemon

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/debian"
	"github.com/bangervm/banger/internal/layout"
)

// real is a whole daemon, wired as in production, on a root of its own.
type real struct {
	life
	log lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func environment(root string) func(string) string {
	return func(key string) string {
		switch key {
		case "BANGER_ROOT":
			return root
		case "PATH":
			return os.Getenv("PATH")
		}
		return ""
	}
}

func start(t *testing.T, l layout.Layout) *real {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	d := &real{life: life{l: l, stop: stop, ended: make(chan error, 1), client: &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", l.DaemonSocket())
		},
	}}}}
	go func() { d.ended <- Main(ctx, environment(l.Root), &d.log) }()
	t.Cleanup(func() {
		stop()
		if t.Failed() {
			t.Logf("daemon's log:\n%s", d.log.String())
		}
	})
	deadline := time.Now().Add(20 * time.Second)
	for !answers(l.DaemonSocket()) {
		select {
		case err := <-d.ended:
			d.ended <- err
			return d
		default:
		}
		if time.Now().After(deadline) {
			t.Fatal("the daemon does not answer")
		}
		time.Sleep(5 * time.Millisecond)
	}
	return d
}

// What is left half-made goes; what does not go is told of, and keeps neither
// the rest nor the daemon.
func TestClearStaging(t *testing.T) {
	t.Parallel()
	l := testLayout(t)
	for _, name := range []string{"a", "foreign", "z"} {
		if err := os.MkdirAll(l.Staging()+"/"+name+"/half", 0o700); err != nil {
			t.Fatal(err)
		}
	}
	var log lockedBuffer
	clearStaging(t.Context(), l, slog.New(slog.NewTextHandler(&log, nil)), func(ctx context.Context, dir string) error {
		if strings.HasSuffix(dir, "foreign") {
			return errors.New("of another user")
		}
		return debian.RemoveTree(ctx, dir)
	})
	left, err := os.ReadDir(l.Staging())
	if err != nil || len(left) != 1 || left[0].Name() != "foreign" || !strings.Contains(log.String(), "of another user") {
		t.Errorf("%v %v, log %s", left, err, log.String())
	}
}

// TestDaemon drives a whole daemon; nothing in it boots a VM.
func TestDaemon(t *testing.T) {
	t.Parallel()
	l := testLayout(t)
	stray := l.Staging() + "/image-dead"
	if err := os.MkdirAll(stray+"/half", 0o700); err != nil {
		t.Fatal(err)
	}
	d := start(t, l)
	for path, want := range map[string]string{
		"/v1/version":         `"build"`,
		"/v1/vms":             `[]`,
		"/v1/images":          `[]`,
		"/v1/images/catalog":  "debian-bookworm",
		"/v1/kernels/catalog": "debian-bookworm-cloud",
		"/v1/operations":      `[]`,
		"/v1/config":          "default_image_name",
		"/v1/doctor":          `"accelerator"`,
		"/v1/events":          "daemon.started",
	} {
		if status, b := d.get(t, path); status != 200 || !strings.Contains(string(b), want) {
			t.Errorf("%s: %d %s", path, status, b)
		}
	}
	for path, want := range map[string]int{
		"/v1/vms/none": 404, "/v1/images/none": 404, "/v1/kernels/none": 404, "/v1/operations/none": 404,
		"/v1/operations/none/events": 404, "/v1/operations/none/wait": 404, "/v1/vms/none/logs": 404,
	} {
		if status, b := d.get(t, path); status != want || errorIn(t, b).Kind != api.KindNotFound {
			t.Errorf("%s: %d %s", path, status, b)
		}
	}
	if _, err := os.Stat(stray); err == nil {
		t.Error("the staging folder still holds what a dead daemon left")
	}
	second := start(t, l)
	if err := second.end(t); api.KindOf(err) != api.KindBadState || !strings.Contains(err.Error(), "pid") {
		t.Errorf("a second daemon on the root: %v", err)
	}
	other := start(t, testLayout(t))
	if status, _ := other.get(t, "/v1/vms"); status != 200 {
		t.Errorf("a daemon on another root: %d", status)
	}
	d.stop()
	if err := d.end(t); err != nil {
		t.Errorf("the daemon ended with %v", err)
	}
	third := start(t, l)
	if status, b := third.get(t, "/v1/events"); status != 200 || strings.Count(string(b), "daemon.started") != 2 {
		t.Errorf("the next daemon's events: %d %s", status, b)
	}
}

func TestDaemonCannotStart(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name   string
		spoil  func(t *testing.T, l layout.Layout)
		kind   api.Kind
		says   string
		noSock bool
	}{
		{"corrupted store", func(t *testing.T, l layout.Layout) {
			write(t, l.Database(), strings.Repeat("this is no database ", 1000))
		}, "", "banger.db", false},
		{"unknown configuration key", func(t *testing.T, l layout.Layout) {
			if err := os.MkdirAll(l.Config, 0o700); err != nil {
				t.Fatal(err)
			}
			write(t, l.ConfigFile(), "\nlog_levle = \"info\"\n")
		}, api.KindInvalid, "line 2", true},
		{"a file where the state folder should be", func(t *testing.T, l layout.Layout) {
			if err := os.RemoveAll(l.State); err != nil {
				t.Fatal(err)
			}
			write(t, l.State, "")
		}, "", "state", true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			l := testLayout(t)
			tt.spoil(t, l)
			d := start(t, l)
			if !tt.noSock {
				status, b := d.get(t, "/v1/vms")
				if e := errorIn(t, b); status < 400 || !strings.Contains(e.Message, tt.says) {
					t.Errorf("a command hears %d %s", status, b)
				}
			}
			err := d.end(t)
			if err == nil || tt.kind != "" && api.KindOf(err) != tt.kind || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("the daemon ended with %v (%s)", err, api.KindOf(err))
			}
		})
	}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
