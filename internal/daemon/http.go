package daemon

import (
	"context"
	"log/slog"
	"net/http"
	"time"
)

// httpServer bounds what a client can hold on to before a handler sees it.
func httpServer(s *server) *http.Server {
	return &http.Server{
		Handler:           s,
		ReadHeaderTimeout: headerTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

// shutdown ends the serving: no new requests, then the end of those under way,
// the upgraded ones too, as long as ctx allows.
func shutdown(ctx context.Context, hs *http.Server, s *server) {
	s.stop()
	_ = hs.Shutdown(ctx) // ctx may run out; Close ends the rest
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for s.requests.Load() > 0 && ctx.Err() == nil {
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
	_ = hs.Close() // only sockets are left to fail
}
