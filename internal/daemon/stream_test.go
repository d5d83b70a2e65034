package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/bangervm/banger/api"
)

func (r *rig) dial(t *testing.T, path string) *websocket.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	conn, res, err := websocket.Dial(ctx, "http://banger"+path, &websocket.DialOptions{HTTPClient: r.client})
	if err != nil {
		t.Fatalf("%v (%v)", err, res)
	}
	conn.SetReadLimit(1 << 20)
	t.Cleanup(func() { conn.CloseNow() })
	return conn
}

func send(t *testing.T, c *websocket.Conn, kind websocket.MessageType, text string) {
	t.Helper()
	if err := c.Write(t.Context(), kind, []byte(text)); err != nil {
		t.Fatal(err)
	}
}

func receiveFrom(t *testing.T, c *websocket.Conn) (api.Channel, []byte) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	_, b, err := c.Read(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return api.Channel(b[0]), b[1:]
}

func exitFrom(t *testing.T, c *websocket.Conn) api.Exit {
	t.Helper()
	channel, b := receiveFrom(t, c)
	var exit api.Exit
	if err := json.Unmarshal(b, &exit); err != nil || channel != api.ChannelExit {
		t.Fatalf("channel %d, %q: no exit", channel, b)
	}
	return exit
}

// echo sends stdin back until its end, then exits with 7.
func echo(ctx context.Context, _ api.Exec, s *stream) error {
	for {
		channel, b, err := s.Recv(ctx)
		if err != nil {
			return err
		}
		if channel == api.ChannelStdin && len(b) == 0 {
			return s.Send(ctx, api.ChannelExit, []byte(`{"code":7}`))
		}
		if err := s.Send(ctx, api.ChannelStdout, b); err != nil {
			return err
		}
	}
}

func TestExec(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	var argv []string
	r.vms.exec = func(ctx context.Context, req api.Exec, s *stream) error {
		argv = req.Argv
		return echo(ctx, req, s)
	}
	c := r.dial(t, "/v1/vms/web/exec")
	send(t, c, websocket.MessageText, `{"argv":["cat","-"]}`)
	large := strings.Repeat("x", api.MaxPayload)
	for _, text := range []string{"hello", large, "\x00\x01"} {
		send(t, c, websocket.MessageBinary, "\x00"+text)
		if channel, b := receiveFrom(t, c); channel != api.ChannelStdout || string(b) != text {
			t.Fatalf("channel %d, %d bytes", channel, len(b))
		}
	}
	send(t, c, websocket.MessageBinary, "\x00")
	if exit := exitFrom(t, c); exit.Code != 7 || exit.Error != nil {
		t.Errorf("exit %+v", exit)
	}
	if _, _, err := c.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusNormalClosure {
		t.Errorf("after the exit: %v", err)
	}
	if strings.Join(argv, " ") != "cat -" {
		t.Errorf("argv %q", argv)
	}
}

func TestBadFirstMessage(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.vms.exec = func(context.Context, api.Exec, *stream) error { t.Error("exec was called"); return nil }
	r.vms.run = func(context.Context, api.Run, *stream) error { t.Error("run was called"); return nil }
	tests := []struct {
		path     string
		kind     websocket.MessageType
		text     string
		contains string
	}{
		{"/v1/vms/web/exec", websocket.MessageBinary, "{}", "want JSON as a text message"},
		{"/v1/vms/web/exec", websocket.MessageText, "", "ends too early"},
		{"/v1/vms/web/exec", websocket.MessageText, "rm -rf", "invalid character"},
		{"/v1/vms/web/exec", websocket.MessageText, `{"cmd":["true"]}`, `unknown field "cmd"`},
		{"/v1/run", websocket.MessageText, `{"end":"explode"}`, "want keep, stop or remove"},
		{"/v1/run", websocket.MessageText, `{"vm":{"name":7},"end":"stop"}`, `field "vm.name" wants string`},
	}
	for _, tt := range tests {
		c := r.dial(t, tt.path)
		send(t, c, tt.kind, tt.text)
		if exit := exitFrom(t, c); exit.Error == nil || exit.Error.Kind != api.KindInvalid || !strings.Contains(exit.Error.Message, tt.contains) {
			t.Errorf("%q: %+v, want %q", tt.text, exit.Error, tt.contains)
		}
	}
}

