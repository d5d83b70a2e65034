package daemon

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"sync"

	"github.com/coder/websocket"

	"github.com/bangervm/banger/api"
)

// maxQueue is how many bytes from the client wait for the VM room at most. A
// client that keeps to its credits never fills it, so its going away is noticed
// at once even while nobody takes its input.
const maxQueue = 2 * api.StdinWindow

// messageCost is what one queued message counts beside its payload.
const messageCost = 64

type message struct {
	channel api.Channel
	payload []byte
}

// stream is the messages of one exec or run after the first. Recv has one
// caller at a time, Send any number. Its reader ends with the connection.
type stream struct {
	conn *websocket.Conn

	mu     sync.Mutex
	queue  []message
	queued int
	err    error // why no more will come, once the queue is empty

	arrived chan struct{} // holds a token when the queue or err changed
	taken   chan struct{} // holds a token when the queue shrank
	done    chan struct{} // closed when the reader has ended

	sendMu sync.Mutex
	buf    []byte
}

// newStream reads from conn until it or ctx ends; the end of ctx closes conn.
func newStream(ctx context.Context, conn *websocket.Conn) *stream {
	s := &stream{conn: conn, arrived: make(chan struct{}, 1), taken: make(chan struct{}, 1), done: make(chan struct{})}
	conn.SetReadLimit(api.MaxPayload + 1)
	go func() {
		defer close(s.done)
		s.read(ctx)
	}()
	return s
}

func (s *stream) read(ctx context.Context) {
	buf := make([]byte, 0, 4096)
	for {
		m, err := receive(ctx, s.conn, &buf)
		s.mu.Lock()
		if err != nil {
			s.err = err
		} else {
			s.queue = append(s.queue, m)
			s.queued += len(m.payload) + messageCost
		}
		full := s.queued > maxQueue
		s.mu.Unlock()
		token(s.arrived)
		if err != nil {
			return
		}
		for full {
			select {
			case <-s.taken:
			case <-ctx.Done():
				s.mu.Lock()
				s.err = context.Cause(ctx)
				s.mu.Unlock()
				token(s.arrived)
				return
			}
			s.mu.Lock()
			full = s.queued > maxQueue
			s.mu.Unlock()
		}
	}
}

// receive reads one message into buf, which it may grow, and copies it out.
func receive(ctx context.Context, conn *websocket.Conn, buf *[]byte) (message, error) {
	kind, r, err := conn.Reader(ctx)
	if err != nil {
		return message{}, goneError(ctx, err)
	}
	b := bytes.NewBuffer((*buf)[:0])
	if _, err := b.ReadFrom(r); err != nil {
		return message{}, goneError(ctx, err)
	}
	*buf = b.Bytes()
	return parseMessage(kind == websocket.MessageBinary, b.Bytes())
}

// parseMessage checks one message of a client and copies its payload.
func parseMessage(binary bool, b []byte) (message, error) {
	if !binary || len(b) == 0 {
		return message{}, api.Errorf(api.KindInvalid, "cannot read message: want a binary one that begins with its channel")
	}
	m := message{channel: api.Channel(b[0]), payload: bytes.Clone(b[1:])}
	switch m.channel {
	case api.ChannelStdin, api.ChannelSignal, api.ChannelResize:
		return m, nil
	}
	return message{}, api.Errorf(api.KindInvalid, "cannot read message: channel %d is not for clients to send on", m.channel)
}

// goneError is io.EOF for a client that went away, however it did; a message
// that is too long, and our own leaving, keep their reason.
func goneError(ctx context.Context, err error) error {
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	if errors.Is(err, websocket.ErrMessageTooBig) {
		return api.Errorf(api.KindInvalid, "cannot read message: it is longer than %d bytes", api.MaxPayload)
	}
	return io.EOF
}

func token(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Recv gives the client's next message. io.EOF says that the client is gone.
func (s *stream) Recv(ctx context.Context) (api.Channel, []byte, error) {
	for {
		s.mu.Lock()
		if len(s.queue) > 0 {
			m := s.queue[0]
			s.queue[0] = message{}
			s.queue = s.queue[1:]
			s.queued -= len(m.payload) + messageCost
			s.mu.Unlock()
			token(s.taken)
			return m.channel, m.payload, nil
		}
		err := s.err
		s.mu.Unlock()
		if err != nil {
			return 0, nil, err
		}
		select {
		case <-s.arrived:
		case <-ctx.Done():
			return 0, nil, context.Cause(ctx)
		}
	}
}

// Send writes one message to the client, waiting for it to take it. The payload
// may be used again once Send returns.
func (s *stream) Send(ctx context.Context, c api.Channel, payload []byte) error {
	s.sendMu.Lock()
	defer s.sendMu.Unlock()
	s.buf = append(append(s.buf[:0], byte(c)), payload...)
	if err := s.conn.Write(ctx, websocket.MessageBinary, s.buf); err != nil {
		if cause := context.Cause(ctx); cause != nil {
			return cause
		}
		return api.Errorf(api.KindCancelled, "cannot send to the client: it is gone: %w", err)
	}
	return nil
}

// sendExit tells the client how it ended when banger itself failed.
func (s *stream) sendExit(ctx context.Context, e *api.Error) error {
	b, err := json.Marshal(api.Exit{Error: e})
	if err != nil {
		return err
	}
	return s.Send(ctx, api.ChannelExit, b)
}
