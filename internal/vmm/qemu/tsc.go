package qemu

import "time"

// tscInterval is how long the time-stamp counter is watched at least: the
// jitter of one reading, below 1 µs, is then less than 0.02 %.
const tscInterval = 5 * time.Millisecond

// tscSample is the time-stamp counter at one moment.
type tscSample struct {
	tsc uint64
	at  time.Time
}

// sampleTSC reads counter and clock together: of a few tries the one in which
// the least time passed between the two.
func sampleTSC() tscSample {
	var best tscSample
	narrowest := time.Duration(1<<63 - 1)
	for range 5 {
		before := time.Now()
		t := rdtsc()
		if d := time.Since(before); d < narrowest {
			narrowest, best = d, tscSample{t, before.Add(d / 2)}
		}
	}
	return best
}

// tscKHz is the counter's rate, since the sample. Under software emulation the
// guest's counter is the host's: telling the guest saves it a calibration
// against emulated timers, in which boots hang now and then. 0 means unknown.
func tscKHz(since tscSample) int64 {
	if since.tsc == 0 {
		return 0
	}
	time.Sleep(tscInterval - time.Since(since.at))
	now := sampleTSC()
	elapsed := now.at.Sub(since.at)
	if now.tsc <= since.tsc || elapsed <= 0 {
		return 0
	}
	return int64(float64(now.tsc-since.tsc) / float64(elapsed) * 1e6)
}
