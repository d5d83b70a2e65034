package qmp

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"
)

// MaxLine is the longest line accepted from QEMU, in bytes. Its longest true
// replies (query-qmp-schema) stay well below.
const MaxLine = 1 << 20

// Version of QEMU as its greeting says.
type Version struct {
	Major int `json:"major"`
	Minor int `json:"minor"`
	Micro int `json:"micro"`
}

func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Micro) }

// Less says whether v is older than w.
func (v Version) Less(w Version) bool {
	return slices.Compare([]int{v.Major, v.Minor, v.Micro}, []int{w.Major, w.Minor, w.Micro}) < 0
}

// Event is what QEMU says unasked.
type Event struct {
	Name string
	Data json.RawMessage
	At   time.Time
}

// Error is QEMU's refusal of a command.
type Error struct {
	Command string
	Class   string
	Desc    string
}

func (e *Error) Error() string {
	return fmt.Sprintf("qemu refused %s: %s", e.Command, e.Desc)
}

// message is any line QEMU sends; which fields are set says what it is.
type message struct {
	Greeting *struct {
		Version struct {
			QEMU Version `json:"qemu"`
		} `json:"version"`
	} `json:"QMP"`
	ID     *uint64         `json:"id"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
	Event     string          `json:"event"`
	Data      json.RawMessage `json:"data"`
	Timestamp struct {
		Seconds      int64 `json:"seconds"`
		Microseconds int64 `json:"microseconds"`
	} `json:"timestamp"`
}

func (m message) at() time.Time {
	if m.Timestamp.Seconds <= 0 { // -1 when QEMU's clock failed
		return time.Time{}
	}
	return time.Unix(m.Timestamp.Seconds, m.Timestamp.Microseconds*1000)
}

// newReader gives the reader readMessage needs.
func newReader(r io.Reader) *bufio.Reader { return bufio.NewReaderSize(r, 8<<10) }

// readMessage reads one line. io.EOF means a clean end.
func readMessage(r *bufio.Reader) (message, error) {
	var m message
	var line []byte
	for {
		part, err := r.ReadSlice('\n')
		if len(line)+len(part) > MaxLine {
			return m, fmt.Errorf("cannot read QMP: a line is longer than %d bytes", MaxLine)
		}
		if err == nil && line == nil {
			line = part // the common case: no copy, valid until the next read
			break
		}
		line = append(line, part...)
		if err == nil {
			break
		}
		if errors.Is(err, bufio.ErrBufferFull) {
			continue
		}
		if errors.Is(err, io.EOF) && len(line) > 0 {
			err = io.ErrUnexpectedEOF
		}
		return m, err
	}
	if err := json.Unmarshal(line, &m); err != nil {
		return m, fmt.Errorf("cannot read QMP: %w", err)
	}
	return m, nil
}
