package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// ErrClosed is the error of commands whose connection ended.
var ErrClosed = errors.New("QMP connection is closed")

// Client is one connection. Its methods may be called from several goroutines.
type Client struct {
	conn    net.Conn
	version Version
	done    chan struct{} // closed when the reader ended
	err     error         // why; valid once done is closed

	write sync.Mutex

	mu      sync.Mutex
	nextID  uint64
	waiting map[uint64]chan message
}

// New takes the greeting from conn, negotiates capabilities and starts reading.
// Every event goes to onEvent, one at a time and in order, from the reader's
// goroutine; onEvent must not call the client. The client owns conn from here,
// and closes it when New fails or Close is called. ctx bounds New only.
func New(ctx context.Context, conn net.Conn, onEvent func(Event)) (*Client, error) {
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	r := newReader(conn)
	m, err := readMessage(r)
	if err == nil && m.Greeting == nil {
		err = errors.New("the first line is not a QMP greeting")
	}
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		conn.Close()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("cannot greet QEMU: %w", err)
	}
	c := &Client{
		conn: conn, version: m.Greeting.Version.QEMU,
		done: make(chan struct{}), waiting: map[uint64]chan message{},
	}
	go c.read(r, onEvent)
	if err := c.Execute(ctx, "qmp_capabilities", nil, nil); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Version is QEMU's, from its greeting.
func (c *Client) Version() Version { return c.version }

// Done is closed when the connection ended.
func (c *Client) Done() <-chan struct{} { return c.done }

// Close ends the connection and waits for the reader.
func (c *Client) Close() error {
	err := c.conn.Close()
	<-c.done
	return err
}

func (c *Client) read(r *bufio.Reader, onEvent func(Event)) {
	defer close(c.done)
	defer c.conn.Close()
	for {
		m, err := readMessage(r)
		if err != nil {
			c.err = err
			return
		}
		switch {
		case m.Event != "":
			onEvent(Event{Name: m.Event, Data: m.Data, At: m.at()})
		case m.ID != nil:
			c.mu.Lock()
			reply := c.waiting[*m.ID]
			delete(c.waiting, *m.ID)
			c.mu.Unlock()
			if reply != nil {
				reply <- m // holds one, and only one reply is sent
			}
		}
		// Anything else is a reply to nobody, e.g. an error QEMU could not
		// match to a command: nothing waits for it.
	}
}

// Execute sends one command and waits for its reply, which is decoded into
// result unless that is nil. A refusal is an *Error.
func (c *Client) Execute(ctx context.Context, command string, arguments, result any) error {
	reply := make(chan message, 1)
	c.mu.Lock()
	c.nextID++
	id := c.nextID
	c.waiting[id] = reply
	c.mu.Unlock()
	defer func() {
		c.mu.Lock()
		delete(c.waiting, id)
		c.mu.Unlock()
	}()

	line, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        uint64 `json:"id"`
	}{command, arguments, id})
	if err != nil {
		return fmt.Errorf("cannot encode %s: %w", command, err)
	}
	if err := c.send(ctx, append(line, '\n')); err != nil {
		return fmt.Errorf("cannot send %s: %w", command, err)
	}
	select {
	case m := <-reply:
		return m.result(command, result)
	case <-ctx.Done():
		return fmt.Errorf("cannot wait for %s: %w", command, ctx.Err())
	case <-c.done:
		select { // the reply may have been the last thing said
		case m := <-reply:
			return m.result(command, result)
		default:
			return fmt.Errorf("cannot wait for %s: %w", command, ErrClosed)
		}
	}
}

func (c *Client) send(ctx context.Context, line []byte) error {
	c.write.Lock()
	defer c.write.Unlock()
	if deadline, ok := ctx.Deadline(); ok {
		c.conn.SetWriteDeadline(deadline)
		defer c.conn.SetWriteDeadline(time.Time{})
	}
	_, err := c.conn.Write(line)
	return err
}

func (m message) result(command string, result any) error {
	if m.Error != nil {
		return &Error{Command: command, Class: m.Error.Class, Desc: m.Error.Desc}
	}
	if m.Return == nil {
		return fmt.Errorf("cannot read the reply to %s: neither return nor error", command)
	}
	if result == nil {
		return nil
	}
	if err := json.Unmarshal(m.Return, result); err != nil {
		return fmt.Errorf("cannot read the reply to %s: %w", command, err)
	}
	return nil
}
