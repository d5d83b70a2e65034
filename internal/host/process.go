package host

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"syscall"

	"github.com/bangervm/banger/api"
	"golang.org/x/sys/unix"
)

// ProcessStart is when a process began, in ticks since the host's boot; false
// when there is none. A zombie is none. Process id and start together name a
// process for as long as the host is up, though ids are used again.
func (h *Real) ProcessStart(pid int) (uint64, bool) {
	if pid <= 0 {
		return 0, false
	}
	data, err := os.ReadFile(h.file("proc/" + strconv.Itoa(pid) + "/stat"))
	if err != nil {
		return 0, false
	}
	state, start, ok := parseStat(data)
	return start, ok && state != 'Z' && state != 'X'
}

// parseStat reads the state (field 3) and the start time (field 22) of
// /proc/PID/stat; see proc(5). The name in field 2 may hold anything, also
// brackets and spaces.
func parseStat(data []byte) (state byte, start uint64, ok bool) {
	end := bytes.LastIndexByte(data, ')')
	if end < 0 {
		return 0, 0, false
	}
	f := bytes.Fields(data[end+1:])
	const first = 3 // the field that f begins with
	if len(f) <= 22-first || len(f[0]) != 1 {
		return 0, 0, false
	}
	start, err := strconv.ParseUint(string(f[22-first]), 10, 64)
	return f[0][0], start, err == nil
}

// Signal sends a signal to the process that began then, and to no other. One
// that is gone is of kind not-found.
func (h *Real) Signal(pid int, start uint64, sig syscall.Signal) error {
	gone := api.Errorf(api.KindNotFound, "cannot signal process %d: it is gone", pid)
	if pid <= 1 {
		return gone
	}
	// The descriptor holds on to one process; only then is it compared, so that
	// the id cannot pass to another in between.
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return gone
	}
	if err != nil {
		return api.Errorf(kindOf(err), "cannot signal process %d: %w", pid, err)
	}
	defer func() { _ = unix.Close(fd) }()
	if now, ok := h.ProcessStart(pid); !ok || now != start {
		return gone
	}
	err = unix.PidfdSendSignal(fd, unix.Signal(sig), nil, 0)
	if errors.Is(err, unix.ESRCH) {
		return gone
	}
	if err != nil {
		return api.Errorf(kindOf(err), "cannot signal process %d: %w", pid, err)
	}
	return nil
}
