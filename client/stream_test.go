package client

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/coder/websocket"
	"github.com/google/go-cmp/cmp"

	"github.com/bangervm/banger/api"
)

// peer is the daemon's end of a stream in a test.
type peer struct {
	t    testing.TB
	conn *websocket.Conn
}

func (p peer) send(ch api.Channel, payload []byte) error {
	return p.conn.Write(context.Background(), websocket.MessageBinary, append([]byte{byte(ch)}, payload...))
}

func (p peer) json(ch api.Channel, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		p.t.Error(err)
	}
	return p.send(ch, b)
}

func (p peer) recv() (api.Channel, []byte, error) {
	_, b, err := p.conn.Read(context.Background())
	if err != nil || len(b) == 0 {
		return 0, nil, err
	}
	return api.Channel(b[0]), b[1:], nil
}

// streams serves exec with fn and opens one stream to it.
func streams(t testing.TB, fn func(p peer, req api.Exec)) *Stream {
	t.Helper()
	c := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := websocket.Accept(w, r, nil)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.CloseNow()
		conn.SetReadLimit(1 << 20)
		typ, first, err := conn.Read(r.Context())
		var req api.Exec
		if err != nil || typ != websocket.MessageText || json.Unmarshal(first, &req) != nil {
			t.Errorf("first message: %v %v %q", err, typ, first)
		}
		fn(peer{t, conn}, req)
	}))
	s, err := c.Exec(context.Background(), "web", api.Exec{Argv: []string{"cat"}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// TestCredits echoes 8 MiB through a command that takes its input in small
// credits, and sees that the client never has more under way than it may.
func TestCredits(t *testing.T) {
	t.Parallel()
	s := streams(t, func(p peer, req api.Exec) {
		if diff := cmp.Diff([]string{"cat"}, req.Argv); diff != "" {
			t.Error(diff)
		}
		p.json(api.ChannelStarted, api.Started{VM: "v", PID: 3})
		window := api.StdinWindow
		for {
			ch, b, err := p.recv()
			if err != nil || ch != api.ChannelStdin {
				t.Errorf("channel %d, %v", ch, err)
				return
			}
			if len(b) == 0 {
				p.send(api.ChannelStderr, []byte("end"))
				p.json(api.ChannelExit, api.Exit{Code: 7})
				p.recv()
				return
			}
			if window -= len(b); window < 0 {
				t.Errorf("%d bytes too many", -window)
				return
			}
			p.send(api.ChannelStdout, b)
			if window < 1000 { // late, and not in step with the messages
				window += 300_001
				p.send(api.ChannelCredit, binary.BigEndian.AppendUint32(nil, 300_001))
			}
		}
	})
	in := bytes.Repeat([]byte("0123456789abcdef"), 8<<20/16)
	var out, errs bytes.Buffer
	var started api.Started
	exit, err := s.Copy(IO{Stdin: bytes.NewReader(in), Stdout: &out, Stderr: &errs, OnStarted: func(s api.Started) { started = s }})
	if err != nil || exit.Code != 7 || errs.String() != "end" || started.PID != 3 {
		t.Errorf("error %v, exit %+v, stderr %q, started %+v", err, exit, errs.String(), started)
	}
	if !bytes.Equal(in, out.Bytes()) {
		t.Errorf("%d bytes came back of %d, or others", out.Len(), len(in))
	}
}

// TestEndsBeforeStdin sees that a command's end ends Copy though its stdin
// stays open, and that a closer is closed.
func TestEndsBeforeStdin(t *testing.T) {
	t.Parallel()
	s := streams(t, func(p peer, _ api.Exec) {
		p.json(api.ChannelStarted, api.Started{})
		p.json(api.ChannelExit, api.Exit{Code: 0})
		p.recv()
	})
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := s.Copy(IO{Stdin: r}); err != nil {
		t.Error(err)
	}
	if _, err := r.Read(make([]byte, 1)); !errors.Is(err, os.ErrClosed) {
		t.Errorf("stdin is open: %v", err)
	}
}

func TestStreamFailures(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		fn   func(p peer, _ api.Exec)
		want api.Kind
	}{
		{"banger's own", func(p peer, _ api.Exec) {
			p.json(api.ChannelProgress, api.Operation{ID: "o"})
			p.json(api.ChannelExit, api.Exit{Error: api.Errorf(api.KindNoSpace, "full")})
			p.recv()
		}, api.KindNoSpace},
		{"cut", func(p peer, _ api.Exec) { p.json(api.ChannelStarted, api.Started{}) }, api.KindUnavailable},
		{"too large", func(p peer, _ api.Exec) { p.send(api.ChannelStdout, make([]byte, maxMessage+1)) }, api.KindInternal},
		{"text", func(p peer, _ api.Exec) {
			p.conn.Write(context.Background(), websocket.MessageText, []byte("hi"))
			p.recv()
		}, api.KindInternal},
		{"empty", func(p peer, _ api.Exec) {
			p.conn.Write(context.Background(), websocket.MessageBinary, nil)
			p.recv()
		}, api.KindInternal},
		{"bad credit", func(p peer, _ api.Exec) { p.send(api.ChannelCredit, []byte{1}); p.recv() }, api.KindInternal},
		{"bad exit", func(p peer, _ api.Exec) { p.send(api.ChannelExit, []byte("{")); p.recv() }, api.KindInternal},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, err := streams(t, tt.fn).Copy(IO{Stdin: strings.NewReader(""), Stdout: io.Discard})
			if api.KindOf(err) != tt.want {
				t.Errorf("error %v of kind %q, want %q", err, api.KindOf(err), tt.want)
			}
		})
	}
}

