package guest

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/bangervm/banger/api"
)

const (
	maxHead      = 16 << 10 // of a request, in bytes
	maxBody      = 64 << 10 // likewise
	headPatience = 30 * time.Second
)

// call is one request and the connection it came on. The agent speaks HTTP/1.1
// with one request a connection, and no more of it than its one client, the host,
// says: net/http would bring TLS with it, whose start-up every boot of an emulated
// guest pays for (docs/adr/0014).
type call struct {
	conn    net.Conn
	r       *bufio.Reader // what follows the head
	method  string
	path    string
	upgrade string
	length  int64 // of the body
}

// readCall reads a request's head. An error of kind invalid can be answered.
func readCall(conn net.Conn) (*call, error) {
	c := &call{conn: conn, r: bufio.NewReaderSize(conn, 4096)}
	left := maxHead
	line, err := c.line(&left)
	if err != nil {
		return c, err
	}
	words := strings.Split(line, " ")
	if len(words) != 3 || !strings.HasPrefix(words[2], "HTTP/1.") {
		return c, api.Errorf(api.KindInvalid, "cannot read the request: %.100q is no request of HTTP/1", line)
	}
	c.method, c.path = words[0], words[1]
	for {
		if line, err = c.line(&left); err != nil || line == "" {
			return c, err
		}
		key, value, ok := strings.Cut(line, ":")
		if !ok {
			return c, api.Errorf(api.KindInvalid, "cannot read the request: %.100q is no header", line)
		}
		value = strings.TrimSpace(value)
		switch {
		case strings.EqualFold(key, "Upgrade"):
			c.upgrade = value
		case strings.EqualFold(key, "Transfer-Encoding"):
			return c, api.Errorf(api.KindInvalid, "cannot read the request: its body has no Content-Length")
		case strings.EqualFold(key, "Content-Length"):
			if c.length, err = strconv.ParseInt(value, 10, 64); err != nil || c.length < 0 || c.length > maxBody {
				return c, api.Errorf(api.KindInvalid, "cannot read the request: a body of %.20q bytes, at most %d are taken", value, maxBody)
			}
		}
	}
}

// line reads one line of the head, which may have so many bytes left.
func (c *call) line(left *int) (string, error) {
	var long []byte
	for {
		part, err := c.r.ReadSlice('\n')
		if *left -= len(part); *left < 0 {
			return "", api.Errorf(api.KindInvalid, "cannot read the request: its head exceeds %d bytes", maxHead)
		}
		if err == nil && long == nil {
			return string(bytes.TrimRight(part, "\r\n")), nil
		}
		long = append(long, part...)
		if err == nil {
			return string(bytes.TrimRight(long, "\r\n")), nil
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			return "", err
		}
	}
}

// decode reads the JSON body into v; on an error it has answered.
func (c *call) decode(v any) bool {
	if err := json.NewDecoder(io.LimitReader(c.r, c.length)).Decode(v); err != nil {
		c.replyError(api.Errorf(api.KindInvalid, "cannot read the request: %w", err))
		return false
	}
	return true
}

func (c *call) reply(v any) { c.replyStatus(200, v) }

func (c *call) replyError(err error) {
	e := api.AsError(err)
	c.replyStatus(e.Kind.HTTPStatus(), api.ErrorReply{Error: e})
}

// replyStatus answers; nothing follows on the connection. A nil v is no body.
func (c *call) replyStatus(status int, v any) {
	var body []byte
	if v != nil {
		var err error
		if body, err = json.Marshal(v); err != nil {
			return
		}
	}
	head := fmt.Sprintf("HTTP/1.1 %d -\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n", status, len(body))
	_, _ = c.conn.Write(append([]byte(head), body...)) // a client that is gone wants no answer
}

// Serve answers on l until l fails or the agent is closed.
func (a *Agent) Serve(l net.Listener) error {
	if !a.track(l, false) {
		return nil
	}
	defer a.untrack(l)
	for {
		conn, err := l.Accept()
		switch {
		case err == nil:
		case errors.Is(err, syscall.EMFILE), errors.Is(err, syscall.ENFILE), errors.Is(err, syscall.ECONNABORTED):
			time.Sleep(5 * time.Millisecond) // until commands give some back
			continue
		case a.closed():
			return nil
		default:
			return err
		}
		if !a.track(conn, true) {
			_ = conn.Close()
			return nil
		}
		go func() {
			defer a.conns.Done()
			defer a.untrack(conn)
			defer conn.Close()
			a.serveConn(conn)
		}()
	}
}

// serveConn answers the one request of a connection. In PID 1 a panic would be
// the kernel's, so it ends this connection only.
func (a *Agent) serveConn(conn net.Conn) {
	defer func() {
		if p := recover(); p != nil {
			a.log.Error("a request panicked", "panic", p, "stack", string(debug.Stack()))
		}
	}()
	_ = conn.SetReadDeadline(time.Now().Add(headPatience))
	c, err := readCall(conn)
	if err != nil {
		if api.KindOf(err) == api.KindInvalid {
			c.replyError(err)
		}
		return
	}
	_ = conn.SetReadDeadline(time.Time{})
	if a.opts.Ready != nil {
		select {
		case <-a.opts.Ready:
		case <-a.done:
			return
		}
	}
	if answer := a.routes[c.method+" "+c.path]; answer != nil {
		answer(c)
		return
	}
	c.replyError(api.Errorf(api.KindNotFound, "cannot answer: the agent has no %s %.100q", c.method, c.path))
}

// track keeps what Close is to close; false once the agent is closed. What is
// awaited is counted for Close to wait for: under the lock that Close takes first,
// never while Close waits.
func (a *Agent) track(c io.Closer, awaited bool) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed() {
		return false
	}
	a.open[c] = struct{}{}
	if awaited {
		a.conns.Add(1)
	}
	return true
}

func (a *Agent) untrack(c io.Closer) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.open, c)
}

func (a *Agent) closed() bool {
	select {
	case <-a.done:
		return true
	default:
		return false
	}
}
