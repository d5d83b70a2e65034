package client

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"syscall"
	"unicode/utf8"

	"github.com/coder/websocket"

	"github.com/bangervm/banger/api"
)

// maxMessage bounds one message of a stream, in bytes: output comes in pieces
// of api.MaxPayload, a progress message holds an operation.
const maxMessage = 1 << 20

// Exec opens a stream for one command in the VM.
func (c *Client) Exec(ctx context.Context, ref string, req api.Exec) (*Stream, error) {
	if err := checkText(req); err != nil {
		return nil, err
	}
	return c.stream(ctx, route("vms", ref, "exec"), req)
}

// checkText refuses what JSON would change on its way: bytes that are not UTF-8.
func checkText(e api.Exec) error {
	for _, s := range slices.Concat(e.Argv, e.Env, []string{e.Workdir, e.User}) {
		if !utf8.ValidString(s) {
			return api.Errorf(api.KindInvalid, "cannot run the command: %+.100q is not UTF-8 text; other bytes can be passed by stdin only", s)
		}
	}
	return nil
}

// Run opens a stream that creates a VM and runs one command in it. Closing the
// stream before the command began leaves nothing.
func (c *Client) Run(ctx context.Context, req api.Run) (*Stream, error) {
	if err := checkText(req.Exec); err != nil {
		return nil, err
	}
	return c.stream(ctx, route("run"), req)
}

// Stream is one command under way. The command gets HUP when the stream closes
// before it ended. Recv belongs to one goroutine; all other methods may be
// called concurrently.
type Stream struct {
	conn   *websocket.Conn
	ctx    context.Context
	cancel context.CancelFunc
	credit credit
	buf    []byte
}

// stream opens a stream and says what it is for. The daemon does nothing before
// it has that message whole, so until then another daemon may be asked.
func (c *Client) stream(ctx context.Context, path string, first any) (*Stream, error) {
	hello, err := json.Marshal(first)
	if err != nil {
		return nil, api.Errorf(api.KindInternal, "cannot encode request: %w", err)
	}
	s, again, err := c.open(ctx, path, hello)
	if again {
		s, _, err = c.open(ctx, path, hello)
	}
	return s, err
}

// open does that once; again says that the daemon went away and has not heard.
func (c *Client) open(ctx context.Context, path string, hello []byte) (_ *Stream, again bool, err error) {
	opts := &websocket.DialOptions{HTTPClient: c.http, HTTPHeader: http.Header{}}
	if c.opts.Build != "" {
		opts.HTTPHeader.Set(HeaderBuild, c.opts.Build)
	}
	conn, resp, err := websocket.Dial(ctx, "http://banger"+path, opts)
	if resp != nil {
		c.noteBuild(resp)
	}
	if err != nil {
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			return nil, false, replyError(resp)
		}
		return nil, lost(ctx, err), transportError(ctx, unwrapDial(err))
	}
	conn.SetReadLimit(maxMessage)
	life, cancel := context.WithCancel(ctx)
	s := &Stream{conn: conn, ctx: life, cancel: cancel, buf: make([]byte, 1+api.MaxPayload)}
	s.credit.init(api.StdinWindow)
	if err := conn.Write(ctx, websocket.MessageText, hello); err != nil {
		broken := s.failure(err)
		s.Close()
		return nil, lost(ctx, err), broken
	}
	return s, false, nil
}

// unwrapDial takes the library's words off an error that net/http gave.
func unwrapDial(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u
	}
	return err
}

func (s *Stream) failure(err error) error {
	if s.ctx.Err() != nil {
		return contextError(s.ctx)
	}
	if errors.Is(err, websocket.ErrMessageTooBig) {
		return api.Errorf(api.KindInternal, "cannot follow the command: the daemon sent a message over %d bytes", maxMessage)
	}
	broken := api.Errorf(api.KindUnavailable, "cannot follow the command: the connection to the daemon broke: %w", err)
	if errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) { // which is all there is to say
		broken = api.Errorf(api.KindUnavailable, "cannot follow the command: the daemon went away")
	}
	return broken.WithHint("banger daemon status")
}

// Close ends the stream at once; a second call does nothing.
func (s *Stream) Close() {
	s.cancel()
	s.conn.CloseNow()
}

// Recv gives the next message; the payload is valid until the next call.
// Credits are taken note of and not given out. After ChannelExit nothing comes.
func (s *Stream) Recv() (api.Channel, []byte, error) {
	for {
		typ, r, err := s.conn.Reader(s.ctx)
		if err != nil {
			return 0, nil, s.failure(err)
		}
		msg, err := s.read(r)
		if err != nil {
			return 0, nil, s.failure(err)
		}
		if typ != websocket.MessageBinary || len(msg) == 0 {
			return 0, nil, api.Errorf(api.KindInternal, "cannot follow the command: the daemon sent a message that is none")
		}
		ch, payload := api.Channel(msg[0]), msg[1:]
		if ch != api.ChannelCredit {
			return ch, payload, nil
		}
		if len(payload) != 4 {
			return 0, nil, api.Errorf(api.KindInternal, "cannot follow the command: a credit of %d bytes", len(payload))
		}
		s.credit.add(int(binary.BigEndian.Uint32(payload)))
	}
}

// read reads one message into the stream's buffer, which grows to maxMessage.
func (s *Stream) read(r io.Reader) ([]byte, error) {
	n := 0
	for {
		if n == len(s.buf) {
			s.buf = append(s.buf, make([]byte, len(s.buf))...)
		}
		m, err := r.Read(s.buf[n:])
		n += m
		if err == io.EOF {
			return s.buf[:n], nil
		}
		if err != nil {
			return nil, err
		}
	}
}

