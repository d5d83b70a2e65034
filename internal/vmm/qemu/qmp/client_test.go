package qmp

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

const greeting = `{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": ""}, "capabilities": []}}` + "\n"

// server answers each command with what answer gives for it.
func server(t *testing.T, first string, answer func(command string, id uint64) string) net.Conn {
	t.Helper()
	ours, theirs := net.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer theirs.Close()
		fmt.Fprint(theirs, first)
		lines := bufio.NewScanner(theirs)
		for lines.Scan() {
			var q struct {
				Execute string
				ID      uint64
			}
			if err := json.Unmarshal(lines.Bytes(), &q); err != nil {
				t.Errorf("command %q: %v", lines.Text(), err)
			}
			a := answer(q.Execute, q.ID)
			if a == "" {
				return
			}
			fmt.Fprint(theirs, a)
		}
	}()
	t.Cleanup(func() {
		ours.Close()
		<-done
	})
	return ours
}

func TestExecute(t *testing.T) {
	t.Parallel()
	var events []string
	conn := server(t, greeting, func(command string, id uint64) string {
		switch command {
		case "qmp_capabilities":
			return fmt.Sprintf("{\"return\": {}, \"id\": %d}\n", id)
		case "query-status":
			return fmt.Sprintf("{\"event\":\"STOP\",\"timestamp\":{\"seconds\":1,\"microseconds\":2}}\n{\"return\":{},\"id\":77}\n{\"return\": {\"status\": \"running\"}, \"id\": %d}\n", id)
		case "bad":
			return fmt.Sprintf("{\"error\": {\"class\":\"GenericError\",\"desc\":\"no\"}, \"id\": %d}\n", id)
		case "odd":
			return fmt.Sprintf("{\"id\": %d}\n", id)
		}
		return ""
	})
	c, err := New(t.Context(), conn, func(e Event) { events = append(events, e.Name) })
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if v := c.Version().String(); v != "7.2.22" {
		t.Errorf("version %s", v)
	}
	var s struct{ Status string }
	if err := c.Execute(t.Context(), "query-status", nil, &s); err != nil || s.Status != "running" {
		t.Errorf("status %+v, %v", s, err)
	}
	if len(events) != 1 || events[0] != "STOP" {
		t.Errorf("events %v", events)
	}
	var refused *Error
	if err := c.Execute(t.Context(), "bad", nil, nil); !errors.As(err, &refused) || refused.Desc != "no" {
		t.Errorf("refusal: %v", err)
	}
	if err := c.Execute(t.Context(), "odd", nil, nil); err == nil {
		t.Error("a reply with nothing in it was accepted")
	}
	if err := c.Execute(t.Context(), "leave", nil, nil); !errors.Is(err, ErrClosed) {
		t.Errorf("after the end: %v", err)
	}
}

func TestNewFails(t *testing.T) {
	t.Parallel()
	for name, first := range map[string]string{
		"no JSON": "hello\n", "no greeting": "{\"return\":{}}\n", "too long": strings.Repeat("x", MaxLine+1), "cut": "{\"QMP\"",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ours, theirs := net.Pipe()
			go func() {
				fmt.Fprint(theirs, first)
				theirs.Close()
			}()
			if _, err := New(t.Context(), ours, func(Event) {}); err == nil {
				t.Error("accepted")
			}
		})
	}
	ours, theirs := net.Pipe()
	defer theirs.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := New(ctx, ours, func(Event) {}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a silent QEMU: %v", err)
	}
}

// Whatever QEMU, or who has taken it over, sends: no panic, no more memory than
// a line.
func FuzzReadMessage(f *testing.F) {
	f.Add([]byte(greeting))
	f.Add([]byte(`{"event":"SHUTDOWN","data":{"guest":true},"timestamp":{"seconds":-1,"microseconds":-1}}` + "\n"))
	f.Add([]byte(`{"return":{},"id":1}` + "\n{\"error\":{\"desc\":\"x\"},\"id\":2}\n"))
	f.Add([]byte("{\"id\":1e99}\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := newReader(bytes.NewReader(b))
		for {
			m, err := readMessage(r)
			if err != nil {
				return
			}
			m.at()
			m.result("x", new(any))
		}
	})
}
