package guest

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/guestapi"
)

const (
	requestPatience = 30 * time.Second // for the request behind the upgrade
	killAfterGone   = 10 * time.Second // from HUP to KILL when the client is gone
	killAfterTerm   = 2 * time.Second  // from TERM to KILL at the time-out
)

// exec upgrades the connection and runs one session on it.
func (a *Agent) exec(c *call) {
	if c.upgrade != guestapi.ExecUpgrade {
		c.replyError(api.Errorf(api.KindInvalid, "cannot run a command: the request does not upgrade to %s", guestapi.ExecUpgrade))
		return
	}
	a.mu.Lock()
	if a.closing {
		a.mu.Unlock()
		c.replyError(api.Errorf(api.KindBadState, "cannot run the command: the guest is shutting down"))
		return
	}
	a.wg.Add(1)
	a.mu.Unlock()
	defer a.wg.Done()
	s := &session{agent: a, conn: c.conn, r: c.r, gone: make(chan struct{})}
	a.mu.Lock()
	a.sessions[s] = struct{}{}
	closing := a.closing
	a.mu.Unlock()
	defer func() {
		a.mu.Lock()
		delete(a.sessions, s)
		a.mu.Unlock()
	}()
	if closing {
		return
	}
	const switching = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: " + guestapi.ExecUpgrade + "\r\n\r\n"
	if _, err := c.conn.Write([]byte(switching)); err != nil {
		return
	}
	s.run()
}

// session is one command and its stream. Its goroutines: run reads frames,
// supervise waits for the command's end, one pump for each output, one writer
// for stdin.
type session struct {
	agent *Agent
	conn  net.Conn
	r     *bufio.Reader

	wmu sync.Mutex // one frame at a time

	proc     child
	in       *input   // nil without stdin
	out, err *os.File // ends we read; err is nil with a terminal
	tty      bool

	gone    chan struct{} // closed when the client is gone before the end
	once    sync.Once     // the command was told so
	running atomic.Bool   // proc, tty and out are set
}

func (s *session) run() {
	req, err := s.request()
	if err != nil {
		s.exit(refusal(125, true, err.Error()))
		return
	}
	cmd, refused := s.agent.resolve(req)
	if refused == nil {
		refused = s.start(cmd, req)
	}
	if refused != nil {
		s.exit(refused)
		return
	}
	s.sendJSON(guestapi.ChannelStarted, guestapi.Started{PID: s.proc.pid})
	if req.Detach {
		s.exit(&guestapi.Exit{})
		return
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.guard(func() { s.supervise(time.Duration(req.TimeoutMS) * time.Millisecond) })
	}()
	s.follow()
	s.lost() // before its writers fail: CMD shall learn of it by HUP, not by a broken pipe
	close(s.gone)
	_ = s.conn.Close() // ends writers that wait for a client no longer there
	<-done
}

// guard runs a goroutine of the session: in PID 1 a panic would be the kernel's,
// so it ends this command and its stream only.
func (s *session) guard(fn func()) {
	defer func() {
		if p := recover(); p != nil {
			s.agent.log.Error("a command's session panicked", "panic", p, "stack", string(debug.Stack()))
			_ = s.agent.opts.spawn.signal(s.proc.pid, syscall.SIGKILL)
			_ = s.conn.Close()
		}
	}()
	fn()
}

func (s *session) request() (guestapi.ExecRequest, error) {
	var req guestapi.ExecRequest
	_ = s.conn.SetReadDeadline(time.Now().Add(requestPatience))
	var buf []byte
	ch, payload, err := guestapi.ReadFrame(s.r, &buf)
	if err != nil {
		return req, fmt.Errorf("cannot read the command: %w", err)
	}
	_ = s.conn.SetReadDeadline(time.Time{})
	return parseRequest(ch, payload)
}

