package keeper

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/layout"
)

// Launch starts exe as the keeper of the VM in dir and returns once its VMM
// runs. On an error, which is the keeper's own where it has one to tell, nothing
// is left running. The keeper is a session of its own: it goes on when we end.
func Launch(ctx context.Context, exe string, dir layout.VMDir, cfg Config) (*Client, error) {
	fail := func(err error) error { return api.Errorf(api.KindInternal, "cannot start the keeper: %w", err) }
	if cfg.BootID == "" {
		var id [16]byte
		rand.Read(id[:])
		cfg.BootID = hex.EncodeToString(id[:])
	}
	if err := os.MkdirAll(dir.Run, 0o700); err != nil {
		return nil, fail(err)
	}
	// What the last life left would be mistaken for the end of this one.
	if err := os.Remove(dir.ExitFile()); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fail(err)
	}
	if err := writeJSON(dir.KeeperConfig(), cfg); err != nil {
		return nil, fail(err)
	}
	log, err := os.OpenFile(dir.KeeperLog(), os.O_CREATE|os.O_TRUNC|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fail(err)
	}
	defer log.Close()
	ready, theirs, err := os.Pipe()
	if err != nil {
		return nil, fail(err)
	}
	defer ready.Close()

	cmd := exec.Command(exe, Command, dir.State, dir.Run)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{theirs} // becomes readyFD
	cmd.Env = append(os.Environ(), readyEnv+"=1")
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	err = cmd.Start()
	theirs.Close()
	if err != nil {
		return nil, fail(err)
	}
	ended := make(chan struct{})
	go func() { // ends with the keeper; whoever outlives us reaps it then
		defer close(ended)
		cmd.Wait()
	}()

	if err := awaitReady(ctx, ready, dir); err != nil {
		cmd.Process.Kill()
		<-ended
		return nil, err
	}
	c, err := Attach(ctx, dir)
	if err != nil {
		// It may have come and gone already: then its exit file tells.
		if _, told := readExit(dir); !told {
			cmd.Process.Kill()
			<-ended
			return nil, err
		}
		<-ended
		return goneClient(dir, cfg.BootID), nil
	}
	return c, nil
}

// awaitReady waits for the keeper's word.
func awaitReady(ctx context.Context, ready *os.File, dir layout.VMDir) error {
	stop := context.AfterFunc(ctx, func() { ready.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	b, err := io.ReadAll(io.LimitReader(ready, 64<<10))
	if ctx.Err() != nil {
		kind := api.KindCancelled
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			kind = api.KindTimeout
		}
		return api.Errorf(kind, "cannot start the keeper: %w", ctx.Err())
	}
	var m readyMessage
	if err != nil || json.Unmarshal(b, &m) != nil {
		if last := lastLine(dir.KeeperLog()); last != "" {
			return api.Errorf(api.KindInternal, "cannot start the keeper: it ended: %s", last)
		}
		return api.Errorf(api.KindInternal, "cannot start the keeper: it ended with no word")
	}
	if m.Error != nil {
		return m.Error
	}
	return nil
}

// lastLine is the last line of a log that is not empty.
func lastLine(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	const tail = 4 << 10
	if fi, err := f.Stat(); err == nil && fi.Size() > tail {
		f.Seek(-tail, io.SeekEnd)
	}
	b, err := io.ReadAll(io.LimitReader(f, tail))
	if err != nil {
		return ""
	}
	text := strings.TrimSpace(string(b))
	return text[strings.LastIndexByte(text, '\n')+1:]
}
