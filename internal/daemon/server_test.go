package daemon

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/version"
)

var update = flag.Bool("update", false, "write golden files anew")

func (r *rig) do(t *testing.T, method, path, body string) (*http.Response, []byte) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://banger"+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	res, err := r.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, b
}

func errorIn(t *testing.T, b []byte) *api.Error {
	t.Helper()
	var reply api.ErrorReply
	if err := json.Unmarshal(b, &reply); err != nil || reply.Error == nil {
		t.Fatalf("no error reply: %q (%v)", b, err)
	}
	return reply.Error
}

func TestReplies(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	tests := []struct {
		method, path, body string
		status             int
		contains           string
	}{
		{"GET", "/v1/version", "", 200, `"build":"cafe"`},
		{"GET", "/v1/daemon", "", 200, `"operations":1`},
		{"GET", "/v1/doctor", "", 200, `[]`},
		{"GET", "/v1/config", "", 200, `[]`},
		{"GET", "/v1/openapi.json", "", 200, `"openapi": "3.1.0"`},
		{"GET", "/v1/vms", "", 200, `[]`},
		{"GET", "/v1/vms?filter=a&filter=b", "", 200, `[]`},
		{"POST", "/v1/vms", "", 202, `"id":"op1"`},
		{"POST", "/v1/vms", `{"name":"x","labels":{"a":"b"}}`, 202, `"id":"op1"`},
		{"GET", "/v1/vms/web", "", 200, `"name":"web"`},
		{"GET", "/v1/vms/prune", "", 200, `"name":"prune"`}, // a name like a route
		{"PATCH", "/v1/vms/web", `{"vcpus":2}`, 200, `"name":"web"`},
		{"DELETE", "/v1/vms/web?force=true", "", 202, `vm.delete -f`},
		{"POST", "/v1/vms/web/start", "", 202, `vm.start`},
		{"POST", "/v1/vms/web/stop", `{"timeout_ms":5}`, 202, `vm.stop`},
		{"POST", "/v1/vms/web/restart", "", 202, `vm.restart`},
		{"POST", "/v1/vms/web/kill", "{}", 200, `"name":"web"`},
		{"POST", "/v1/vms/web/rename", `{"name":"b"}`, 200, `"name":"web"`},
		{"POST", "/v1/vms/prune", "", 200, `[]`},
		{"GET", "/v1/vms/web/wait?for=running&timeout_ms=1000", "", 200, `"name":"web"`},
		{"GET", "/v1/images", "", 200, `[]`},
		{"GET", "/v1/images/catalog", "", 200, `[]`},
		{"GET", "/v1/images/docker.io%2Fx:1", "", 200, `"name":"docker.io/x:1"`},
		{"POST", "/v1/images/pull", `{"name":"debian-bookworm"}`, 202, `debian-bookworm`},
		{"GET", "/v1/kernels", "", 200, `[]`},
		{"GET", "/v1/kernels/catalog", "", 200, `[]`},
		{"POST", "/v1/kernels/pull", `{"name":"k"}`, 202, `"op3"`},
		{"GET", "/v1/kernels/k", "", 200, `"name":"k"`},
		{"GET", "/v1/operations", "", 200, `op1`},
		{"GET", "/v1/operations/op1", "", 200, `running`},
		{"POST", "/v1/operations/op1/cancel", "", 200, `cancelled`},
		{"POST", "/v1/operations/prune", "", 200, `[]`},
		{"GET", "/v1/events", "", 200, `daemon.started`},
		{"GET", "/v1/events?since=99", "", 200, `[]`},

		{"GET", "/v1/vms/none", "", 404, `banger vm list`},
		{"GET", "/v1/vms/web/wait?for=running&timeout_ms=x", "", 400, `timeout_ms wants a whole number`},
		{"GET", "/v1/vms/web/wait?for=ever", "", 400, `want running, stopped or exit`},
		{"GET", "/v1/vms/web/wait?for=stopped&timeout_ms=20", "", 504, `"kind":"timeout"`},
		{"GET", "/v1/operations/op1/wait?timeout_ms=20", "", 504, `"operation_id":"op1"`},
		{"GET", "/v1/operations/none/events", "", 404, `cannot find operation`},
		{"POST", "/v1/vms", `{"nmae":"x"}`, 400, `unknown field \"nmae\"`},
		{"POST", "/v1/vms", `{"name":7}`, 400, `field \"name\" wants string, not number`},
		{"POST", "/v1/vms", `{"name":"x"`, 400, `ends too early`},
		{"POST", "/v1/vms", `{} {}`, 400, `something follows`},
		{"POST", "/v1/vms", "\x00\xff\xfe", 400, `invalid character`},
		{"POST", "/v1/vms", `[1]`, 400, `cannot read request body`},
		{"POST", "/v1/vms", `{"name":"` + strings.Repeat("x", maxBody) + `"}`, 400, `longer than 1048576 bytes`},
		{"POST", "/v1/images/pull", `{}`, 400, `banger image catalog`},
		{"DELETE", "/v1/vms/web?force=maybe", "", 400, `force wants true or false`},
		{"DELETE", "/v1/vms/web?fierce=true", "", 400, `unknown parameter \"fierce\"`},
		{"GET", "/v1/events?since=-1", "", 400, `since wants the id of an event`},
		{"GET", "/v1/events?since=1&since=2", "", 400, `more than once`},
		{"GET", "/v1/events?since=%zz", "", 400, `invalid URL escape`},
		{"GET", "/v1/vms/web/logs?tail=-1", "", 400, `tail wants a whole number`},
		{"GET", "/v1/vms/web/logs?since=yesterday", "", 400, `since wants a time`},
		{"GET", "/v1/vms/boom", "", 500, `a fault in banger`},
		{"GET", "/v1/vms/web/exec", "", 426, `speaks WebSocket only`},
		{"GET", "/", "", 404, `no such route`},
		{"GET", "/v2/vms", "", 404, `openapi.json`},
		{"GET", "/v1/vms/", "", 404, `no such route`},
		{"GET", "//v1/vms", "", 404, `no such route`},
		{"GET", "/v1/../v1/vms", "", 404, `no such route`},
		{"POST", "/v1/vms//start", "", 404, `no such route`},
		{"PUT", "/v1/vms/web", "", 405, `DELETE, GET, HEAD, PATCH`},
		{"BREW", "/v1/vms", "", 405, `cannot BREW`},
	}
	for _, tt := range tests {
		name := tt.method + " " + tt.path
		res, b := r.do(t, tt.method, tt.path, tt.body)
		if res.StatusCode != tt.status || !strings.Contains(string(b), tt.contains) {
			t.Errorf("%s: %d %s\nwant %d and %q", name, res.StatusCode, b, tt.status, tt.contains)
		}
		if res.StatusCode >= 400 {
			if e := errorIn(t, b); e.Kind == "" || e.Message == "" {
				t.Errorf("%s: error %+v", name, e)
			}
		}
		if got := res.Header.Get(version.HeaderBuild); got != "cafe" {
			t.Errorf("%s: build header %q", name, got)
		}
		if got := res.Header.Get("Content-Type"); got != "application/json" {
			t.Errorf("%s: content type %q", name, got)
		}
	}
}

