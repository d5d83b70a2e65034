package guest

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/bangervm/banger/guestapi"
)

const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// command is a request resolved against the guest: what to execute, as whom,
// where and with which environment.
type command struct {
	path string
	argv []string
	env  []string
	dir  string
	acc  account
}

// refusal is an exit that says why a command never began.
func refusal(code int, invalid bool, message string) *guestapi.Exit {
	return &guestapi.Exit{Code: code, Invalid: invalid, Message: message}
}

// resolve turns a request into a command, or into the exit that refuses it.
func (a *Agent) resolve(req guestapi.ExecRequest) (command, *guestapi.Exit) {
	var c command
	for _, s := range slices.Concat(req.Argv, req.Env, []string{req.Workdir}) {
		if strings.IndexByte(s, 0) >= 0 {
			return c, refusal(125, true, "cannot run the command: an argument or variable holds a zero byte")
		}
	}
	user := req.User
	if user == "" {
		user = a.opts.User
	}
	acc, err := findAccount("/etc", user)
	if err != nil {
		return c, refusal(125, true, err.Error())
	}
	c.acc = acc
	c.env = environment(acc, req.TTY, a.opts.Env, req.Env)
	if exit := c.enter(req.Workdir, a.opts.Workdir); exit != nil {
		return c, exit
	}
	if len(req.Argv) == 0 {
		shell := findShell("/", acc.shell)
		if shell == "" {
			return c, refusal(127, false, "cannot start a shell: the image has none (no bash, sh or busybox); give a command, after --")
		}
		c.path, c.argv = shell, []string{"-" + shellName(shell)}
		return c, nil
	}
	c.argv = req.Argv
	path, err := lookPath(req.Argv[0], getenv(c.env, "PATH"), c.dir)
	if err != nil {
		return c, notRun(req.Argv[0], err)
	}
	c.path = path
	return c, nil
}

// enter chooses the folder: the one asked for, the VM's or its image's, which is
// made where it is missing, or the home.
func (c *command) enter(asked, fallback string) *guestapi.Exit {
	c.dir = asked
	if c.dir == "" && fallback != "" {
		c.dir = fallback
		if filepath.IsAbs(c.dir) {
			_ = os.MkdirAll(c.dir, 0o755) // what is wrong is said below
		}
	}
	if c.dir == "" {
		if fi, err := os.Stat(c.acc.home); err == nil && fi.IsDir() {
			c.dir = c.acc.home
			return nil
		}
		c.dir = "/"
		return nil
	}
	if !filepath.IsAbs(c.dir) {
		return refusal(125, true, "cannot enter folder "+c.dir+" in the guest: it is not an absolute path")
	}
	fi, err := os.Stat(c.dir)
	if err == nil && !fi.IsDir() {
		err = syscall.ENOTDIR
	}
	if err != nil {
		return refusal(125, true, "cannot enter folder "+c.dir+" in the guest: "+cause(err).Error())
	}
	return nil
}

// findShell is the user's own shell where it can run and is one, else one that
// the image has below root; empty when there is none.
func findShell(root, own string) string {
	switch filepath.Base(own) {
	case "nologin", "false", "true", "sync":
		own = ""
	}
	for _, shell := range []string{own, "/bin/bash", "/usr/bin/bash", "/bin/sh", "/usr/bin/sh", "/bin/ash", "/usr/local/bin/bash",
		"/bin/busybox", "/usr/bin/busybox", "/busybox/sh", "/busybox/busybox"} {
		if filepath.IsAbs(shell) && executable(filepath.Join(root, shell)) == nil {
			return shell
		}
	}
	return ""
}

// shellName is what a shell is to find in its first argument: busybox is what it
// is called.
func shellName(path string) string {
	if name := filepath.Base(path); name != "busybox" {
		return name
	}
	return "sh"
}

// environment is ours, then the VM's, then the request's; a later value of a
// name replaces the earlier one.
func environment(acc account, tty bool, vm, req []string) []string {
	name := acc.name
	term := "dumb"
	if tty {
		term = "xterm-256color"
	}
	env := []string{"PATH=" + defaultPath, "HOME=" + acc.home, "TERM=" + term, "IS_SANDBOX=1"}
	if shell := findShell("/", acc.shell); shell != "" {
		env = append(env, "SHELL="+shell)
	}
	if name != "" {
		env = append(env, "USER="+name, "LOGNAME="+name)
	}
	at := map[string]int{}
	for i, kv := range env {
		k, _, _ := strings.Cut(kv, "=")
		at[k] = i
	}
	for _, kv := range slices.Concat(vm, req) {
		k, _, ok := strings.Cut(kv, "=")
		if !ok || k == "" {
			continue
		}
		if i, known := at[k]; known {
			env[i] = kv
			continue
		}
		at[k] = len(env)
		env = append(env, kv)
	}
	return env
}

func getenv(env []string, key string) string {
	for _, kv := range env {
		if k, v, _ := strings.Cut(kv, "="); k == key {
			return v
		}
	}
	return ""
}

// lookPath finds the program as a shell does: by PATH unless the name has a
// slash. A name found only where it cannot be executed gives that error.
func lookPath(name, path, dir string) (string, error) {
	if name == "" {
		return "", syscall.ENOENT
	}
	if strings.Contains(name, "/") {
		return name, nil // execve says what is wrong with it
	}
	var found error = syscall.ENOENT
	for _, d := range filepath.SplitList(path) {
		p := filepath.Join(d, name)
		if !filepath.IsAbs(p) {
			p = filepath.Join(dir, p)
		}
		err := executable(p)
		if err == nil {
			return p, nil
		}
		if errors.Is(err, syscall.EACCES) {
			found = err
		}
	}
	return "", found
}

func executable(path string) error {
	fi, err := os.Stat(path)
	if err != nil {
		return cause(err)
	}
	if fi.IsDir() || fi.Mode()&0o111 == 0 {
		return syscall.EACCES
	}
	return nil
}

// notRun is the exit of a command that could not be executed: 127 when it, or
// the interpreter its first line names, is not there, 126 otherwise.
func notRun(name string, err error) *guestapi.Exit {
	switch {
	case errors.Is(err, syscall.ENOENT) && !strings.Contains(name, "/"):
		return refusal(127, false, "cannot run "+name+": command not found")
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.ENOTDIR):
		return refusal(127, false, "cannot run "+name+": "+cause(err).Error())
	}
	return refusal(126, false, "cannot run "+name+": "+cause(err).Error())
}

// cause is the innermost error, without the paths and verbs around it.
func cause(err error) error {
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err
		}
		err = inner
	}
}
