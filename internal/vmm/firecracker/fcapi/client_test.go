package fcapi

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// serve answers as a Firecracker might.
func serve(t *testing.T, h http.HandlerFunc) *Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "api")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	go func() { _ = s.Serve(l) }()
	c := New(path)
	t.Cleanup(func() {
		c.Close()
		_ = s.Close()
	})
	return c
}

func TestRequests(t *testing.T) {
	t.Parallel()
	var got []string
	c := serve(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		got = append(got, fmt.Sprintf("%s %s %s", r.Method, r.URL.Path, b))
		if r.URL.Path == "/version" {
			fmt.Fprint(w, `{"firecracker_version":"1.12.1"}`)
			return
		}
		w.WriteHeader(http.StatusNoContent)
	})
	v, err := c.Version(t.Context())
	if err != nil || v != "1.12.1" {
		t.Errorf("version %q, %v", v, err)
	}
	for _, err := range []error{
		c.Put(t.Context(), "/machine-config", MachineConfig{VCPUs: 2, MemoryMiB: 256}),
		c.Put(t.Context(), "/boot-source", BootSource{Kernel: "/k", BootArgs: "quiet"}),
		c.Put(t.Context(), "/drives/d0", Drive{ID: "d0", Path: "/d", Cache: "Writeback"}),
		c.Put(t.Context(), "/network-interfaces/eth0", NetworkInterface{ID: "eth0", Tap: "tap", MAC: "52:54:00:00:00:01"}),
		c.Put(t.Context(), "/balloon", Balloon{DeflateOnOOM: true, StatsEvery: 5}),
		c.Put(t.Context(), "/entropy", Entropy{}),
		c.Patch(t.Context(), "/vm", VM{Paused}),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	want := []string{
		`GET /version `,
		`PUT /machine-config {"vcpu_count":2,"mem_size_mib":256,"smt":false}`,
		`PUT /boot-source {"kernel_image_path":"/k","boot_args":"quiet"}`,
		`PUT /drives/d0 {"drive_id":"d0","path_on_host":"/d","is_root_device":false,"is_read_only":false,"cache_type":"Writeback"}`,
		`PUT /network-interfaces/eth0 {"iface_id":"eth0","host_dev_name":"tap","guest_mac":"52:54:00:00:00:01"}`,
		`PUT /balloon {"amount_mib":0,"deflate_on_oom":true,"stats_polling_interval_s":5}`,
		`PUT /entropy {}`,
		`PATCH /vm {"state":"Paused"}`,
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func TestFaults(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   string
	}{
		"fault": {func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(w, `{"fault_message":"no\u001b[2J such\nthing"}`)
		}, "no [2J such thing"},
		"no JSON":  {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadRequest) }, "status 400"},
		"too long": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 1<<20)) }, "exceeds"},
		"garbage":  {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "<html>") }, "not JSON"},
		"hangs up": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := serve(t, c.answer).Version(t.Context())
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestHangs(t *testing.T) {
	t.Parallel()
	c := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := c.Version(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestRequestTooLarge(t *testing.T) {
	t.Parallel()
	c := New("/nonexistent")
	if err := c.Put(t.Context(), "/boot-source", BootSource{BootArgs: strings.Repeat("x", maxRequest)}); err == nil || !strings.Contains(err.Error(), "exceeds") {
		t.Errorf("got %v", err)
	}
}

func FuzzReply(f *testing.F) {
	f.Add(200, []byte(`{"firecracker_version":"1.12.1"}`))
	f.Add(400, []byte(`{"fault_message":"x"}`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		var v struct {
			Version string `json:"firecracker_version"`
		}
		err := parseReply(status, body, &v)
		var fault *Fault
		if errors.As(err, &fault) && strings.ContainsAny(fault.Message, "\n\x1b\x00") {
			t.Errorf("message %q", fault.Message)
		}
	})
}
