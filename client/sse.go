package client

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"

	"github.com/bangervm/banger/api"
)

// maxEvent bounds one server-sent event, in bytes.
const maxEvent = 4 << 20

// event is one server-sent event; data is its data lines joined by newlines.
type event struct {
	id, name string
	data     []byte
}

// eventReader parses the text/event-stream format of the HTML standard: lines
// end in LF, CRLF or CR (CR alone is not produced by our daemon and not
// accepted), a blank line ends an event, an unfinished event at the end is
// dropped.
type eventReader struct {
	r *bufio.Reader
}

func newEventReader(r io.Reader) *eventReader {
	return &eventReader{bufio.NewReaderSize(r, 16<<10)}
}

var errEventTooLong = errors.New("event exceeds 4 MiB")

// next gives the next event that has data; io.EOF at the end of the stream.
func (e *eventReader) next() (event, error) {
	var ev event
	hasData := false
	size := 0
	for {
		line, err := e.line(&size)
		if err != nil {
			return event{}, err
		}
		if len(line) == 0 {
			if hasData {
				return ev, nil
			}
			ev, size = event{}, 0
			continue
		}
		field, value, _ := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		switch string(field) {
		case "data":
			if hasData {
				ev.data = append(ev.data, '\n')
			}
			ev.data = append(ev.data, value...)
			hasData = true
		case "id":
			ev.id = string(value)
		case "event":
			ev.name = string(value)
		}
	}
}

// line reads one line without its end, counting its bytes into size.
func (e *eventReader) line(size *int) ([]byte, error) {
	var long []byte
	for {
		part, err := e.r.ReadSlice('\n')
		if *size += len(part); *size > maxEvent {
			return nil, errEventTooLong
		}
		if err == bufio.ErrBufferFull {
			long = append(long, part...)
			continue
		}
		if err != nil {
			return nil, err
		}
		if long != nil {
			part = append(long, part...)
		}
		return bytes.TrimSuffix(part[:len(part)-1], []byte("\r")), nil
	}
}

// subscribe opens a stream of server-sent events; the caller closes it.
func (c *Client) subscribe(ctx context.Context, path string, query url.Values) (io.ReadCloser, error) {
	req, err := c.request(ctx, http.MethodGet, path, query, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Accept", "text/event-stream")
	resp, err := c.send(req)
	if err != nil {
		return nil, err
	}
	return resp.Body, nil
}

// streamEnd turns the end of a followed stream into an error, or nil when the
// daemon closed it in good order.
func streamEnd(ctx context.Context, what string, err error) error {
	switch {
	case ctx.Err() != nil:
		return contextError(ctx)
	case err == io.EOF:
		return nil
	}
	return api.Errorf(api.KindUnavailable, "cannot follow %s: %w", what, err)
}
