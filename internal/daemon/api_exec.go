package daemon

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"

	"github.com/coder/websocket"

	"github.com/bangervm/banger/api"
)

func (s *server) execVM(w http.ResponseWriter, r *http.Request) error {
	ref := r.PathValue("vm")
	return serveStream(s, w, r, func(ctx context.Context, req api.Exec, st *stream) error {
		return s.vms.Exec(ctx, ref, req, st)
	})
}

func (s *server) run(w http.ResponseWriter, r *http.Request) error {
	return serveStream(s, w, r, func(ctx context.Context, req api.Run, st *stream) error {
		switch req.End {
		case "", api.EndKeep, api.EndStop, api.EndRemove:
			return s.vms.Run(ctx, req, st)
		}
		return api.Errorf(api.KindInvalid, "cannot run: end is %q, want keep, stop or remove", clip(req.End))
	})
}

// serveStream makes a WebSocket of the request, reads the first message and
// hands the rest to do. What do returns reaches the client as the exit.
func serveStream[T any](s *server, w http.ResponseWriter, r *http.Request, do func(context.Context, T, *stream) error) error {
	if !wantsWebSocket(r) {
		w.Header().Set("Upgrade", "websocket")
		w.Header().Set("Connection", "Upgrade")
		s.writeErrorStatus(w, http.StatusUpgradeRequired, api.Errorf(api.KindInvalid, "cannot serve %s: it speaks WebSocket only", r.URL.Path))
		return nil
	}
	conn, err := websocket.Accept(w, r, &websocket.AcceptOptions{CompressionMode: websocket.CompressionDisabled})
	if err != nil {
		return nil // Accept has answered
	}
	defer conn.CloseNow()
	ctx, cancel := s.following(r)
	defer cancel()

	conn.SetReadLimit(maxBody)
	req, err := firstMessage[T](ctx, conn)
	if errors.Is(err, io.EOF) {
		return nil
	}
	// Neither the client's going nor the daemon's ends the reading: what a lost
	// lease means is the VM room's to say, which hears of it by Recv, and a
	// leaving daemon still says goodbye.
	reading, endReading := context.WithCancel(context.WithoutCancel(ctx))
	st := newStream(reading, conn)
	defer func() { endReading(); <-st.done }()
	if err == nil {
		err = guarded(s, r, func() error { return do(ctx, req, st) })
	}
	if err != nil {
		last, stop := context.WithTimeout(reading, bodyTime)
		defer stop()
		if st.sendExit(last, s.errorOf(causeOf(ctx, err))) != nil {
			return nil // the client is gone
		}
	}
	_ = conn.Close(websocket.StatusNormalClosure, "") // the client may have closed first
	return nil
}

// guarded turns a panic into an error: the reply's connection is a WebSocket
// already, so ServeHTTP could not answer.
func guarded(s *server, r *http.Request, do func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			s.logPanic(r, v)
			err = errPanic(s, r)
		}
	}()
	return do()
}

// firstMessage reads the request of a WebSocket: one text message of JSON, as
// strict as a body. io.EOF means that the client left.
func firstMessage[T any](ctx context.Context, conn *websocket.Conn) (T, error) {
	var zero T
	timed, cancel := context.WithTimeoutCause(ctx, firstTime,
		api.Errorf(api.KindTimeout, "cannot read first message: it did not come within %s", firstTime))
	defer cancel()
	kind, b, err := conn.Read(timed)
	if err != nil {
		return zero, goneError(timed, err)
	}
	return parseFirst[T](kind == websocket.MessageText, b)
}

func parseFirst[T any](text bool, b []byte) (T, error) {
	var v T
	if !text {
		return v, api.Errorf(api.KindInvalid, "cannot read first message: want JSON as a text message")
	}
	if err := decodeJSON(b, &v); err != nil {
		return v, api.Errorf(api.KindInvalid, "cannot read first message: %w", err)
	}
	return v, nil
}

func wantsWebSocket(r *http.Request) bool {
	return hasToken(r.Header, "Connection", "upgrade") && hasToken(r.Header, "Upgrade", "websocket") &&
		r.Header.Get("Sec-Websocket-Version") == "13" && r.Header.Get("Sec-Websocket-Key") != ""
}

func hasToken(h http.Header, key, want string) bool {
	for _, line := range h.Values(key) {
		for word := range strings.SplitSeq(line, ",") {
			if strings.EqualFold(strings.TrimSpace(word), want) {
				return true
			}
		}
	}
	return false
}
