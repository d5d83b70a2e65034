package network

import (
	"context"
	"net"
	"time"

	"golang.org/x/time/rate"
)

// minRate is the least number of bytes a second: the largest packet fits in.
const minRate = 64 << 10

// meter bounds one direction of what the guest's flows carry over the host's
// sockets; nil bounds nothing. What a second allows may come at once. Who waits
// has not taken the next bytes, so a sender of TCP is told to wait, and nothing
// stands in a queue of ours before the words of another flow. What the keeper
// sends to its own guest does not pass here: it takes nothing of the host's network.
type meter struct {
	limit *rate.Limiter
	chunk int
}

func newMeter(bytesPerSecond int64) *meter {
	if bytesPerSecond == 0 {
		return nil
	}
	return &meter{rate.NewLimiter(rate.Limit(bytesPerSecond), int(bytesPerSecond)), chunkOf(bytesPerSecond)}
}

// maxChunk is how much of a connection is copied at once.
const maxChunk = 64 << 10

// chunkOf is how much one connection takes at a time: what 20 ms allow, so that
// others, and names, have their turn soon.
func chunkOf(bytesPerSecond int64) int {
	const perSecond = int64(time.Second / (20 * time.Millisecond))
	return int(min(max(bytesPerSecond/perSecond, 1<<10), maxChunk))
}

// buffer is for what is copied through the meter.
func (m *meter) buffer() []byte {
	if m == nil {
		return make([]byte, maxChunk)
	}
	return make([]byte, m.chunk)
}

// wait returns when n bytes may pass, at most minRate of them; an error says that
// ctx ended first. All who wait are served in the order they came.
func (m *meter) wait(ctx context.Context, n int) error {
	if m == nil {
		return nil
	}
	return m.limit.WaitN(ctx, n)
}

// metered is a connection that takes what is written to it as the meter allows.
type metered struct {
	net.Conn
	meter *meter
	ctx   context.Context // ends with the network
}

func (w metered) Write(p []byte) (int, error) {
	if err := w.meter.wait(w.ctx, len(p)); err != nil {
		return 0, err
	}
	return w.Conn.Write(p)
}
