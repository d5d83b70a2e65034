package daemon

import (
	"context"
	"errors"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/bangervm/banger/api"
)

type listVMsQuery struct {
	Filter []string `query:"filter" doc:"label=K, label=K=V or status=S; all given must fit"`
}

func (s *server) listVMs(w http.ResponseWriter, r *http.Request) error {
	q, err := decodeQuery[listVMsQuery](r)
	if err != nil {
		return err
	}
	vms, err := s.vms.List(r.Context(), q.Filter)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list(vms))
}

func (s *server) showVM(w http.ResponseWriter, r *http.Request) error {
	return writeVM(w)(s.vms.Show(r.Context(), r.PathValue("vm")))
}

func (s *server) createVM(w http.ResponseWriter, r *http.Request) error {
	req, err := decodeBody[api.CreateVM](w, r)
	if err != nil {
		return err
	}
	return writeOperation(w)(s.vms.Create(r.Context(), req))
}

func (s *server) setVM(w http.ResponseWriter, r *http.Request) error {
	req, err := decodeBody[api.SetVM](w, r)
	if err != nil {
		return err
	}
	return writeVM(w)(s.vms.Set(r.Context(), r.PathValue("vm"), req))
}

type deleteVMQuery struct {
	Force bool `query:"force" doc:"also when it runs; a missing VM is success"`
}

func (s *server) deleteVM(w http.ResponseWriter, r *http.Request) error {
	q, err := decodeQuery[deleteVMQuery](r)
	if err != nil {
		return err
	}
	return writeOperation(w)(s.vms.Delete(r.Context(), r.PathValue("vm"), q.Force))
}

func (s *server) startVM(w http.ResponseWriter, r *http.Request) error {
	return writeOperation(w)(s.vms.Start(r.Context(), r.PathValue("vm")))
}

func (s *server) stopVM(w http.ResponseWriter, r *http.Request) error {
	req, err := decodeBody[api.StopVM](w, r)
	if err != nil {
		return err
	}
	return writeOperation(w)(s.vms.Stop(r.Context(), r.PathValue("vm"), req))
}

func (s *server) restartVM(w http.ResponseWriter, r *http.Request) error {
	return writeOperation(w)(s.vms.Restart(r.Context(), r.PathValue("vm")))
}

func (s *server) killVM(w http.ResponseWriter, r *http.Request) error {
	req, err := decodeBody[api.KillVM](w, r)
	if err != nil {
		return err
	}
	return writeVM(w)(s.vms.Kill(r.Context(), r.PathValue("vm"), req))
}

func (s *server) renameVM(w http.ResponseWriter, r *http.Request) error {
	req, err := decodeBody[api.RenameVM](w, r)
	if err != nil {
		return err
	}
	return writeVM(w)(s.vms.Rename(r.Context(), r.PathValue("vm"), req))
}

func (s *server) pruneVMs(w http.ResponseWriter, r *http.Request) error {
	req, err := decodeBody[api.PruneVMs](w, r)
	if err != nil {
		return err
	}
	results, err := s.vms.Prune(r.Context(), req)
	if err != nil {
		return err
	}
	return writeJSON(w, http.StatusOK, list(results))
}

type waitVMQuery struct {
	For       string `query:"for" doc:"running, stopped or exit"`
	TimeoutMS int64  `query:"timeout_ms" doc:"0 waits for ever"`
}

func (s *server) waitVM(w http.ResponseWriter, r *http.Request) error {
	q, err := decodeQuery[waitVMQuery](r)
	if err != nil {
		return err
	}
	targets := []string{api.WaitRunning, api.WaitStopped, api.WaitExit}
	if !slices.Contains(targets, q.For) {
		return api.Errorf(api.KindInvalid, "cannot wait for %q: want running, stopped or exit", clip(q.For))
	}
	ctx, cancel := s.waiting(r, q.TimeoutMS)
	defer cancel()
	ref := r.PathValue("vm")
	v, err := s.vms.Wait(ctx, ref, q.For)
	if timedOut(ctx, err) {
		return api.Errorf(api.KindTimeout, "cannot wait for vm %q: after %s it still has not come to %s", clip(ref), milliseconds(q.TimeoutMS), q.For)
	}
	return writeVM(w)(v, causeOf(ctx, err))
}

