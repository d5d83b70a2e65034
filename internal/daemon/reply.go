package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/bangervm/banger/api"
)

// reply remembers whether anything was sent.
type reply struct {
	http.ResponseWriter
	began bool
}

func (w *reply) WriteHeader(status int) {
	w.began = true
	w.ResponseWriter.WriteHeader(status)
}

func (w *reply) Write(b []byte) (int, error) {
	w.began = true
	return w.ResponseWriter.Write(b)
}

// Unwrap lets http.ResponseController and the WebSocket reach the connection.
func (w *reply) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// refusal catches what the mux itself would answer.
type refusal struct {
	header http.Header
	status int
}

func (r *refusal) Header() http.Header         { return r.header }
func (r *refusal) Write(b []byte) (int, error) { return len(b), nil }
func (r *refusal) WriteHeader(status int)      { r.status = status }

// writeJSON answers with v; a client that does not read it is dropped in time.
func writeJSON(w http.ResponseWriter, status int, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return api.Errorf(api.KindInternal, "cannot write reply: %w", err)
	}
	return writeBody(w, status, "application/json", append(b, '\n'))
}

func writeBody(w http.ResponseWriter, status int, mime string, body []byte) error {
	rc := http.NewResponseController(w)
	_ = rc.SetWriteDeadline(time.Now().Add(bodyTime)) // a writer without deadlines has none to miss
	w.Header().Set("Content-Type", mime)
	w.WriteHeader(status)
	if _, err := w.Write(body); err != nil {
		panic(http.ErrAbortHandler) // the client is gone
	}
	_ = rc.Flush()
	_ = rc.SetWriteDeadline(time.Time{})
	return nil
}

// list is v, or the empty list instead of null.
func list[T any](v []T) []T {
	if v == nil {
		return []T{}
	}
	return v
}

func (s *server) writeError(w http.ResponseWriter, err error) {
	e := s.errorOf(err)
	s.writeErrorStatus(w, e.Kind.HTTPStatus(), e)
}

// writeErrorStatus answers with an error. When part of another reply is out
// already, the connection is cut instead, so that the client cannot take the
// part for the whole.
func (s *server) writeErrorStatus(w http.ResponseWriter, status int, e *api.Error) {
	if r := replyOf(w); r != nil && r.began {
		panic(http.ErrAbortHandler)
	}
	if err := writeJSON(w, status, api.ErrorReply{Error: e}); err != nil {
		s.log.Error("cannot write an error reply", "error", err)
	}
}

func replyOf(w http.ResponseWriter) *reply {
	r, _ := w.(*reply)
	return r
}

// errorOf gives an error as the client shall see it. An internal one goes to
// the log too: its reader is the operator.
func (s *server) errorOf(err error) *api.Error {
	var known *api.Error
	if !errors.As(err, &known) {
		switch {
		case errors.Is(err, context.DeadlineExceeded):
			return api.Errorf(api.KindTimeout, "%w", err)
		case errors.Is(err, context.Canceled):
			return api.Errorf(api.KindCancelled, "%w", err)
		}
	}
	e := api.AsError(err)
	if e.Kind == api.KindInternal {
		s.log.Error("a request failed", "error", err)
	}
	return e
}
