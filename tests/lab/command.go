package main

import (
	"archive/tar"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/term"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
	"github.com/bangervm/banger/internal/guestlink"
)

// command is one command in a lab host.
type command struct {
	argv           []string
	user           string // empty: root
	env            []string
	dir            string
	stdin          io.Reader // nil: none
	stdout, stderr io.Writer
	tty            *os.File // nil: no terminal
	session        bool     // as somebody who is logged in runs it
}

// labEnv is what every command finds in its environment.
func labEnv(user string) []string {
	env := []string{
		"PATH=/lab/in/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG=C.UTF-8",
		"BANGER_LAB=1", "LAB_OUT=/lab/out", "TMPDIR=/lab/tmp",
		"BANGER_ROOT=/lab/root", "BANGER_TEST_STORE=/lab/root", "BANGER_BIN=/lab/in/bin/banger",
	}
	if user != "" && user != "root" {
		env = append(env, "XDG_RUNTIME_DIR="+devRuntime, "DBUS_SESSION_BUS_ADDRESS=unix:path="+devRuntime+"/bus")
	}
	return env
}

// devRuntime is the runtime folder of the user dev.
const devRuntime = "/run/user/1000"

// inSession makes of a command one in a scope of systemd's, with a part of the
// control groups that is its own: of the user's systemd, or as root of the host's.
func inSession(argv []string, user string) []string {
	scope := []string{"systemd-run", "--scope", "--quiet", "--property=Delegate=yes"}
	if user != "" && user != "root" {
		scope = append(scope, "--user")
	}
	return append(append(scope, "--"), argv...)
}

// run runs a command to its end. An error is that the end is not known; of
// type errHost where the host failed.
func (m *machine) run(ctx context.Context, c command) (guestapi.Exit, error) {
	var exit guestapi.Exit
	if c.session && m.plan.systemd {
		c.argv = inSession(c.argv, c.user)
	}
	req := guestapi.ExecRequest{
		Argv: c.argv, User: c.user, Env: append(labEnv(c.user), c.env...), Workdir: c.dir, NoStdin: c.stdin == nil && c.tty == nil,
	}
	if c.tty != nil {
		req.TTY = true
		req.Cols, req.Rows, _ = term.GetSize(int(c.tty.Fd()))
	}
	s, err := m.guest.Exec(ctx, req, guestlink.ExecOptions{})
	if err != nil {
		return exit, m.blame(ctx, err)
	}
	defer s.Close()
	stop := context.AfterFunc(ctx, func() { s.Close() })
	defer stop()
	credit := make(chan int, 64)
	if c.tty != nil {
		state, err := term.MakeRaw(int(c.tty.Fd()))
		if err != nil {
			return exit, err
		}
		defer term.Restore(int(c.tty.Fd()), state)
		defer watchSize(c.tty, s)()
		c.stdin = c.tty
	}
	if c.stdin != nil {
		ended := make(chan struct{})
		defer close(ended)
		go feed(c.stdin, s, credit, ended)
	}
	for {
		channel, payload, err := s.Recv()
		if err != nil {
			if ctx.Err() != nil {
				return exit, context.Cause(ctx)
			}
			return exit, m.blame(ctx, err)
		}
		switch channel {
		case guestapi.ChannelStdout:
			_, err = c.stdout.Write(payload)
		case guestapi.ChannelStderr:
			_, err = c.stderr.Write(payload)
		case guestapi.ChannelCredit:
			select {
			case credit <- int(binary.BigEndian.Uint32(payload)):
			case <-ctx.Done():
			}
		case guestapi.ChannelExit:
			if err := json.Unmarshal(payload, &exit); err != nil {
				return exit, err
			}
			if exit.Message != "" {
				fmt.Fprintf(c.stderr, "lab: %s\n", exit.Message)
			}
			return exit, nil
		}
		if err != nil {
			return exit, err
		}
	}
}

// feed sends stdin as far as credits allow. A read that waits for a terminal
// outlives the command; the process ends soon after.
func feed(in io.Reader, s *guestlink.ExecStream, credit <-chan int, ended <-chan struct{}) {
	window := guestapi.StdinWindow
	buf := make([]byte, 32<<10)
	for {
		n, err := in.Read(buf)
		for window < n {
			select {
			case more := <-credit:
				window += more
			case <-ended:
				return
			}
		}
		for more := true; more; { // what came in meanwhile, so that nobody waits to say it
			select {
			case c := <-credit:
				window += c
			default:
				more = false
			}
		}
		window -= n
		if n > 0 && s.Send(guestapi.ChannelStdin, buf[:n]) != nil {
			return
		}
		if err != nil {
			_ = s.Send(guestapi.ChannelStdin, nil) // the command may be over
			break
		}
	}
	for {
		select {
		case <-credit:
		case <-ended:
			return
		}
	}
}

// watchSize tells the command of the terminal's size; the function it gives
// ends that.
func watchSize(tty *os.File, s *guestlink.ExecStream) func() {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGWINCH)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range ch {
			cols, rows, err := term.GetSize(int(tty.Fd()))
			if err != nil {
				continue
			}
			b, err := json.Marshal(api.Resize{Rows: rows, Cols: cols})
			if err == nil {
				_ = s.Send(guestapi.ChannelResize, b)
			}
		}
	}()
	return func() {
		signal.Stop(ch)
		close(ch)
		<-done
	}
}

// fetch copies a folder of the lab host, with all below it, into dst.
func (m *machine) fetch(ctx context.Context, from, dst string) error {
	if err := os.MkdirAll(dst, 0o755); err != nil {
		return err
	}
	r, w := io.Pipe()
	unpacked := make(chan error, 1)
	go func() {
		err := unpack(tar.NewReader(r), dst)
		_, _ = io.Copy(io.Discard, r) // tar pads its end; after an error the rest is not wanted
		unpacked <- err
	}()
	exit, err := m.run(ctx, command{argv: []string{"tar", "-C", from, "-cf", "-", "."}, stdout: w, stderr: os.Stderr})
	w.Close()
	if uerr := <-unpacked; err == nil {
		err = uerr
	}
	if err == nil && exit.Code != 0 {
		err = fmt.Errorf("tar in the lab host gives %d", exit.Code)
	}
	if err != nil {
		return fmt.Errorf("cannot fetch %s out of the lab: %w", from, err)
	}
	return nil
}

// unpack writes files and folders below dst; other things are passed over.
func unpack(r *tar.Reader, dst string) error {
	root, err := os.OpenRoot(dst)
	if err != nil {
		return err
	}
	defer root.Close()
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := filepath.Clean(h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			if name != "." {
				err = root.MkdirAll(name, 0o755)
			}
		case tar.TypeReg:
			var f *os.File
			if f, err = root.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644); err == nil {
				_, err = io.Copy(f, r)
				err = errors.Join(err, f.Close())
			}
		}
		if err != nil {
			return err
		}
	}
}
