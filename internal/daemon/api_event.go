package daemon

import (
	"context"
	"net/http"
	"strconv"

	"github.com/bangervm/banger/api"
)

type eventsQuery struct {
	Follow bool   `query:"follow" doc:"go on with what comes, as server-sent events"`
	Since  string `query:"since" doc:"only events after this id; followed without it, only new ones"`
}

func (s *server) listEvents(w http.ResponseWriter, r *http.Request) error {
	q, err := decodeQuery[eventsQuery](r)
	if err != nil {
		return err
	}
	since := int64(0)
	if q.Follow {
		since = s.events.Last()
	}
	// A client that lost the stream comes back with the last id it saw.
	for _, text := range []string{q.Since, r.Header.Get("Last-Event-ID")} {
		if text == "" {
			continue
		}
		if since, err = strconv.ParseInt(text, 10, 64); err != nil || since < 0 {
			return api.Errorf(api.KindInvalid, "cannot read query: since wants the id of an event, not %q", clip(text))
		}
	}
	if q.Follow {
		return s.followEvents(w, r, since)
	}
	all := []api.Event{}
	for {
		page, err := s.events.After(r.Context(), since)
		if err != nil {
			return err
		}
		if len(page) == 0 {
			return writeJSON(w, http.StatusOK, all)
		}
		all = append(all, page...)
		since = page[len(page)-1].ID
	}
}

// followEvents sends what is stored after since, then what comes. It reads from
// the store, so that a slow client loses nothing and holds nothing.
func (s *server) followEvents(w http.ResponseWriter, r *http.Request, since int64) error {
	ctx, cancel := s.following(r)
	defer cancel()
	news, done := s.events.Subscribe()
	defer done()
	stream := startEvents(w)
	defer stream.quiet.Stop()
	for {
		var err error
		if since, err = s.sendEvents(ctx, stream, since); err != nil {
			return err
		}
		select {
		case <-news:
		case <-stream.quiet.C:
			if stream.comment() != nil {
				return nil // the client is gone
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// sendEvents sends all stored events after since and gives the last one's id.
func (s *server) sendEvents(ctx context.Context, stream *eventStream, since int64) (int64, error) {
	for {
		page, err := s.events.After(ctx, since)
		if err != nil || len(page) == 0 {
			return since, err
		}
		for _, e := range page {
			if err := stream.send(strconv.FormatInt(e.ID, 10), e); err != nil {
				return since, err
			}
			since = e.ID
		}
	}
}
