package debian

import (
	"time"

	"golang.org/x/sys/unix"
)

// stuckWatch finds a build that hangs for want of room: when a helper of apt
// cannot write, apt at times waits for it for ever, says nothing, and has removed
// what filled the disk.
type stuckWatch struct {
	every    time.Duration // how often one looks
	patience time.Duration // how long nothing may happen
	room     func() int64  // free bytes of the disk
}

// littleRoom is what no build gets far with, in bytes.
const littleRoom = 64 << 20

// watchFor watches for a build in dir that is stuck.
func watchFor(dir string) stuckWatch {
	return stuckWatch{every: time.Second, patience: 20 * time.Second, room: func() int64 {
		var st unix.Statfs_t
		if unix.Statfs(dir, &st) != nil {
			return littleRoom
		}
		return int64(st.Bavail) * st.Bsize
	}}
}

// watch ends the process when it is stuck: there is little room, and it neither
// says nor writes anything. It returns when the process has ended.
func (p *process) watch(w stuckWatch) {
	tick := time.NewTicker(w.every)
	defer tick.Stop()
	var since time.Time // when something happened last
	said, room := p.said.Load(), w.room()
	for {
		select {
		case <-p.exited:
			return
		case now := <-tick.C:
			s, r := p.said.Load(), w.room()
			if s != said || r != room || r >= littleRoom || since.IsZero() {
				said, room, since = s, r, now
			} else if now.Sub(since) >= w.patience {
				p.stuck.Store(true)
				p.end()
				return
			}
		}
	}
}
