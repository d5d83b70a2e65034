package debian

import (
	"strconv"
	"strings"
)

// Progress is how far a bootstrap is: Done of Total in Unit (bytes, items),
// within the stage. Total is 0 where it is not known.
type Progress struct {
	Stage       string
	Done, Total int64
	Unit        string
}

// keptLines is how many of the last lines of output are kept for an error.
const keptLines = 40

// output reads what mmdebstrap, apt and dpkg say, line by line: progress out of
// the good lines, the cause of a failure out of the bad ones. The lines quote
// what mirrors send, so nothing in them is trusted to have any form.
type output struct {
	report func(Progress)
	now    Progress
	last   []string // the last lines
	errors []string // lines that begin with E:, and apt's other ways to say so
	items  int64    // what is to be unpacked and set up after the download
}

// stages are mmdebstrap's own lines and what they mean to people.
var stages = []struct{ prefix, stage string }{
	{"I: running apt-get update", "reading package lists"},
	{"I: downloading packages with apt", "downloading packages"},
	{"I: extracting archives", "unpacking packages"},
	{"I: installing essential packages", "installing essential packages"},
	{"I: installing remaining packages", "installing packages"},
	{"I: running special hook", "finishing"},
	{"I: cleaning package lists", "cleaning up"},
	{"I: creating tarball", "writing the file system"},
}

func (o *output) line(s string) {
	if len(s) > 2000 {
		s = s[:2000]
	}
	o.last = append(o.last, s)
	if len(o.last) > keptLines {
		o.last = o.last[1:]
	}
	for _, st := range stages {
		if strings.HasPrefix(s, st.prefix) {
			o.now = Progress{Stage: st.stage}
			o.tell()
			return
		}
	}
	switch {
	case strings.HasPrefix(s, "E: "), strings.HasPrefix(s, "W: Failed to fetch"), strings.HasPrefix(s, "W: GPG error"),
		strings.HasPrefix(s, "newuidmap"), strings.HasPrefix(s, "newgidmap"), strings.Contains(s, "No space left on device"):
		if len(o.errors) < keptLines {
			o.errors = append(o.errors, s)
		}
	case strings.HasPrefix(s, "Get:"):
		o.now.Unit, o.now.Done = "bytes", o.now.Done+itemSize(s)
		if o.now.Total > 0 {
			o.now.Done = min(o.now.Done, o.now.Total)
		}
		o.tell()
	case strings.HasPrefix(s, "Need to get "):
		if f := strings.Fields(s); len(f) >= 5 {
			unit, _, _ := strings.Cut(f[4], "/") // "12 MB/50 MB": what is not in a cache, of all
			o.now = Progress{Stage: "downloading packages", Total: aptSize(f[3], unit), Unit: "bytes"}
			o.tell()
		}
	case strings.Contains(s, " newly installed, "):
		f := strings.Fields(s)
		for i := 1; i < len(f); i++ {
			if f[i] == "newly" {
				n, _ := strconv.ParseInt(f[i-1], 10, 32)
				o.items = 2 * max(n, 0)
			}
		}
	case strings.HasPrefix(s, "Unpacking "), strings.HasPrefix(s, "Setting up "):
		if o.now.Unit != "items" {
			stage := o.now.Stage
			if !strings.HasPrefix(stage, "installing essential") {
				stage = "installing packages"
			}
			o.now = Progress{Stage: stage, Total: o.items, Unit: "items"}
		}
		o.now.Done++
		o.now.Total = max(o.now.Total, o.now.Done)
		o.tell()
	}
}

func (o *output) tell() {
	if o.report != nil {
		o.report(o.now)
	}
}

// itemSize is the size at the end of apt's line for one download, in bytes:
// Get:3 http://… libc6 amd64 2.36-9 [2759 kB].
func itemSize(line string) int64 {
	i := strings.LastIndexByte(line, '[')
	if i < 0 || !strings.HasSuffix(line, "]") {
		return 0
	}
	number, unit, _ := strings.Cut(line[i+1:len(line)-1], " ")
	return aptSize(number, unit)
}

// aptSize is a size as apt writes it, in bytes: its units are decimal.
func aptSize(number, unit string) int64 {
	n, err := strconv.ParseFloat(strings.ReplaceAll(number, ",", ""), 64)
	if err != nil || n < 0 || n > 1e9 {
		return 0
	}
	switch unit {
	case "B":
		return int64(n)
	case "kB":
		return int64(n * 1e3)
	case "MB":
		return int64(n * 1e6)
	case "GB":
		return int64(n * 1e9)
	}
	return 0
}
