package keeper

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/vmm"
)

// maxBody bounds requests, in bytes.
const maxBody = 64 << 10

// resizeRequest is the body of POST /v1/resize.
type resizeRequest struct {
	Serial string `json:"serial"`
	Bytes  int64  `json:"bytes"`
}

// routes is the keeper's API, for daemons of any age: fields are only added.
func (k *keeper) routes() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/state", k.getState)
	mux.HandleFunc("GET /v1/watch", k.getWatch)
	mux.HandleFunc("POST /v1/power-button", k.verb("press the power button", vmm.Machine.PowerButton))
	mux.HandleFunc("POST /v1/pause", k.verb("pause", k.pause))
	mux.HandleFunc("POST /v1/resume", k.verb("resume", k.resume))
	mux.HandleFunc("POST /v1/kill", k.postKill)
	mux.HandleFunc("POST /v1/resize", k.postResize)
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		replyError(w, api.Errorf(api.KindNotFound, "cannot answer: a keeper has no %s %.100q", r.Method, r.URL.Path))
	})
	return mux
}

func (k *keeper) getState(w http.ResponseWriter, _ *http.Request) {
	s, _ := k.board.read()
	reply(w, s)
}

// getWatch sends the state now and at each change, and ends with the keeper.
func (k *keeper) getWatch(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/jsonl")
	rc := http.NewResponseController(w)
	enc := json.NewEncoder(w)
	for {
		s, changed := k.board.read()
		rc.SetWriteDeadline(time.Now().Add(10 * time.Second))
		if enc.Encode(s) != nil || rc.Flush() != nil {
			return
		}
		select {
		case <-changed:
		case <-k.leaving:
			return
		case <-r.Context().Done():
			return
		}
	}
}

// verb answers a request without a body.
func (k *keeper) verb(what string, do func(vmm.Machine, context.Context) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		m, err := k.running(what)
		if err == nil {
			err = do(m, r.Context())
		}
		done(w, err)
	}
}

func (k *keeper) pause(m vmm.Machine, ctx context.Context) error {
	err := m.Pause(ctx)
	if err == nil {
		k.board.update(func(s *State) { s.Paused = true })
	}
	return err
}

func (k *keeper) resume(m vmm.Machine, ctx context.Context) error {
	err := m.Resume(ctx)
	if err == nil {
		k.board.update(func(s *State) { s.Paused = false })
		select {
		case k.resumed <- struct{}{}:
		default:
		}
	}
	return err
}

// postKill answers at once; the end follows. It works in every phase.
func (k *keeper) postKill(w http.ResponseWriter, _ *http.Request) {
	k.cancel()
	done(w, nil)
}

func (k *keeper) postResize(w http.ResponseWriter, r *http.Request) {
	var q resizeRequest
	if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&q); err != nil {
		replyError(w, api.Errorf(api.KindInvalid, "cannot read the request: %w", err))
		return
	}
	m, err := k.running("resize a disk")
	if err == nil {
		if resizer, ok := m.(vmm.Resizer); ok {
			err = resizer.Resize(r.Context(), q.Serial, q.Bytes)
		} else {
			err = api.Errorf(api.KindUnsupported, "cannot resize a disk: driver %s does not do that while the machine runs", k.driver.Name())
		}
	}
	done(w, err)
}

func done(w http.ResponseWriter, err error) {
	if err != nil {
		replyError(w, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func reply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	json.NewEncoder(w).Encode(v)
}

func replyError(w http.ResponseWriter, err error) {
	e := api.AsError(err)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.Kind.HTTPStatus())
	json.NewEncoder(w).Encode(api.ErrorReply{Error: e})
}
