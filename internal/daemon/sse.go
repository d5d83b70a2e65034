package daemon

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

// eventStream writes server-sent events. quiet ticks when nothing was sent for
// a while; a comment then finds out whether the client is still there.
type eventStream struct {
	w     http.ResponseWriter
	rc    *http.ResponseController
	quiet *time.Ticker
}

func startEvents(w http.ResponseWriter) *eventStream {
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	e := &eventStream{w: w, rc: http.NewResponseController(w), quiet: time.NewTicker(keepAlive)}
	_ = e.rc.Flush() // the client learns that the stream began; a failure shows at the next write
	return e
}

// send writes one event with v as its data, and its id where there is one.
func (e *eventStream) send(id string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("cannot write event: %w", err)
	}
	if id != "" {
		return e.write("id: " + id + "\ndata: " + string(b) + "\n\n")
	}
	return e.write("data: " + string(b) + "\n\n")
}

func (e *eventStream) comment() error { return e.write(":\n\n") }

// write drops a client that takes nothing for too long.
func (e *eventStream) write(text string) error {
	_ = e.rc.SetWriteDeadline(time.Now().Add(bodyTime))
	if _, err := e.w.Write([]byte(text)); err != nil {
		return err
	}
	e.quiet.Reset(keepAlive)
	return e.rc.Flush()
}