// Every row of the table answers, and what the routes document says is what is
// checked in.
func TestOpenAPI(t *testing.T) {
	t.Parallel()
	const golden = "../../api/openapi.json"
	got := document()
	if *update {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("api/openapi.json is not what the routes say; go test ./internal/daemon -run OpenAPI -update (-checked in +now):\n%s", diff)
	}
	var doc struct {
		Paths map[string]map[string]any `json:"paths"`
	}
	if err := json.Unmarshal(got, &doc); err != nil {
		t.Fatal(err)
	}
	documented := 0
	for _, methods := range doc.Paths {
		documented += len(methods)
	}
	if documented != len(routes()) {
		t.Errorf("%d routes are documented of %d", documented, len(routes()))
	}
	for _, r := range routes() {
		if r.summary == "" || r.handler == nil || doc.Paths[r.path][strings.ToLower(r.method)] == nil {
			t.Errorf("%s %s lacks a summary, a handler or its page", r.method, r.path)
		}
	}
}

func TestGarbage(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	for _, garbage := range []string{
		"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n", // TLS
		"hello\r\n\r\n",
		"GET\r\n\r\n",
		"GET /v1/version HTTP/9.9\r\n\r\n",
		"GET /v1/version HTTP/1.1\r\n\r\n", // no host
		"GET /v1/version HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
		"GET /v1/version HTTP/1.1\r\nHost: banger\r\nX: " + strings.Repeat("x", 2*maxHeader) + "\r\n\r\n",
		"POST /v1/vms HTTP/1.1\r\nHost: banger\r\nTransfer-Encoding: magic\r\n\r\n",
		"POST /v1/vms HTTP/1.1\r\nHost: banger\r\nContent-Length: -5\r\n\r\n",
		"POST /v1/vms HTTP/1.1\r\nHost: banger\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
		"GET /v1/%zz HTTP/1.1\r\nHost: banger\r\n\r\n",
		string(bytes.Repeat([]byte{0}, 9000)) + "\r\n\r\n",
	} {
		conn, err := net.Dial("unix", r.socket)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		go io.WriteString(conn, garbage)
		res, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Errorf("%.40q: %v", garbage, err)
			conn.Close()
			continue
		}
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Errorf("%.40q: %v", garbage, err)
		}
		if e := errorIn(t, b); res.StatusCode < 400 || e.Kind != api.KindInvalid && e.Kind != api.KindUnsupported {
			t.Errorf("%.40q: %d %s", garbage, res.StatusCode, b)
		}
		conn.Close()
	}
	if res, _ := r.do(t, "GET", "/v1/version", ""); res.StatusCode != 200 {
		t.Errorf("after the garbage: %d", res.StatusCode)
	}
}

