package guestlink

import (
	"encoding/binary"
	"errors"
	"net"
)

// Of a yamux frame: version, type, flags, stream, length; a data frame's body
// follows.
const (
	frameHead = 12
	frameData = 0
	framePing = 2
	flagSYN   = 1
)

// guard watches the frames the guest sends and ends the session at one that no
// agent sends: yamux would start a goroutine for each ping, and keep the data of
// streams that nobody accepts.
type guard struct {
	net.Conn
	head []byte // of the frame under way
	body int    // what is still to come of its body
}

func newGuard(conn net.Conn) *guard {
	return &guard{Conn: conn, head: make([]byte, 0, frameHead)}
}

func (g *guard) Read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	if fault := g.check(p[:n]); fault != nil {
		return 0, fault
	}
	return n, err
}

func (g *guard) check(p []byte) error {
	for {
		k := min(g.body, len(p))
		g.body -= k
		p = p[k:]
		if len(p) == 0 {
			return nil
		}
		k = min(frameHead-len(g.head), len(p))
		g.head = append(g.head, p[:k]...)
		p = p[k:]
		if len(g.head) < frameHead {
			return nil
		}
		kind, flags := g.head[1], binary.BigEndian.Uint16(g.head[2:])
		if flags&flagSYN != 0 {
			if kind == framePing {
				return errors.New("the guest sent a ping, which an agent never does")
			}
			return errors.New("the guest opened a stream, which an agent never does")
		}
		if kind == frameData {
			g.body = int(binary.BigEndian.Uint32(g.head[8:]))
		}
		g.head = g.head[:0]
	}
}
