package daemon

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strings"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/layout"
)

// listen opens the daemon's socket, 0600 in its 0700 folder. The caller holds
// the lock, so a socket that is there is a dead daemon's.
func listen(l layout.Layout) (net.Listener, error) {
	path := l.DaemonSocket()
	if fi, err := os.Lstat(path); err == nil {
		if fi.Mode().Type() != fs.ModeSocket {
			return nil, api.Errorf(api.KindDenied, "cannot listen on %s: something else than a socket lies there", path)
		}
		if err := os.Remove(path); err != nil {
			return nil, api.Errorf(fileKind(err), "cannot remove the stale socket: %w", err)
		}
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, api.Errorf(fileKind(err), "cannot listen: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		ln.Close()
		return nil, api.Errorf(fileKind(err), "cannot close the socket to others: %w", err)
	}
	return jsonListener{ln}, nil
}

// jsonListener gives connections on which net/http's own refusals, of bytes that
// are no request, are ErrorReplies like all others.
type jsonListener struct{ net.Listener }

func (l jsonListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &jsonConn{Conn: c}, nil
}

type jsonConn struct{ net.Conn }

// plainHead ends the head net/http writes, in one Write of its own, when it
// refuses a request before any handler sees it. No handler of ours sends it.
const plainHead = "\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n"

func (c *jsonConn) Write(b []byte) (int, error) {
	if len(b) > 4096 || !bytes.HasPrefix(b, []byte("HTTP/1.1 ")) {
		return c.Conn.Write(b)
	}
	head, text, found := strings.Cut(string(b), plainHead)
	if !found || strings.Contains(head, "\r\n") {
		return c.Conn.Write(b)
	}
	if _, err := c.Conn.Write(refuse(head, text)); err != nil {
		return 0, err
	}
	return len(b), nil
}

// refuse is net/http's refusal in our form.
func refuse(statusLine, text string) []byte {
	kind := api.KindInvalid
	if strings.Contains(statusLine, fmt.Sprint(http.StatusNotImplemented)) {
		kind = api.KindUnsupported
	}
	body, err := json.Marshal(api.ErrorReply{Error: api.Errorf(kind, "cannot read request: %s", strings.ToLower(text))})
	if err != nil {
		panic(err) // strings only
	}
	return fmt.Appendf(nil, "%s\r\nContent-Type: application/json\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s\n", statusLine, len(body)+1, body)
}
