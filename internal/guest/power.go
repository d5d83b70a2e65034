package guest

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/guestapi"
)

const (
	// powerButtonGrace is what processes get when the power button is pressed.
	powerButtonGrace = 5 * time.Second
	maxGrace         = 10 * time.Minute
	killPatience     = 5 * time.Second
	// clientPatience is for clients to read how their commands ended.
	clientPatience = 300 * time.Millisecond
)

// rtmin is the first real-time signal; systemd's poweroff and reboot are the
// fourth and the fifth after it.
const rtmin = 34

// signals heeds what is sent to PID 1: ctrl-alt-del comes as INT; USR1, USR2 and
// PWR are what halt and poweroff send to a simple init, TERM what reboot sends.
// The rest is caught so that it kills neither us nor is ignored in our children.
func (i *initProcess) signals() {
	ch := make(chan os.Signal, 8)
	signal.Notify(ch, syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2,
		syscall.SIGPWR, syscall.SIGALRM, syscall.SIGABRT, syscall.Signal(rtmin+4), syscall.Signal(rtmin+5))
	for sig := range ch {
		switch sig {
		case syscall.SIGINT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGPWR, syscall.Signal(rtmin + 4):
			i.run(func() {
				i.shutdown(guestapi.Shutdown{GraceMS: powerButtonGrace.Milliseconds()})
				i.powerOff()
			})
		case syscall.SIGTERM, syscall.Signal(rtmin + 5):
			i.run(func() {
				i.shutdown(guestapi.Shutdown{GraceMS: powerButtonGrace.Milliseconds()})
				_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
			})
		}
	}
}

// shutdown ends all processes and leaves clean disks. Who calls it again waits
// for the first call and gets its reply.
func (i *initProcess) shutdown(s guestapi.Shutdown) guestapi.ShutdownReply {
	i.shutdownOnce.Do(func() {
		i.ending.Store(true)
		i.agent.refuse()
		var r guestapi.ShutdownReply
		r.Killed = i.endProcesses(min(max(time.Duration(s.GraceMS)*time.Millisecond, 0), maxGrace))
		i.agent.waitSessions(clientPatience)
		for _, err := range i.cleanDisks() {
			r.Warnings = append(r.Warnings, err.Error())
		}
		i.shutdownDone = r
	})
	return i.shutdownDone
}

// endProcesses sends TERM, after grace KILL, and returns how many needed that.
// We are init: when we have no child left, no process is.
func (i *initProcess) endProcesses(grace time.Duration) int {
	gone := i.reaper.gone()
	select {
	case <-gone:
		return 0
	default:
	}
	_ = syscall.Kill(-1, syscall.SIGTERM)
	_ = syscall.Kill(-1, syscall.SIGCONT) // a stopped process heeds nothing
	i.agent.hangUp()                      // interactive shells ignore TERM
	t := time.NewTimer(grace)
	defer t.Stop()
	select {
	case <-gone:
		return 0
	case <-t.C:
	}
	killed := countProcesses() - 1
	_ = syscall.Kill(-1, syscall.SIGKILL)
	select {
	case <-gone:
	case <-time.After(killPatience):
	}
	return max(killed, 0)
}

// cleanDisks flushes everything, unmounts the work disk and makes the system
// disk read-only, which leaves its journal clean.
func (i *initProcess) cleanDisks() []error {
	unix.Sync()
	var errs []error
	if i.disks[guestapi.RoleWork] != "" {
		if err := unix.Unmount("/root", 0); err != nil && !errors.Is(err, unix.EINVAL) {
			if err2 := unix.Mount("", "/root", "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err2 != nil {
				errs = append(errs, fmt.Errorf("cannot unmount /root: %w", err))
			}
		}
	}
	if err := unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		errs = append(errs, fmt.Errorf("cannot make / read-only: %w", err))
	}
	if i.system != nil {
		err := i.system.Chdir()
		if err == nil {
			err = unix.Mount("", ".", "", unix.MS_REMOUNT|unix.MS_RDONLY, "")
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("cannot make the system disk read-only: %w", err))
		}
	}
	unix.Sync()
	return errs
}

func (i *initProcess) powerOff() {
	for {
		_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
		time.Sleep(time.Second)
	}
}