func TestManyConnections(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	// Connections that say nothing hold up nobody.
	for range 100 {
		c, err := net.Dial("unix", r.socket)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	var wg sync.WaitGroup
	errs := make(chan error, 250)
	for range cap(errs) {
		wg.Go(func() {
			res, err := r.client.Get("http://banger/v1/vms/web")
			if err == nil {
				_, err = io.Copy(io.Discard, res.Body)
				res.Body.Close()
				if res.StatusCode != 200 {
					err = fmt.Errorf("status %d", res.StatusCode)
				}
			}
			if err != nil {
				errs <- err
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		t.Error(err)
	}
}

func TestUntilRecovered(t *testing.T) {
	t.Parallel()
	r := newClosedRig(t)
	for _, path := range []string{"/v1/version", "/v1/daemon", "/v1/config"} {
		if res, b := r.do(t, "GET", path, ""); res.StatusCode != 200 {
			t.Errorf("%s while recovering: %d %s", path, res.StatusCode, b)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "GET", "http://banger/v1/vms", nil)
	if err != nil {
		t.Fatal(err)
	}
	if res, err := r.client.Do(req); err == nil {
		res.Body.Close()
		t.Errorf("GET /v1/vms answered %d while recovering", res.StatusCode)
	}
	time.AfterFunc(20*time.Millisecond, func() { r.open(r.fakes()) })
	if res, _ := r.do(t, "GET", "/v1/vms", ""); res.StatusCode != 200 {
		t.Errorf("GET /v1/vms after recovery: %d", res.StatusCode)
	}
}

func TestFailedStartIsTold(t *testing.T) {
	t.Parallel()
	r := newClosedRig(t)
	r.fail(api.Errorf(api.KindUnsupported, "cannot open the store: written by a newer banger"))
	res, b := r.do(t, "GET", "/v1/vms", "")
	if e := errorIn(t, b); res.StatusCode != 501 || !strings.Contains(e.Message, "newer banger") {
		t.Errorf("%d %s", res.StatusCode, b)
	}
}

func TestLeaving(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	waiting := make(chan *api.Error, 1)
	go func() {
		_, b := r.do(t, "GET", "/v1/operations/op1/wait", "")
		waiting <- errorIn(t, b)
	}()
	for r.requests.Load() == 0 {
		time.Sleep(time.Millisecond)
	}
	if res, b := r.do(t, "POST", "/v1/daemon/stop", ""); res.StatusCode != 202 || !strings.Contains(string(b), `"pid":42`) {
		t.Errorf("stop: %d %s", res.StatusCode, b)
	}
	if e := <-waiting; e.Kind != api.KindUnavailable || !e.Retryable {
		t.Errorf("a wait ended with %+v", e)
	}
	_, b := r.do(t, "POST", "/v1/vms", "")
	if e := errorIn(t, b); e.Kind != api.KindUnavailable {
		t.Errorf("a create while leaving: %+v", e)
	}
}

func TestOperationEvents(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	res, err := r.client.Get("http://banger/v1/operations/op1/events")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if got := res.Header.Get("Content-Type"); got != "text/event-stream" {
		t.Errorf("content type %q", got)
	}
	lines := bufio.NewScanner(res.Body)
	var got []string
	for lines.Scan() {
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok {
			var op api.Operation
			if err := json.Unmarshal([]byte(data), &op); err != nil {
				t.Fatal(err)
			}
			if len(got) == 0 {
				close(r.end)
			}
			got = append(got, string(op.Status))
		}
	}
	if diff := cmp.Diff([]string{"running", "succeeded"}, got); diff != "" || lines.Err() != nil {
		t.Errorf("events: %v %v", diff, lines.Err())
	}
}

func TestFollowEvents(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	follow := func(query string) *bufio.Scanner {
		req, err := http.NewRequestWithContext(ctx, "GET", "http://banger/v1/events?follow=true"+query, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := r.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { res.Body.Close() })
		return bufio.NewScanner(res.Body)
	}
	onlyNew, all := follow(""), follow("&since=0")
	r.bus.Publish("vm.started", "0123", map[string]string{"name": "web"})
	next := func(s *bufio.Scanner) string {
		for s.Scan() {
			if id, ok := strings.CutPrefix(s.Text(), "id: "); ok {
				return id
			}
		}
		return "end"
	}
	if id := next(onlyNew); id != "2" {
		t.Errorf("without since the first event is %s, want 2", id)
	}
	if one, two := next(all), next(all); one != "1" || two != "2" {
		t.Errorf("since 0: events %s, %s", one, two)
	}
	r.stop()
	if id := next(all); id != "end" {
		t.Errorf("after the daemon left came %s", id)
	}
}

func TestLogs(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var seen logOptions
	r.vms.logs = func(_ context.Context, o logOptions, w io.Writer) error {
		seen = o
		_, err := io.WriteString(w, "one\n\x00two\n")
		return err
	}
	res, b := r.do(t, "GET", "/v1/vms/web/logs?tail=5&since=2026-01-02T03:04:05Z&console=true", "")
	if res.StatusCode != 200 || string(b) != "one\n\x00two\n" || !strings.HasPrefix(res.Header.Get("Content-Type"), "text/plain") {
		t.Errorf("logs: %d %q %v", res.StatusCode, b, res.Header)
	}
	want := logOptions{Tail: 5, Since: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC), Console: true}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Error(diff)
	}
	r.vms.logs = func(context.Context, logOptions, io.Writer) error {
		return api.Errorf(api.KindNotFound, "cannot find vm")
	}
	if res, b := r.do(t, "GET", "/v1/vms/web/logs", ""); res.StatusCode != 404 || errorIn(t, b).Kind != api.KindNotFound || seen.Tail != 5 {
		t.Errorf("logs of nothing: %d %s", res.StatusCode, b)
	}
	// An error in the middle must not look like the end.
	r.vms.logs = func(_ context.Context, _ logOptions, w io.Writer) error {
		_, _ = io.WriteString(w, "part")
		return api.Errorf(api.KindInternal, "cannot read log")
	}
	res, err := r.client.Get("http://banger/v1/vms/web/logs")
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err == nil {
		t.Errorf("a log that broke off ended cleanly after %q", b)
	}
}

func FuzzQuery(f *testing.F) {
	for _, q := range []string{"", "follow=true", "since=1&since=2", "tail=9&console=1", "%zz", "a=b;c", "since=2026-01-02T03:04:05Z"} {
		f.Add(q)
	}
	f.Fuzz(func(t *testing.T, query string) {
		r, err := http.NewRequest("GET", "http://banger/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.URL.RawQuery = query
		if q, err := decodeQuery[logsQuery](r); err == nil {
			_, _ = parseSince(q.Since, time.Now())
		} else if api.KindOf(err) != api.KindInvalid {
			t.Errorf("%q: %v", query, err)
		}
		if q, err := decodeQuery[waitVMQuery](r); err == nil && q.TimeoutMS < 0 {
			t.Errorf("%q: a negative time-out", query)
		}
	})
}

func FuzzBody(f *testing.F) {
	for _, b := range []string{"", "{}", `{"name":"x"}`, `{"labels":{"a":null}}`, `[[[[`, `{"vm":{"name":"x"},"end":"stop"}`, "\xff"} {
		f.Add([]byte(b))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var create api.CreateVM
		_ = decodeJSON(b, &create)
		if _, err := parseFirst[api.Run](true, b); err != nil && api.KindOf(err) != api.KindInvalid {
			t.Errorf("%q: %v", b, err)
		}
		if _, err := parseFirst[api.Exec](true, b); err == nil && len(b) < 2 {
			t.Errorf("%q is no request", b)
		}
		m, err := parseMessage(true, b)
		if err == nil && !bytes.Equal(m.payload, b[1:]) {
			t.Errorf("payload of %q is %q", b, m.payload)
		}
	})
}
