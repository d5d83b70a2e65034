package daemon

import (
	"context"
	"errors"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"time"
)

const (
	// failTime is how long a daemon that cannot start goes on saying why, so
	// that the command that started it hears the cause.
	failTime = 2 * time.Second
	// closeTime bounds the end of what was under way: operations, the machines'
	// watchers, the last events.
	closeTime = 20 * time.Second
	// breath is how often the daemon looks whether it has become idle.
	breath = 5 * time.Second
)

// serve answers on ln while build makes the services, and with them until the
// daemon leaves. The func build returns ends what it made.
func serve(s *server, ln net.Listener, build func() (services, func(context.Context) error, error)) error {
	hs := httpServer(s)
	serving := make(chan error, 1)
	go func() { serving <- hs.Serve(ln) }()
	var idle sync.WaitGroup
	idle.Go(func() { restWhenIdle(s) })

	s.log.Info("daemon started", "pid", s.pid, "version", s.info.Version, "build", s.info.Build, "socket", s.layout.DaemonSocket())
	sv, end, err := build()
	if err == nil {
		s.open(sv)
		s.log.Info("daemon ready", "after", time.Since(s.started).Round(time.Millisecond))
		select {
		case <-s.leaving.Done():
		case err = <-serving: // the listener broke
		}
	} else {
		s.fail(err)
		select {
		case <-s.leaving.Done():
		case <-time.After(failTime):
		}
	}

	if errors.Is(err, http.ErrServerClosed) || s.leaving.Err() != nil && errors.Is(err, context.Canceled) {
		err = nil // we were told to leave, if in the middle of the start
	}
	s.log.Info("daemon leaves")
	goodbye, cancel := context.WithTimeout(context.Background(), goodbyeTime)
	shutdown(goodbye, hs, s)
	cancel()
	idle.Wait()
	if end != nil {
		ending, cancel := context.WithTimeout(context.Background(), closeTime)
		defer cancel()
		err = errors.Join(err, end(ending))
	}
	if err == nil {
		s.log.Info("daemon left")
	}
	return err
}

// restWhenIdle gives memory back to the host once after each burst of work.
func restWhenIdle(s *server) {
	tick := time.NewTicker(breath)
	defer tick.Stop()
	var before, rested int64 = 0, -1
	for {
		select {
		case <-tick.C:
		case <-s.leaving.Done():
			return
		}
		now := s.activity()
		if now == before && now != rested {
			debug.FreeOSMemory()
			rested = now
		}
		before = now
	}
}

// activity grows with every request served and every event told.
func (s *server) activity() int64 {
	n := s.served.Load()
	if s.isReady() {
		n += s.events.Last()
	}
	return n
}
