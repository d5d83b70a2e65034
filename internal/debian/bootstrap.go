package debian

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/bangervm/banger/api"
)

// Options say what to bootstrap.
type Options struct {
	Suite    string
	Variant  string // minbase, extract: see mmdebstrap(1)
	Packages []string
	Sources  Sources
	// AptOptions are lines of apt.conf.
	AptOptions []string
	// TempDir is where the tree is unpacked; it must not exist, and is gone at
	// the end. See TempDir.
	TempDir string
	// Report, if any, is told of progress, from one goroutine at a time.
	Report func(Progress)
}

// graceAfterTerm is how long mmdebstrap may tidy up after it was asked to end.
const graceAfterTerm = 10 * time.Second

// Bootstrap runs mmdebstrap and hands its output, a tar stream in the pax
// format, to consume, which runs on the caller's goroutine. When mmdebstrap
// fails, its failure is the error, whatever consume said about the broken
// stream; what consume made is then worthless though it returned nil. Cancelling
// ctx ends mmdebstrap and all it started. Nothing is left behind.
//
// Errors: unavailable (mmdebstrap missing, download failed), unsupported (no
// user namespaces for this user), no-space, cancelled, internal.
func Bootstrap(ctx context.Context, opt Options, consume func(io.Reader) error) (err error) {
	program, err := Check()
	if err != nil {
		return err
	}
	if err := os.Mkdir(opt.TempDir, 0o711); err != nil {
		return fmt.Errorf("cannot create build folder: %w", err)
	}
	// The unpacking runs as another user where we are not root; umask must not
	// shut it out.
	if err := os.Chmod(opt.TempDir, 0o711); err != nil {
		return fmt.Errorf("cannot create build folder: %w", err)
	}
	defer func() {
		clean, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
		defer cancel()
		err = errors.Join(err, RemoveTemp(clean, opt.TempDir))
	}()

	p, err := start(program, arguments(opt), opt.TempDir, opt.Report)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, p.end)
	defer stop()

	watched := make(chan struct{})
	go func() {
		defer close(watched)
		p.watch(watchFor(opt.TempDir))
	}()
	defer func() { <-watched }()

	stream := &eofReader{r: p}
	consumeErr := consume(stream)
	if consumeErr != nil && !stream.eof {
		p.end() // consume gave up on a stream that was still good
	} else {
		_, _ = io.Copy(io.Discard, p)
	}
	waitErr := p.wait()
	switch {
	case ctx.Err() != nil:
		kind := api.KindCancelled
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			kind = api.KindTimeout
		}
		return api.Errorf(kind, "cannot build from packages: %w", context.Cause(ctx))
	case consumeErr != nil && !stream.eof:
		return consumeErr
	case p.stuck.Load():
		return noRoom()
	case waitErr != nil:
		return p.out.failure(waitErr)
	}
	return consumeErr
}

// Check finds mmdebstrap and what it needs. An error is of kind unavailable and
// names everything that is missing.
func Check() (program string, err error) {
	var missing, packages []string
	program, lookErr := exec.LookPath("mmdebstrap")
	if lookErr != nil {
		missing, packages = append(missing, "mmdebstrap"), append(packages, "mmdebstrap")
	}
	if os.Geteuid() != 0 {
		if _, err := exec.LookPath("newuidmap"); err != nil {
			missing, packages = append(missing, "newuidmap"), append(packages, "uidmap")
		}
	}
	if _, err := os.Stat(Keyring); err != nil {
		missing, packages = append(missing, Keyring), append(packages, "debian-archive-keyring")
	}
	if len(missing) > 0 {
		return "", api.Errorf(api.KindUnavailable, "cannot build from packages: missing on this host: %s", strings.Join(missing, ", ")).
			WithHint("sudo apt-get install %s", strings.Join(packages, " "))
	}
	return program, nil
}

func arguments(opt Options) []string {
	args := []string{
		"--verbose", "--format=tar", "--variant=" + opt.Variant, "--include=" + strings.Join(opt.Packages, ","),
		// Also for root: its process namespace ends everything with it.
		"--mode=unshare",
		"--aptopt=Acquire::Retries \"2\"",
		"--aptopt=Acquire::Languages \"none\"",
	}
	for _, o := range opt.AptOptions {
		args = append(args, "--aptopt="+o)
	}
	args = append(args, opt.Suite, "-")
	for _, s := range opt.Sources {
		args = append(args, s.Line())
	}
	return args
}

// environment is what mmdebstrap gets of ours: a plain locale, the proxies.
func environment(tempDir string) []string {
	env := []string{
		"PATH=" + os.Getenv("PATH") + ":/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin",
		"HOME=/", "LC_ALL=C.UTF-8", "DEBIAN_FRONTEND=noninteractive", "TMPDIR=" + tempDir,
	}
	for _, k := range []string{"http_proxy", "https_proxy", "no_proxy", "ftp_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SOURCE_DATE_EPOCH", "USER", "LOGNAME"} {
		if v, ok := os.LookupEnv(k); ok {
			env = append(env, k+"="+v)
		}
	}
	return env
}

