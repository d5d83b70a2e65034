package guest

import (
	"bytes"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/guestapi"
)

func (a *Agent) stats(c *call) {
	var s guestapi.Stats
	meminfo, _ := os.ReadFile("/proc/meminfo")
	s.MemoryTotalBytes = parseKiB(meminfo, "MemTotal:")
	s.MemoryAvailableBytes = parseKiB(meminfo, "MemAvailable:")
	status, _ := os.ReadFile("/proc/self/status")
	s.AgentRSSBytes = parseKiB(status, "VmRSS:")
	s.Processes = countProcesses()
	c.reply(s)
}

// parseKiB finds "key  N kB" in a file of /proc and gives it in bytes.
func parseKiB(data []byte, key string) int64 {
	for line := range bytes.Lines(data) {
		rest, ok := bytes.CutPrefix(line, []byte(key))
		if !ok {
			continue
		}
		f := bytes.Fields(rest)
		if len(f) == 0 {
			return 0
		}
		n, err := strconv.ParseInt(string(f[0]), 10, 64)
		if err != nil || n < 0 || n > 1<<50 {
			return 0
		}
		return n << 10
	}
	return 0
}

// countProcesses counts all processes but the kernel's own.
func countProcesses() int {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	n := 0
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == 2 {
			continue
		}
		stat, err := os.ReadFile("/proc/" + e.Name() + "/stat")
		if err == nil && parentOf(stat) != 2 {
			n++
		}
	}
	return n
}

// parentOf reads the fourth field of /proc/PID/stat; the second one, the name
// in parentheses, may hold anything.
func parentOf(stat []byte) int {
	_, rest, ok := bytes.Cut(stat[max(0, bytes.LastIndexByte(stat, ')')):], []byte(") "))
	if !ok {
		return -1
	}
	f := bytes.Fields(rest)
	if len(f) < 2 {
		return -1
	}
	pid, err := strconv.Atoi(string(f[1]))
	if err != nil {
		return -1
	}
	return pid
}

// uptime is the time since boot, pauses of the whole machine included.
func uptime() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