func parseRequest(ch byte, payload []byte) (guestapi.ExecRequest, error) {
	var req guestapi.ExecRequest
	if ch != guestapi.ChannelRequest {
		return req, fmt.Errorf("cannot read the command: the first frame is on channel %d, not %d", ch, guestapi.ChannelRequest)
	}
	if err := json.Unmarshal(payload, &req); err != nil {
		return req, fmt.Errorf("cannot read the command: %w", err)
	}
	if req.TimeoutMS < 0 {
		return req, errors.New("cannot run the command: its time-out is negative")
	}
	return req, nil
}

// start makes the stdio and the process. What is refused leaves nothing open.
func (s *session) start(cmd command, req guestapi.ExecRequest) *guestapi.Exit {
	std, err := newStdio(req, cmd.acc)
	if err != nil {
		return refusal(125, false, "cannot run the command: "+err.Error())
	}
	attr := &syscall.ProcAttr{
		Dir: cmd.dir, Env: cmd.env, Files: std.child[:],
		Sys: &syscall.SysProcAttr{Setsid: true, Setctty: req.TTY && !req.Detach},
	}
	if os.Geteuid() == 0 {
		attr.Sys.Credential = &syscall.Credential{Uid: cmd.acc.uid, Gid: cmd.acc.gid, Groups: cmd.acc.groups}
	} else if int(cmd.acc.uid) != os.Geteuid() {
		std.close()
		return refusal(125, true, fmt.Sprintf("cannot run the command as user %d: the agent is user %d", cmd.acc.uid, os.Geteuid()))
	}
	s.proc, err = s.agent.opts.spawn.spawn(cmd.path, cmd.argv, attr)
	std.closeChild()
	if err != nil {
		std.close()
		return notRun(cmd.argv[0], err)
	}
	s.tty, s.out, s.err = req.TTY, std.out, std.err
	if std.in != nil {
		s.in = newInput(std.in, s.tty, s.credit)
		go s.guard(s.in.write)
	}
	s.running.Store(true)
	return nil
}

// lost tells the command that its client is gone; one that has ended already
// hears nothing. Any goroutine may call it.
func (s *session) lost() { s.once.Do(func() { s.signal(syscall.SIGHUP) }) }

// hangUp sends HUP to a command on a terminal; any goroutine may call it.
func (s *session) hangUp() {
	if s.running.Load() && s.tty {
		s.signal(syscall.SIGHUP)
	}
}

// follow handles the client's frames until the stream ends or is at fault.
func (s *session) follow() {
	var buf []byte
	for {
		ch, payload, err := guestapi.ReadFrame(s.r, &buf)
		if err != nil {
			return
		}
		switch ch {
		case guestapi.ChannelStdin:
			if s.in != nil && !s.in.feed(payload) {
				return
			}
		case guestapi.ChannelSignal:
			if sig, ok := parseSignal(string(payload)); ok {
				s.signal(sig)
			}
		case guestapi.ChannelResize:
			if ws, ok := parseResize(payload); ok && s.tty {
				_ = control(s.out, func(fd int) error { return unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, ws) })
			}
		default:
			return
		}
	}
}

