package guest

import (
	"context"
	"crypto/subtle"
	"io"
	"net"
	"sync"
	"time"
)

const (
	tokenPatience = 5 * time.Second
	tokenLength   = 64
	// maxStrangers is how many connections may be waiting for their token.
	maxStrangers = 32
)

// bulkListener hands on connections that begin with the token and closes the
// others.
type bulkListener struct {
	net.Listener
	token  string
	ctx    context.Context
	cancel context.CancelFunc
	admit  chan net.Conn
	wg     sync.WaitGroup
}

// newBulkListener takes l over. A token of another length admits nobody.
func newBulkListener(l net.Listener, token string) *bulkListener {
	b := &bulkListener{Listener: l, token: token, admit: make(chan net.Conn)}
	b.ctx, b.cancel = context.WithCancel(context.Background())
	b.wg.Go(b.listen)
	return b
}

func (b *bulkListener) listen() {
	strangers := make(chan struct{}, maxStrangers)
	for {
		conn, err := b.Listener.Accept()
		if err != nil {
			if b.ctx.Err() != nil {
				return
			}
			select {
			case <-time.After(100 * time.Millisecond):
			case <-b.ctx.Done():
			}
			continue
		}
		select {
		case strangers <- struct{}{}:
		default:
			_ = conn.Close()
			continue
		}
		b.wg.Go(func() {
			ok := b.known(conn)
			<-strangers
			if !ok {
				_ = conn.Close()
				return
			}
			select {
			case b.admit <- conn:
			case <-b.ctx.Done():
				_ = conn.Close()
			}
		})
	}
}

func (b *bulkListener) known(conn net.Conn) bool {
	defer context.AfterFunc(b.ctx, func() { _ = conn.Close() })()
	_ = conn.SetReadDeadline(time.Now().Add(tokenPatience))
	var got [tokenLength]byte
	if _, err := io.ReadFull(conn, got[:]); err != nil {
		return false
	}
	_ = conn.SetReadDeadline(time.Time{})
	return len(b.token) == tokenLength && subtle.ConstantTimeCompare(got[:], []byte(b.token)) == 1
}

// Accept gives the next admitted connection.
func (b *bulkListener) Accept() (net.Conn, error) {
	select {
	case conn := <-b.admit:
		return conn, nil
	case <-b.ctx.Done():
		return nil, net.ErrClosed
	}
}

// Close ends the listener and those who wait to be admitted.
func (b *bulkListener) Close() error {
	b.cancel()
	err := b.Listener.Close()
	b.wg.Wait()
	return err
}