type logsQuery struct {
	Follow  bool   `query:"follow" doc:"go on with what comes"`
	Since   string `query:"since" doc:"a time (RFC 3339) or how long ago (10m)"`
	Tail    string `query:"tail" doc:"the last so many lines"`
	Console bool   `query:"console" doc:"the console, though there is another log"`
}

func (s *server) logsVM(w http.ResponseWriter, r *http.Request) error {
	q, err := decodeQuery[logsQuery](r)
	if err != nil {
		return err
	}
	opts := logOptions{Follow: q.Follow, Tail: -1, Console: q.Console}
	if q.Tail != "" {
		if opts.Tail, err = strconv.Atoi(q.Tail); err != nil || opts.Tail < 0 {
			return api.Errorf(api.KindInvalid, "cannot read query: tail wants a whole number, not %q", clip(q.Tail))
		}
	}
	if opts.Since, err = parseSince(q.Since, time.Now()); err != nil {
		return err
	}
	ctx, cancel := s.following(r)
	defer cancel()
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	err = s.vms.Logs(ctx, r.PathValue("vm"), opts, &flushing{w: w, rc: http.NewResponseController(w)})
	if opts.Follow && ctx.Err() != nil {
		return nil // the reader went, or the daemon goes: the end of following
	}
	return err
}

// parseSince reads a point in time, or a duration before now.
func parseSince(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if t, err := time.Parse(time.RFC3339Nano, text); err == nil {
		return t, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	if n, err := strconv.ParseInt(text, 10, 32); err == nil && n >= 0 {
		return now.Add(-time.Duration(n) * time.Second), nil
	}
	return time.Time{}, api.Errorf(api.KindInvalid, "cannot read query: since wants a time such as %s or a duration such as 10m, not %q",
		now.UTC().Format(time.RFC3339), clip(text))
}

// flushing sends each piece of a log at once.
type flushing struct {
	w  http.ResponseWriter
	rc *http.ResponseController
}

func (f *flushing) Write(b []byte) (int, error) {
	n, err := f.w.Write(b)
	if err != nil {
		return n, err
	}
	return n, f.rc.Flush()
}

// waiting bounds a followed request by the milliseconds it named, if any.
func (s *server) waiting(r *http.Request, ms int64) (context.Context, context.CancelFunc) {
	ctx, cancel := s.following(r)
	if ms == 0 {
		return ctx, cancel
	}
	bounded, stop := context.WithTimeout(ctx, milliseconds(ms))
	return bounded, func() { stop(); cancel() }
}

// milliseconds is ms as a duration, as long as one can be at most.
func milliseconds(ms int64) time.Duration {
	return time.Duration(min(ms, int64(1<<63-1)/int64(time.Millisecond))) * time.Millisecond
}

// timedOut tells the end of the caller's patience from other failures.
func timedOut(ctx context.Context, err error) bool {
	return err != nil && errors.Is(context.Cause(ctx), context.DeadlineExceeded)
}

// writeVM and writeOperation take what a noun returned and answer with it.
func writeVM(w http.ResponseWriter) func(api.VM, error) error {
	return func(v api.VM, err error) error {
		if err != nil {
			return err
		}
		return writeJSON(w, http.StatusOK, v)
	}
}

func writeOperation(w http.ResponseWriter) func(api.Operation, error) error {
	return func(op api.Operation, err error) error {
		if err != nil {
			return err
		}
		w.Header().Set("Location", "/v1/operations/"+op.ID)
		return writeJSON(w, http.StatusAccepted, op)
	}
}