// process is a running mmdebstrap. wait must be called, once.
type process struct {
	stdout *os.File
	out    *output
	alive  *os.File // open as long as the group may live: see watchedProgram
	pgid   int
	exited chan struct{} // closed when it was reaped
	ended  chan struct{} // closed by the first end
	once   chan struct{} // holds one token: who takes it closes ended
	err    error         // valid once exited is closed
	said   atomic.Int64  // grows with every line and every piece of the stream
	stuck  atomic.Bool   // it was ended for want of room
	read   chan struct{} // closed when stderr was read to its end
	killed chan struct{} // closed when the killer is gone
}

// watchedProgram runs a program with a watcher in its process group, which ends the
// group when we are gone, however we went: mmdebstrap itself, and what it runs
// apt by, only takes note of TERM and waits. What left the group is in mmdebstrap's
// namespace of processes, whose first is in the group. The watcher also keeps the
// group's number from being another's until we are done with it.
const watchedProgram = `{ trap "" HUP INT PIPE TERM; read _; kill -KILL 0; } <&3 3<&- >/dev/null 2>&1 & exec 3<&-; exec "$@"`

func start(program string, args []string, tempDir string, report func(Progress)) (*process, error) {
	outR, outW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		_, _ = outR.Close(), outW.Close()
		return nil, err
	}
	watchR, watchW, err := os.Pipe()
	if err != nil {
		_, _, _, _ = outR.Close(), outW.Close(), errR.Close(), errW.Close()
		return nil, err
	}
	p := &process{
		stdout: outR, out: &output{report: report}, alive: watchW,
		exited: make(chan struct{}), ended: make(chan struct{}), once: make(chan struct{}, 1),
		read: make(chan struct{}), killed: make(chan struct{}),
	}
	p.once <- struct{}{}
	cmd := exec.Command("/bin/sh", append([]string{"-c", watchedProgram, "sh", program}, args...)...)
	cmd.Stdout, cmd.Stderr = outW, errW
	cmd.ExtraFiles = []*os.File{watchR}
	cmd.Dir = "/"
	cmd.Env = environment(tempDir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	err = cmd.Start()
	_, _, _ = outW.Close(), errW.Close(), watchR.Close()
	if err != nil {
		_, _, _ = outR.Close(), errR.Close(), watchW.Close()
		return nil, api.Errorf(api.KindUnavailable, "cannot start mmdebstrap: %w", err)
	}
	p.pgid = cmd.Process.Pid
	go func() {
		p.err = cmd.Wait()
		close(p.exited)
	}()
	go func() {
		defer close(p.read)
		defer func() { _ = errR.Close() }()
		readLines(errR, func(line string) {
			p.said.Add(1)
			p.out.line(line)
		})
	}()
	go p.killer()
	return p, nil
}

// Read gives the archive.
func (p *process) Read(b []byte) (int, error) {
	n, err := p.stdout.Read(b)
	p.said.Add(1)
	return n, err
}

// killer ends the process group: once end was called, with TERM, and KILL after a
// grace; with KILL what mmdebstrap started and left, which would hold the pipes
// open.
func (p *process) killer() {
	defer close(p.killed)
	defer func() { _ = p.alive.Close() }()
	select {
	case <-p.exited:
	case <-p.ended:
		_ = syscall.Kill(-p.pgid, syscall.SIGTERM)
		timer := time.NewTimer(graceAfterTerm)
		defer timer.Stop()
		select {
		case <-p.exited:
		case <-timer.C:
		}
	}
	_ = syscall.Kill(-p.pgid, syscall.SIGKILL)
}

// end asks for the end; it does not wait.
func (p *process) end() {
	select {
	case <-p.once:
		close(p.ended)
	default:
	}
}

// wait returns once the process and the readers are gone.
func (p *process) wait() error {
	<-p.exited
	<-p.killed
	_ = p.stdout.Close()
	<-p.read
	return p.err
}

// readLines calls line for each line; one too long is cut.
func readLines(r io.Reader, line func(string)) {
	br := bufio.NewReaderSize(r, 64<<10)
	for {
		b, err := br.ReadSlice('\n')
		if len(b) > 0 {
			line(strings.TrimRight(string(b), "\r\n"))
		}
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return
		}
	}
}

// eofReader remembers that the end was reached.
type eofReader struct {
	r   io.Reader
	eof bool
}

func (e *eofReader) Read(p []byte) (int, error) {
	n, err := e.r.Read(p)
	if err != nil {
		e.eof = true
	}
	return n, err
}
