package client

import (
	"bytes"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestEventReader(t *testing.T) {
	t.Parallel()
	type ev struct{ ID, Name, Data string }
	long := strings.Repeat("x", 40<<10)
	tests := []struct {
		name, in string
		want     []ev
		err      error
	}{
		{"none", "", nil, io.EOF},
		{"one", "data: a\n\n", []ev{{Data: "a"}}, io.EOF},
		{"id and name", "id: 7\nevent: x\ndata:b\n\n", []ev{{"7", "x", "b"}}, io.EOF},
		{"crlf", "data: a\r\n\r\ndata: b\r\n\r\n", []ev{{Data: "a"}, {Data: "b"}}, io.EOF},
		{"two lines of data", "data: a\ndata: b\n\n", []ev{{Data: "a\nb"}}, io.EOF},
		{"empty data", "data\n\n", []ev{{}}, io.EOF},
		{"comments", ":\n\n: keep-alive\n\ndata: a\n\n", []ev{{Data: "a"}}, io.EOF},
		{"no data, no event", "id: 3\n\ndata: a\n\n", []ev{{Data: "a"}}, io.EOF},
		{"unknown field", "retry: 5\nfoo\ndata: a\n\n", []ev{{Data: "a"}}, io.EOF},
		{"unfinished is dropped", "data: a\n\ndata: b\n", []ev{{Data: "a"}}, io.EOF},
		{"longer than the buffer", "data: " + long + "\n\n", []ev{{Data: long}}, io.EOF},
		{"too long", "data: " + strings.Repeat("x", maxEvent+1) + "\n\n", nil, errEventTooLong},
		{"too long in lines", strings.Repeat("data: "+long+"\n", maxEvent/len(long)+1) + "\n", nil, errEventTooLong},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newEventReader(strings.NewReader(tt.in))
			var got []ev
			var err error
			for {
				var e event
				if e, err = r.next(); err != nil {
					break
				}
				got = append(got, ev{e.id, e.name, string(e.data)})
			}
			if diff := cmp.Diff(tt.want, got); diff != "" || err != tt.err {
				t.Errorf("error %v, want %v; events (-want +got):\n%s", err, tt.err, diff)
			}
		})
	}
}

func FuzzEventReader(f *testing.F) {
	f.Add([]byte("id: 1\nevent: e\ndata: {}\n\n"))
	f.Add([]byte(":\r\n\r\ndata\ndata:x\n\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := newEventReader(bytes.NewReader(in))
		total := 0
		for {
			e, err := r.next()
			if err != nil {
				break
			}
			total += len(e.data)
		}
		if total > len(in) {
			t.Fatalf("%d bytes of data out of %d", total, len(in))
		}
	})
}
