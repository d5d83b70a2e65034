package guestapi

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestWake(t *testing.T) {
	t.Parallel()
	now := time.Unix(1_800_000_000, 5)
	want := Wake{Config: Config{Protocol: Protocol, Hostname: "a", Seed: []byte{1, 2}, Token: "t"}, MAC: "52:54:00:00:00:01"}
	b, err := EncodeWake(want, now)
	if err != nil {
		t.Fatal(err)
	}
	want.UnixNano = now.UnixNano()
	r := bytes.NewReader(append(b, "hello"...))
	got, err := ReadWake(r)
	if err != nil || r.Len() != 5 {
		t.Fatalf("%v, %d bytes are left", err, r.Len())
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	for cut := range b {
		if _, err := ReadWake(bytes.NewReader(b[:cut])); err == nil {
			t.Fatalf("read from its first %d bytes", cut)
		}
	}
	long := append(binary.BigEndian.AppendUint32(nil, maxWake+1), `{"mac":"`+strings.Repeat("x", maxWake+1-10)+`"}`...)
	if _, err := ReadWake(bytes.NewReader(long)); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("too large, and read: %v", err)
	}
	if _, err := EncodeWake(Wake{Config: Config{User: strings.Repeat("x", maxWake)}}, now); err == nil {
		t.Error("too large, and encoded")
	}
}

func FuzzReadWake(f *testing.F) {
	b, err := EncodeWake(Wake{MAC: "52:54:00:00:00:01"}, time.Unix(1, 0))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte{0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		w, err := ReadWake(bytes.NewReader(b))
		if err != nil {
			return
		}
		if _, err := EncodeWake(w, time.Unix(1, 0)); err != nil && len(b) < maxWake/8 {
			t.Error(err)
		}
	})
}
