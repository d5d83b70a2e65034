package vm

import (
	"context"
	"sync"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
)

// inboxLimit is how much of a client's input is kept before the command takes
// it: the window it was granted, and room for signals and resizes.
const inboxLimit = 2 * guestapi.StdinWindow

type frame struct {
	channel api.Channel
	payload []byte
}

// inbox reads a client's frames from the first moment on, so that its going
// away is seen while its VM is still being made. It holds inboxLimit bytes at
// most, then reads on only as they are taken.
type inbox struct {
	stop context.CancelFunc
	done chan struct{} // the reader has ended

	mu     sync.Mutex // leaf
	queue  []frame
	bytes  int
	err    error         // why there will be no more
	arrive chan struct{} // holds one token when something has come
	room   chan struct{} // holds one token when something was taken
	ended  chan struct{} // closed with err
}

// newInbox begins to read; close ends that and waits.
func newInbox(ctx context.Context, client Stream) *inbox {
	ctx, cancel := context.WithCancel(ctx)
	in := &inbox{
		stop: cancel, done: make(chan struct{}),
		arrive: make(chan struct{}, 1), room: make(chan struct{}, 1), ended: make(chan struct{}),
	}
	go func() {
		defer close(in.done)
		in.read(ctx, client)
	}()
	return in
}

func (in *inbox) read(ctx context.Context, client Stream) {
	for {
		ch, payload, err := client.Recv(ctx)
		if err != nil {
			in.fail(err)
			return
		}
		in.mu.Lock()
		in.queue = append(in.queue, frame{ch, append([]byte(nil), payload...)})
		in.bytes += len(payload) + 16
		full := in.bytes > inboxLimit
		in.mu.Unlock()
		token(in.arrive)
		for full {
			select {
			case <-in.room:
			case <-in.ended:
				return
			case <-ctx.Done():
				in.fail(ctx.Err())
				return
			}
			in.mu.Lock()
			full = in.bytes > inboxLimit
			in.mu.Unlock()
		}
	}
}

// fail says that nothing more comes; the first reason counts.
func (in *inbox) fail(err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.err == nil {
		in.err = err
		close(in.ended)
	}
}

// gone is closed when the client is; what it sent before may still be taken.
func (in *inbox) gone() <-chan struct{} { return in.ended }

// pop takes the next frame.
func (in *inbox) pop(ctx context.Context) (api.Channel, []byte, error) {
	for {
		in.mu.Lock()
		if len(in.queue) > 0 {
			f := in.queue[0]
			in.queue[0] = frame{}
			in.queue = in.queue[1:]
			in.bytes -= len(f.payload) + 16
			in.mu.Unlock()
			token(in.room)
			return f.channel, f.payload, nil
		}
		err := in.err
		in.mu.Unlock()
		if err != nil {
			return 0, nil, err
		}
		select {
		case <-in.arrive:
		case <-in.ended:
		case <-ctx.Done():
			return 0, nil, ctx.Err()
		}
	}
}

func (in *inbox) close() {
	in.stop()
	<-in.done
}

func token(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