// TestUnknownChannel: a daemon of tomorrow may say more.
func TestUnknownChannel(t *testing.T) {
	t.Parallel()
	s := streams(t, func(p peer, _ api.Exec) {
		p.send(99, []byte("x"))
		p.json(api.ChannelExit, api.Exit{Code: 3})
		p.recv()
	})
	if exit, err := s.Copy(IO{}); err != nil || exit.Code != 3 {
		t.Errorf("exit %+v, error %v", exit, err)
	}
}

func TestSignalAndResize(t *testing.T) {
	t.Parallel()
	got := make(chan string, 2)
	s := streams(t, func(p peer, _ api.Exec) {
		for range 2 {
			ch, b, _ := p.recv()
			got <- string(rune('0'+ch)) + string(b)
		}
	})
	if err := errors.Join(s.Signal("USR1"), s.Resize(50, 100)); err != nil {
		t.Fatal(err)
	}
	if a, b := <-got, <-got; a != "3USR1" || b != `4{"rows":50,"cols":100}` {
		t.Errorf("got %q and %q", a, b)
	}
}

// brokenReader is a stdin that fails.
type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("gone") }

func TestBrokenStdinEndsTheCommand(t *testing.T) {
	t.Parallel()
	s := streams(t, func(p peer, _ api.Exec) {
		p.json(api.ChannelStarted, api.Started{})
		p.recv()
	})
	if _, err := s.Copy(IO{Stdin: brokenReader{}}); api.KindOf(err) != api.KindInvalid {
		t.Errorf("error %v", err)
	}
}

// BenchmarkStdout carries 64 KiB messages out, as `vm exec -- cat` does.
func BenchmarkStdout(b *testing.B) {
	const size = 64 << 10
	s := streams(b, func(p peer, _ api.Exec) {
		msg := append([]byte{byte(api.ChannelStdout)}, make([]byte, size)...)
		for range b.N {
			if p.conn.Write(context.Background(), websocket.MessageBinary, msg) != nil {
				return
			}
		}
		p.json(api.ChannelExit, api.Exit{})
		p.recv()
	})
	b.SetBytes(size)
	if _, err := s.Copy(IO{Stdout: io.Discard}); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkStdin carries stdin with credits in time.
func BenchmarkStdin(b *testing.B) {
	s := streams(b, func(p peer, _ api.Exec) {
		p.json(api.ChannelStarted, api.Started{})
		for {
			_, m, err := p.recv()
			if err != nil {
				return
			}
			if len(m) == 0 {
				p.json(api.ChannelExit, api.Exit{})
				p.recv()
				return
			}
			p.send(api.ChannelCredit, binary.BigEndian.AppendUint32(nil, uint32(len(m))))
		}
	})
	b.SetBytes(64 << 10)
	if _, err := s.Copy(IO{Stdin: io.LimitReader(zeros{}, int64(b.N)*64<<10)}); err != nil {
		b.Fatal(err)
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

// Bytes that JSON would replace are refused, before anything is asked.
func TestExecRefusesOtherBytes(t *testing.T) {
	t.Parallel()
	c := New(Options{Socket: "/nonexistent"})
	for _, e := range []api.Exec{{Argv: []string{"cat", "a\xffb"}}, {Env: []string{"A=\xff"}}, {Workdir: "/\xff"}, {User: "\xff"}} {
		if _, err := c.Exec(t.Context(), "web", e); api.KindOf(err) != api.KindInvalid {
			t.Errorf("exec %+v: %v", e, err)
		}
		if _, err := c.Run(t.Context(), api.Run{Exec: e}); api.KindOf(err) != api.KindInvalid {
			t.Errorf("run %+v: %v", e, err)
		}
	}
}
