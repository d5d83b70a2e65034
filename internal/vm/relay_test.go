package vm

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
)

// frozen is the stream of a guest that neither takes nor says anything.
type frozen struct {
	closed chan struct{}
	close  func()
}

func newFrozen() *frozen {
	f := &frozen{closed: make(chan struct{})}
	f.close = sync.OnceFunc(func() { close(f.closed) })
	return f
}

func (f *frozen) Send(byte, []byte) error { <-f.closed; return io.ErrClosedPipe }

func (f *frozen) Recv() (byte, []byte, error) {
	<-f.closed
	return 0, nil, api.Errorf(api.KindUnavailable, "cannot follow the command: the guest link broke before its end")
}

func (f *frozen) Close() error { f.close(); return nil }

// A client that goes away while its stdin is stuck in a guest that takes nothing
// is noticed all the same: what is to become of its VM must not wait for that
// guest.
func TestRelayClientGoneGuestFrozen(t *testing.T) {
	t.Parallel()
	for name, hangup := range map[string]bool{"run": true, "exec": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				c := newClient()
				in := newInbox(t.Context(), c)
				defer in.close()
				l := relay{guest: newFrozen(), client: c, in: in}
				if hangup {
					l.hangup = stuckPatience
				}
				c.in <- frame{api.ChannelStdin, make([]byte, guestapi.MaxFrame)}
				go func() {
					synctest.Wait()
					c.hangup()
				}()
				if _, err := l.run(context.Background()); !errors.Is(err, errClientGone) {
					t.Errorf("got %v", err)
				}
			})
		})
	}
}