func TestBadMessage(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.vms.exec = echo
	for _, text := range []string{"\x01stdout", "\x07{}", "\xffx"} {
		c := r.dial(t, "/v1/vms/web/exec")
		send(t, c, websocket.MessageText, "{}")
		send(t, c, websocket.MessageBinary, text)
		if exit := exitFrom(t, c); exit.Error == nil || exit.Error.Kind != api.KindInvalid {
			t.Errorf("%q: %+v", text, exit.Error)
		}
	}
	c := r.dial(t, "/v1/vms/web/exec")
	send(t, c, websocket.MessageText, "{}")
	send(t, c, websocket.MessageBinary, "\x00"+strings.Repeat("x", api.MaxPayload+1))
	if _, _, err := c.Read(t.Context()); websocket.CloseStatus(err) != websocket.StatusMessageTooBig {
		t.Errorf("a message that is too long: %v", err)
	}
}

func TestExecErrorAndPanic(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.vms.exec = func(_ context.Context, req api.Exec, _ *stream) error {
		if len(req.Argv) > 0 {
			panic("boom")
		}
		return api.Errorf(api.KindBadState, "cannot exec in vm %q: it is stopped", "web").WithHint("banger vm start web")
	}
	c := r.dial(t, "/v1/vms/web/exec")
	send(t, c, websocket.MessageText, "{}")
	if exit := exitFrom(t, c); exit.Error == nil || exit.Error.Kind != api.KindBadState || exit.Error.Hint == "" {
		t.Errorf("%+v", exit.Error)
	}
	c = r.dial(t, "/v1/vms/web/exec")
	send(t, c, websocket.MessageText, `{"argv":["x"]}`)
	if exit := exitFrom(t, c); exit.Error == nil || exit.Error.Kind != api.KindInternal {
		t.Errorf("%+v", exit.Error)
	}
}

// The lease: Recv tells that the client is gone, though it left input behind
// that nobody took.
func TestClientGone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	ended := make(chan error, 1)
	began := make(chan struct{})
	r.vms.run = func(ctx context.Context, _ api.Run, s *stream) error {
		close(began)
		<-s.done
		for {
			if _, _, err := s.Recv(ctx); err != nil {
				ended <- err
				return err
			}
		}
	}
	c := r.dial(t, "/v1/run")
	send(t, c, websocket.MessageText, `{"end":"remove"}`)
	<-began
	for range 8 { // the whole window of stdin
		send(t, c, websocket.MessageBinary, "\x00"+strings.Repeat("x", api.MaxPayload))
	}
	c.CloseNow()
	select {
	case err := <-ended:
		if !errors.Is(err, io.EOF) {
			t.Errorf("Recv after the client went: %v", err)
		}
	case <-time.After(20 * time.Second):
		t.Fatal("nobody noticed that the client is gone")
	}
}

// A client that sends without end is held up, not stored.
func TestFlood(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	streams := make(chan *stream, 1)
	r.vms.exec = func(ctx context.Context, _ api.Exec, s *stream) error {
		streams <- s
		<-ctx.Done()
		return ctx.Err()
	}
	c := r.dial(t, "/v1/vms/web/exec")
	send(t, c, websocket.MessageText, "{}")
	s := <-streams
	flood, stop := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer stop()
	piece := bytes.Repeat([]byte{0}, api.MaxPayload)
	for c.Write(flood, websocket.MessageBinary, piece) == nil {
	}
	s.mu.Lock()
	queued := s.queued
	s.mu.Unlock()
	if queued == 0 || queued > maxQueue+api.MaxPayload+messageCost {
		t.Errorf("%d bytes are queued, at most %d may", queued, maxQueue)
	}
}

func TestExecEndsWhenTheDaemonLeaves(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	began := make(chan struct{})
	r.vms.exec = func(ctx context.Context, _ api.Exec, s *stream) error {
		close(began)
		_, _, err := s.Recv(ctx)
		return err
	}
	c := r.dial(t, "/v1/vms/web/exec")
	send(t, c, websocket.MessageText, "{}")
	<-began
	r.stop()
	if exit := exitFrom(t, c); exit.Error == nil || exit.Error.Kind != api.KindUnavailable {
		t.Errorf("%+v", exit.Error)
	}
}

func BenchmarkSend(b *testing.B) {
	r := newRig(b)
	r.vms.exec = func(ctx context.Context, _ api.Exec, s *stream) error {
		piece := make([]byte, 64<<10)
		for {
			if err := s.Send(ctx, api.ChannelStdout, piece); err != nil {
				return err
			}
		}
	}
	c, _, err := websocket.Dial(b.Context(), "http://banger/v1/vms/web/exec", &websocket.DialOptions{HTTPClient: r.client})
	if err != nil {
		b.Fatal(err)
	}
	defer c.CloseNow()
	c.SetReadLimit(1 << 20)
	if err := c.Write(b.Context(), websocket.MessageText, []byte("{}")); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(64 << 10)
	buf := make([]byte, 128<<10)
	for b.Loop() {
		_, rd, err := c.Reader(b.Context())
		if err != nil {
			b.Fatal(err)
		}
		for err == nil {
			_, err = rd.Read(buf)
		}
	}
}