// supervise waits for the command's end, however it comes, sends what it still
// wrote and how it ended, and lets the client go.
func (s *session) supervise(timeout time.Duration) {
	var pumps sync.WaitGroup
	pumps.Go(func() { s.guard(func() { s.pump(guestapi.ChannelStdout, s.out) }) })
	if s.err != nil {
		pumps.Go(func() { s.guard(func() { s.pump(guestapi.ChannelStderr, s.err) }) })
	}
	gone := s.gone
	var expire, kill <-chan time.Time
	if timeout > 0 {
		t := time.NewTimer(timeout)
		defer t.Stop()
		expire = t.C
	}
	exit := guestapi.Exit{}
	var ws syscall.WaitStatus
	for running := true; running; {
		select {
		case ws = <-s.proc.done:
			running = false
		case <-gone:
			gone = nil
			if s.tty {
				_ = s.out.Close() // hangs the terminal up
			}
			kill = time.After(killAfterGone)
		case <-expire:
			exit.TimedOut = true
			s.signal(syscall.SIGTERM)
			kill = time.After(killAfterTerm)
		case <-kill:
			s.signal(syscall.SIGKILL)
		}
	}
	now := time.Now()
	_ = s.out.SetReadDeadline(now)
	if s.err != nil {
		_ = s.err.SetReadDeadline(now)
	}
	pumps.Wait()
	if s.in != nil {
		s.in.close()
	}
	_ = s.out.Close()
	if s.err != nil {
		_ = s.err.Close()
	}
	exit.Code = ws.ExitStatus()
	if ws.Signaled() {
		exit.Code = 128 + int(ws.Signal())
		exit.Signal = signalName(ws.Signal())
	}
	s.exit(&exit)
}

// exit sends the last frame and leaves it to the client to close: closing
// first, with its stdin unread, would discard what it has not read yet.
func (s *session) exit(e *guestapi.Exit) {
	s.sendJSON(guestapi.ChannelExit, e)
	if s.out == nil { // nobody follows the stream
		var buf [512]byte
		for {
			if _, err := s.r.Read(buf[:]); err != nil {
				return
			}
		}
	}
}

// signal reaches the command's process group and, on a terminal, the one in the
// foreground.
func (s *session) signal(sig syscall.Signal) {
	if s.tty {
		_ = control(s.out, func(fd int) error {
			fg, err := unix.IoctlGetInt(fd, unix.TIOCGPGRP)
			if err == nil && fg > 1 && fg != s.proc.pid {
				_ = syscall.Kill(-fg, sig)
			}
			return err
		})
	}
	_ = s.agent.opts.spawn.signal(s.proc.pid, sig)
}

func (s *session) credit(n int) {
	s.send([]byte{guestapi.ChannelCredit, 0, 0, 0, 4, byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

func (s *session) sendJSON(ch byte, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		return
	}
	frame := make([]byte, frameHead, frameHead+len(b))
	frame = append(frame, b...)
	putHead(frame, ch)
	s.send(frame)
}

// send writes one whole frame. An error means that the client is gone, which
// follow learns too.
func (s *session) send(frame []byte) bool {
	s.wmu.Lock()
	defer s.wmu.Unlock()
	_, err := s.conn.Write(frame)
	return err == nil
}

// frameHead is the length of a frame's head in bytes.
const frameHead = 5

// putHead fills in the head of a frame whose payload begins at frameHead.
func putHead(frame []byte, ch byte) {
	n := len(frame) - frameHead
	frame[0], frame[1], frame[2], frame[3], frame[4] = ch, byte(n>>24), byte(n>>16), byte(n>>8), byte(n)
}

// parseSignal knows names with and without SIG.
func parseSignal(name string) (syscall.Signal, bool) {
	if len(name) > 20 {
		return 0, false
	}
	name = strings.ToUpper(name)
	if !strings.HasPrefix(name, "SIG") {
		name = "SIG" + name
	}
	sig := unix.SignalNum(name)
	return sig, sig != 0
}

func signalName(sig syscall.Signal) string {
	if name := unix.SignalName(sig); name != "" {
		return strings.TrimPrefix(name, "SIG")
	}
	return fmt.Sprint(int(sig))
}

func parseResize(payload []byte) (*unix.Winsize, bool) {
	var r api.Resize
	if json.Unmarshal(payload, &r) != nil {
		return nil, false
	}
	return winsize(r.Rows, r.Cols)
}

func winsize(rows, cols int) (*unix.Winsize, bool) {
	if rows < 1 || cols < 1 || rows > 65535 || cols > 65535 {
		return nil, false
	}
	return &unix.Winsize{Row: uint16(rows), Col: uint16(cols)}, true
}
