package client

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strconv"

	"github.com/bangervm/banger/api"
)

// Events lists the events after the one with id since (0: all that are kept).
func (c *Client) Events(ctx context.Context, since int64) ([]api.Event, error) {
	var out []api.Event
	err := c.call(ctx, http.MethodGet, route("events"), sinceQuery(since), nil, &out)
	return out, err
}

// FollowEvents calls fn, in this goroutine, with each event after since, the
// past ones first, until ctx is done, fn fails or the daemon leaves.
func (c *Client) FollowEvents(ctx context.Context, since int64, fn func(api.Event) error) error {
	q := sinceQuery(since)
	q.Set("follow", "true")
	body, err := c.subscribe(ctx, route("events"), q)
	if err != nil {
		return err
	}
	defer body.Close()
	events := newEventReader(body)
	for {
		raw, err := events.next()
		if err != nil {
			return streamEnd(ctx, "events", err)
		}
		var ev api.Event
		if err := json.Unmarshal(raw.data, &ev); err != nil {
			return api.Errorf(api.KindInternal, "cannot read event: %w", err)
		}
		if err := fn(ev); err != nil {
			return err
		}
	}
}

func sinceQuery(since int64) url.Values {
	q := url.Values{}
	if since > 0 {
		q.Set("since", strconv.FormatInt(since, 10))
	}
	return q
}