// send sends one message whose first byte is the channel.
func (s *Stream) send(msg []byte) error {
	if err := s.conn.Write(s.ctx, websocket.MessageBinary, msg); err != nil {
		return s.failure(err)
	}
	return nil
}

// Signal sends a signal, named without SIG, to the command's process group.
func (s *Stream) Signal(name string) error {
	return s.send(append([]byte{byte(api.ChannelSignal)}, name...))
}

// Resize tells the command's terminal its size.
func (s *Stream) Resize(rows, cols int) error {
	b, err := json.Marshal(api.Resize{Rows: rows, Cols: cols})
	if err != nil {
		return api.Errorf(api.KindInternal, "cannot encode size: %w", err)
	}
	return s.send(append([]byte{byte(api.ChannelResize)}, b...))
}

// SendStdin copies r to the command's stdin, as its credits allow, and closes
// the stdin at the end of r. It ends early when the stream closes.
func (s *Stream) SendStdin(r io.Reader) error {
	buf := make([]byte, 1+api.MaxPayload)
	buf[0] = byte(api.ChannelStdin)
	for {
		n, err := r.Read(buf[1:])
		for sent := 0; sent < n; {
			m, ok := s.credit.take(s.ctx, n-sent)
			if !ok {
				return contextError(s.ctx)
			}
			// What is sent stays in place behind a channel byte of its own: the
			// byte before it has gone out already.
			buf[sent] = byte(api.ChannelStdin)
			if err := s.send(buf[sent : 1+sent+m]); err != nil {
				return err
			}
			sent += m
		}
		buf[0] = byte(api.ChannelStdin)
		if err == io.EOF {
			return s.send(buf[:1])
		}
		if err != nil {
			return api.Errorf(api.KindInvalid, "cannot read stdin: %w", err)
		}
	}
}

// IO is where a command's streams go. Nil members drop what comes.
type IO struct {
	// Stdin is read once the command runs. When it is an io.Closer, its Close
	// must end a Read under way: it is then called when the command ends and
	// waited for. Else a last Read may outlive Copy.
	Stdin          io.Reader
	Stdout, Stderr io.Writer
	OnProgress     func(api.Operation) // before the command runs
	OnStarted      func(api.Started)
}

// Copy carries the streams until the command ends and closes the Stream. The
// error is banger's failure, also one that came as Exit.Error; how the command
// ended is in Exit.
func (s *Stream) Copy(streams IO) (api.Exit, error) {
	stdin := make(chan error, 1)
	var started bool
	defer func() {
		s.Close()
		if c, ok := streams.Stdin.(io.Closer); ok && started {
			c.Close()
			<-stdin
		}
	}()
	for {
		ch, payload, err := s.Recv()
		if err != nil {
			select {
			case inErr := <-stdin:
				stdin <- inErr
				if inErr != nil && api.KindOf(inErr) == api.KindInvalid {
					return api.Exit{}, inErr
				}
			default:
			}
			return api.Exit{}, err
		}
		switch ch {
		case api.ChannelStdout, api.ChannelStderr:
			w := streams.Stdout
			if ch == api.ChannelStderr {
				w = streams.Stderr
			}
			if w == nil {
				continue
			}
			if _, err := w.Write(payload); err != nil {
				return api.Exit{}, api.Errorf(api.KindInvalid, "cannot write the command's output: %w", err)
			}
		case api.ChannelProgress:
			var op api.Operation
			if err := json.Unmarshal(payload, &op); err != nil {
				return api.Exit{}, api.Errorf(api.KindInternal, "cannot read progress: %w", err)
			}
			if streams.OnProgress != nil {
				streams.OnProgress(op)
			}
		case api.ChannelStarted:
			var st api.Started
			if err := json.Unmarshal(payload, &st); err != nil {
				return api.Exit{}, api.Errorf(api.KindInternal, "cannot read the command's start: %w", err)
			}
			if streams.OnStarted != nil {
				streams.OnStarted(st)
			}
			if streams.Stdin != nil && !started {
				started = true
				go func() {
					err := s.SendStdin(streams.Stdin)
					stdin <- err
					if api.KindOf(err) == api.KindInvalid {
						s.Close() // our own stdin broke: the command must not wait for more
					}
				}()
			}
		case api.ChannelExit:
			var exit api.Exit
			if err := json.Unmarshal(payload, &exit); err != nil {
				return api.Exit{}, api.Errorf(api.KindInternal, "cannot read the command's end: %w", err)
			}
			if exit.Error != nil {
				return exit, exit.Error
			}
			return exit, nil
		}
	}
}

// credit counts bytes that may be sent.
type credit struct {
	mu    sync.Mutex
	bytes int
	more  chan struct{}
}

func (c *credit) init(n int) { c.bytes, c.more = n, make(chan struct{}, 1) }

func (c *credit) add(n int) {
	c.mu.Lock()
	c.bytes += n
	c.mu.Unlock()
	select {
	case c.more <- struct{}{}:
	default:
	}
}

// take waits for credit and takes up to most of it; false when ctx is done.
func (c *credit) take(ctx context.Context, most int) (int, bool) {
	for {
		c.mu.Lock()
		n := min(c.bytes, most)
		c.bytes -= n
		c.mu.Unlock()
		if n > 0 {
			return n, true
		}
		select {
		case <-c.more:
		case <-ctx.Done():
			return 0, false
		}
	}
}
