package guestapi

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

func TestLinkScanner(t *testing.T) {
	t.Parallel()
	a, b := Nonce{1, 0xba}, Nonce{2}
	stream := bytes.Join([][]byte{
		[]byte("\x00\x01\x00\xba\xbaba"), LinkRecord(LinkHello, a), LinkRecord(LinkGo, b), []byte("\x00yamux"),
	}, nil)
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"whole": func(r io.Reader) io.Reader { return r },
		"bytes": iotest.OneByteReader,
		"halves": func(r io.Reader) io.Reader {
			return iotest.HalfReader(r)
		},
	} {
		r := wrap(bytes.NewReader(stream))
		s := NewLinkScanner(r, 100)
		for _, want := range []struct {
			kind  LinkKind
			nonce Nonce
		}{{LinkHello, a}, {LinkGo, b}} {
			kind, nonce, err := s.Next()
			if err != nil || kind != want.kind || nonce != want.nonce {
				t.Errorf("%s: got %c %v %v", name, kind, nonce, err)
			}
		}
		if rest, _ := io.ReadAll(r); string(rest) != "\x00yamux" {
			t.Errorf("%s: it read beyond the record; left %q", name, rest)
		}
	}
}

func TestLinkScannerResumes(t *testing.T) {
	t.Parallel()
	rec := LinkRecord(LinkEcho, Nonce{7})
	timeout := errors.New("timeout")
	s := NewLinkScanner(io.MultiReader(bytes.NewReader(rec[:9]), &failOnce{err: timeout}, bytes.NewReader(rec[9:])), 100)
	if _, _, err := s.Next(); !errors.Is(err, timeout) {
		t.Fatalf("got %v", err)
	}
	if kind, nonce, err := s.Next(); err != nil || kind != LinkEcho || nonce != (Nonce{7}) {
		t.Errorf("got %c %v %v", kind, nonce, err)
	}
}

type failOnce struct{ err error }

func (f *failOnce) Read([]byte) (int, error) {
	if f.err == nil {
		return 0, io.EOF
	}
	err := f.err
	f.err = nil
	return 0, err
}

func FuzzLinkScanner(f *testing.F) {
	f.Add([]byte("\xba\xbabanger"))
	f.Add(LinkRecord(LinkHello, Nonce{}))
	f.Fuzz(func(t *testing.T, data []byte) {
		rec := LinkRecord(LinkGo, Nonce{9})
		r := bytes.NewReader(append(append(data, rec...), "rest"...))
		s := NewLinkScanner(r, 1<<20)
		for {
			kind, nonce, err := s.Next()
			if err != nil {
				if len(data) < LinkRecordSize && !bytes.Contains(data, []byte{0xba}) {
					t.Fatalf("the record behind %q was lost: %v", data, err)
				}
				return
			}
			if kind == LinkGo && nonce == (Nonce{9}) {
				return
			}
		}
	})
}

func FuzzReadFrame(f *testing.F) {
	f.Add([]byte("\x01\x00\x00\x00\x01x"))
	f.Add([]byte("\x01\xff\xff\xff\xff"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		var buf []byte
		for {
			ch, p, err := ReadFrame(r, &buf)
			if err != nil {
				return
			}
			var again bytes.Buffer
			if err := WriteFrame(&again, ch, p); err != nil || !bytes.Contains(data, again.Bytes()) {
				t.Fatalf("frame %d %q does not come back: %v", ch, p, err)
			}
		}
	})
}
