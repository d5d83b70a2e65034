package guestlink_test

import (
	"context"
	"encoding/binary"
	"io"
	"log/slog"
	"net"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/guestlink"
)

// frame is the head of a yamux frame.
func frame(kind byte, flags uint16, stream, length uint32) []byte {
	b := []byte{0, kind}
	b = binary.BigEndian.AppendUint16(b, flags)
	b = binary.BigEndian.AppendUint32(b, stream)
	return binary.BigEndian.AppendUint32(b, length)
}

// A guest that pings, or opens streams, ends its session before it has cost
// anything; one that answers what it is asked keeps it.
func TestMuxHostileSession(t *testing.T) {
	for name, c := range map[string]struct {
		flood []byte
		ends  bool
	}{
		"pings":        {frame(2, 1, 0, 7), true},
		"streams":      {frame(1, 1, 2, 0), true},
		"data stream":  {append(frame(0, 1, 2, 3), "abc"...), true},
		"pongs":        {frame(2, 2, 0, 7), false},
		"stray data":   {append(frame(0, 0, 8, 12), frame(2, 1, 0, 7)...), false}, // looks like a ping, is a body
		"stray window": {frame(1, 0, 8, 1<<20), false},
	} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan struct{})
			end := sync.OnceFunc(func() { close(ended) })
			mux := guestlink.NewMux(func(context.Context) (net.Conn, error) {
				a, b := net.Pipe()
				go func() {
					defer end()
					defer b.Close()
					scan := guestapi.NewLinkScanner(b, 1<<20)
					for {
						kind, nonce, err := scan.Next()
						if err != nil {
							return
						}
						if kind == guestapi.LinkHello {
							_, _ = b.Write(guestapi.LinkRecord(guestapi.LinkEcho, nonce))
						} else {
							_, _ = b.Write(guestapi.LinkRecord(guestapi.LinkReady, nonce))
							break
						}
					}
					for range 5000 {
						if _, err := b.Write(c.flood); err != nil {
							return
						}
					}
					_, _ = io.Copy(io.Discard, b)
				}()
				return a, nil
			}, slog.New(slog.DiscardHandler))
			defer mux.Close()
			before := runtime.NumGoroutine()
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			conn, err := mux.Dial(ctx)
			if err == nil { // it may be too late for a stream already
				defer conn.Close()
			}
			if !c.ends {
				select {
				case <-ended:
					t.Error("the session ended")
				case <-time.After(300 * time.Millisecond):
				}
				return
			}
			select {
			case <-ended:
			case <-time.After(10 * time.Second):
				t.Error("the session goes on")
			}
			if n := runtime.NumGoroutine(); n > before+100 {
				t.Errorf("%d goroutines, %d before", n, before)
			}
		})
	}
}
