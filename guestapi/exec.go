package guestapi

import (
	"encoding/binary"
	"fmt"
	"io"
)

// ExecUpgrade is the protocol name in the Upgrade header of POST /v1/exec. The
// first frame after the upgrade is the host's, on ChannelRequest.
const ExecUpgrade = "banger-exec"

// The channels of an exec stream. The numbers of stdin to exit are those of
// api.Channel, so that a relay copies them unchanged.
const (
	ChannelStdin   byte = 0 // host to guest; an empty payload is end of file
	ChannelStdout  byte = 1
	ChannelStderr  byte = 2
	ChannelSignal  byte = 3 // host to guest; the name, e.g. INT
	ChannelResize  byte = 4 // host to guest; JSON api.Resize
	ChannelCredit  byte = 5 // guest to host; uint32 big endian: that many more bytes of stdin may be sent
	ChannelStarted byte = 6 // guest to host; JSON Started
	ChannelExit    byte = 7 // guest to host, last; JSON Exit
	ChannelRequest byte = 9 // host to guest, first; JSON ExecRequest
)

// MaxFrame is the largest payload of a frame, in bytes. A larger one is a
// protocol error.
const MaxFrame = 128 << 10

// StdinWindow is how many bytes of stdin may be under way before credits come.
const StdinWindow = 1 << 20

// ExecRequest asks the agent for one command.
type ExecRequest struct {
	Argv    []string `json:"argv"` // empty: the user's login shell
	Env     []string `json:"env,omitempty"`
	Workdir string   `json:"workdir,omitempty"`
	User    string   `json:"user,omitempty"`
	TTY     bool     `json:"tty,omitempty"`
	Rows    int      `json:"rows,omitempty"`
	Cols    int      `json:"cols,omitempty"`
	NoStdin bool     `json:"no_stdin,omitempty"`
	// Detach starts the command in its own session with no stdio; the exit
	// frame follows the started frame at once.
	Detach bool `json:"detach,omitempty"`
	// TimeoutMS ends the command when it runs longer.
	TimeoutMS int64 `json:"timeout_ms,omitempty"`
}

// Started says that the command runs.
type Started struct {
	PID int `json:"pid"`
}

// Exit is how a command ended. Code is 128+N when signal N ended it, 127 when
// the command was not found, 126 when it could not be run; Message says why.
type Exit struct {
	Code     int    `json:"code"`
	Signal   string `json:"signal,omitempty"`
	TimedOut bool   `json:"timed_out,omitempty"`
	// Message is set when the command never began; Invalid when the request
	// itself was at fault (no such user or folder): banger failed, code 125.
	Message string `json:"message,omitempty"`
	Invalid bool   `json:"invalid,omitempty"`
}

// WriteFrame writes one frame: channel, length as uint32 big endian, payload.
// Header and payload go in one Write, so that concurrent writers need only a
// lock around WriteFrame.
func WriteFrame(w io.Writer, channel byte, payload []byte) error {
	if len(payload) > MaxFrame {
		return fmt.Errorf("cannot write frame: %d bytes exceed %d", len(payload), MaxFrame)
	}
	b := make([]byte, 5+len(payload))
	b[0] = channel
	binary.BigEndian.PutUint32(b[1:], uint32(len(payload)))
	copy(b[5:], payload)
	_, err := w.Write(b)
	return err
}

// ReadFrame reads one frame into buf, which is grown to MaxFrame at most, and
// returns the payload, valid until the next call. io.EOF means a clean end
// between frames.
func ReadFrame(r io.Reader, buf *[]byte) (channel byte, payload []byte, err error) {
	var h [5]byte
	if _, err := io.ReadFull(r, h[:1]); err != nil {
		return 0, nil, err
	}
	if _, err := io.ReadFull(r, h[1:]); err != nil {
		return 0, nil, fmt.Errorf("cannot read frame: %w", io.ErrUnexpectedEOF)
	}
	n := binary.BigEndian.Uint32(h[1:])
	if n > MaxFrame {
		return 0, nil, fmt.Errorf("cannot read frame: %d bytes exceed %d", n, MaxFrame)
	}
	if cap(*buf) < int(n) {
		*buf = make([]byte, n)
	}
	payload = (*buf)[:n]
	if _, err := io.ReadFull(r, payload); err != nil {
		return 0, nil, fmt.Errorf("cannot read frame: %w", io.ErrUnexpectedEOF)
	}
	return h[0], payload, nil
}
