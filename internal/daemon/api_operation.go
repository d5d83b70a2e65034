package daemon

import (
	"net/http"

	"github.com/bangervm/banger/api"
)

func (s *server) listOperations(w http.ResponseWriter, r *http.Request) error {
	ops, err := s.operations.List(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list(ops))
}

func (s *server) showOperation(w http.ResponseWriter, r *http.Request) error {
	op, err := s.operations.Get(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, op)
}

type waitQuery struct {
	TimeoutMS int64 `query:"timeout_ms" doc:"0 waits for ever"`
}

// waitOperation answers with the ended operation. A wait that runs out leaves
// the operation running.
func (s *server) waitOperation(w http.ResponseWriter, r *http.Request) error {
	q, err := decodeQuery[waitQuery](r)
	if err != nil {
		return err
	}
	ctx, cancel := s.waiting(r, q.TimeoutMS)
	defer cancel()
	id := r.PathValue("id")
	op, err := s.operations.Wait(ctx, id)
	if timedOut(ctx, err) {
		e := api.Errorf(api.KindTimeout, "cannot wait for operation %s: it still runs after %s", clip(id), milliseconds(q.TimeoutMS)).
			WithHint("banger operation wait %s", clip(id))
		e.OperationID = id
		return e
	}
	if err != nil {
		return causeOf(ctx, err)
	}
	return writeJSON(w, http.StatusOK, op)
}

func (s *server) watchOperation(w http.ResponseWriter, r *http.Request) error {
	ctx, cancel := s.following(r)
	defer cancel()
	changes, err := s.operations.Watch(ctx, r.PathValue("id"))
	if err != nil {
		return causeOf(ctx, err)
	}
	events := startEvents(w)
	for {
		select {
		case op, more := <-changes:
			if !more {
				return nil
			}
			if err := events.send("", op); err != nil {
				return nil // the client is gone
			}
		case <-events.quiet.C:
			if err := events.comment(); err != nil {
				return nil
			}
		case <-ctx.Done():
			return nil
		}
	}
}

func (s *server) cancelOperation(w http.ResponseWriter, r *http.Request) error {
	op, err := s.operations.Cancel(r.Context(), r.PathValue("id"))
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, op)
}

func (s *server) pruneOperations(w http.ResponseWriter, r *http.Request) error {
	ops, err := s.operations.Prune(r.Context())
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list(ops))
}
