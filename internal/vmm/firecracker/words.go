package firecracker

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"regexp"
	"strings"

	"github.com/google/renameio/v2"

	"github.com/bangervm/banger/internal/vmm/child"
)

// logHead is what Firecracker puts before each line of its log: the time, the
// name of the machine and of the thread.
var logHead = regexp.MustCompile(`^\S+T\S+ \[[^\]]*\] `)

// lastWords is the last line of Firecracker's that tells something.
func lastWords(words *child.Output) string {
	lines := strings.Split(strings.TrimSpace(words.All()), "\n")
	said := ""
	for _, l := range lines {
		l = logHead.ReplaceAllString(strings.TrimSpace(l), "")
		switch {
		case l == "", strings.HasPrefix(l, "Vmm is stopping"), strings.HasPrefix(l, "Firecracker exiting"),
			strings.HasPrefix(l, "Running Firecracker"), strings.HasPrefix(l, "Listening on API socket"), strings.Contains(l, "process_startup_time"),
			strings.HasPrefix(l, "Received "):
		default:
			said = l
		}
	}
	return said
}

// exitCodes are Firecracker's own (FcExitCode in its source).
func describe(err error) string {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return child.Describe(err)
	}
	why := map[int]string{
		148: "it made a system call that its filter forbids", 149: "SIGBUS", 150: "SIGSEGV", 151: "SIGXFSZ", 154: "SIGXCPU",
		155: "SIGPIPE", 156: "SIGHUP", 157: "SIGILL", 152: "it was configured wrongly", 153: "its arguments are wrong",
	}[exit.ExitCode()]
	if why != "" {
		return exit.Error() + " (" + why + ")"
	}
	return exit.Error()
}

// requestLine is what Firecracker says, at level Info, of each request that it
// grants; what it says of one that it refuses is another.
var requestLine = regexp.MustCompile(`^\S+T\S+ \[[^\]]*\] (The API server received a |The request was executed successfully|'[^']*' (API request|VMM action) took )`)

// maxLine is how much of a line is looked at, in bytes.
const maxLine = 4 << 10

// copyLog reads until the pipe is closed or its deadline passes. What is said of
// requests is left out: they are ours, and each is a line or two. Words takes
// everything else, and keeps what it wants.
func copyLog(words io.Writer, pipe io.Reader) {
	r := bufio.NewReaderSize(pipe, maxLine)
	for begins, drop := true, false; ; {
		part, err := r.ReadSlice('\n')
		if begins {
			drop = requestLine.Match(part)
		}
		if !drop {
			_, _ = words.Write(part) // never fails
		}
		if begins = err == nil; err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

// maxMetrics bounds one set of figures, in bytes.
const maxMetrics = 64 << 10

// keepMetrics keeps the newest line of the pipe in the file. Firecracker writes
// one a minute and one at its end.
func keepMetrics(pipe *os.File, file string, log *slog.Logger) {
	lines := bufio.NewReaderSize(pipe, maxMetrics)
	told := false
	for {
		line, err := lines.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			if !told {
				told = true
				log.Warn("Firecracker's figures are too long to be kept", "limit", maxMetrics)
			}
			continue // the rest of it is no JSON either
		}
		if err != nil {
			return
		}
		if file == "" || !json.Valid(line) {
			continue
		}
		if err := renameio.WriteFile(file, line, 0o600); err != nil && !told {
			told = true
			log.Warn("cannot keep Firecracker's figures", "error", err)
		}
	}
}
