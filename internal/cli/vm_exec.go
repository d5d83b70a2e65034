package cli

import (
	"bytes"
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/client"
)

// streamFlags say how a command's streams are connected.
type streamFlags struct {
	tty, noTTY, noStdin bool
	interactive         bool
	maxOutput           int64
}

func (f *streamFlags) add(fs *pflag.FlagSet) {
	fs.BoolVarP(&f.tty, "tty", "t", false, "give the command a terminal, though ours are none")
	fs.BoolVarP(&f.noTTY, "no-tty", "T", false, "give the command no terminal, though ours are")
	fs.BoolVarP(&f.noStdin, "no-stdin", "n", false, "give the command an empty stdin")
	fs.BoolVarP(&f.interactive, "interactive", "i", false, "")
	fs.Lookup("interactive").Hidden = true
	f.maxOutput = 1 << 20
	fs.Var(&sizeFlag{bytes: &f.maxOutput, text: "1M", parse: outputSize}, "max-output", "with --json, how much of stdout and of stderr to keep")
}

// outputSize reads 64K, 1M or bytes.
func outputSize(s string) (int64, error) {
	text := strings.ToUpper(s)
	text = strings.TrimSuffix(strings.TrimSuffix(text, "B"), "I")
	unit := int64(1)
	if text != "" {
		if i := strings.IndexByte("KMG", text[len(text)-1]); i >= 0 {
			unit, text = 1<<(10*(i+1)), text[:len(text)-1]
		}
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 0 || n > (1<<30)/unit {
		return 0, api.Errorf(api.KindInvalid, "want a size such as 64K, at most 1G")
	}
	return n * unit, nil
}

// wantsTTY decides whether the command gets a terminal: when all our streams are
// terminals, unless told.
func (f *streamFlags) wantsTTY(a *app) (bool, error) {
	switch {
	case f.tty && f.noTTY:
		return false, api.Errorf(api.KindInvalid, "cannot use -t and -T together")
	case f.tty && a.ui.JSON:
		return false, api.Errorf(api.KindInvalid, "cannot use -t and --json together: a terminal mixes stdout and stderr")
	case f.tty:
		return true, nil
	case f.noTTY || f.noStdin || a.ui.JSON:
		return false, nil
	}
	return isTerminal(a.env.Stdin) && a.ui.OutTTY && a.ui.ErrTTY, nil
}

// execEnv is what a command with a terminal needs to know of ours.
func (a *app) execEnv(tty bool) []string {
	if t := a.env.Getenv("TERM"); tty && t != "" {
		return []string{"TERM=" + t}
	}
	return nil
}

func (a *app) vmExec() *cobra.Command {
	var f streamFlags
	var req api.Exec
	var env, envFiles []string
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "exec [flags] VM [flags] [--] CMD…",
		Short: "Run a command in a machine",
		Long: "Run a command in a running machine. Its stdin, stdout, stderr and exit code are ours;\n" +
			"the first word after VM and its flags begins CMD, and CMD goes through no shell.",
		Example: `  banger vm exec web uname -a
  banger vm exec web -- sh -c 'echo $HOME'
  tar c . | banger vm exec web -w /root -- tar x`,
		ValidArgsFunction: a.completeVMs(1),
	}
	fs := cmd.Flags()
	fs.SetInterspersed(false)
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		a.execLike = true
		return a.flagError(cmd, err)
	})
	f.add(fs)
	fs.BoolVarP(&req.Detach, "detach", "d", false, "start the command and leave it running: print its process id")
	fs.StringArrayVarP(&env, "env", "e", nil, "environment variable KEY=VALUE, or KEY to take ours; may be repeated")
	fs.StringArrayVar(&envFiles, "env-file", nil, "file of KEY=VALUE lines; may be repeated")
	fs.StringVarP(&req.Workdir, "workdir", "w", "", "folder the command begins in")
	fs.StringVarP(&req.User, "user", "u", "", "user: name or id, also with :group")
	fs.Var(&durationFlag{d: &timeout}, "timeout", "end the command when it runs longer (exit code 124)")
	fs.BoolVar(&req.Start, "start", false, "start the machine first when it is not running")
	a.leaf(cmd, nil)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		a.execLike = true
		ref, argv, err := splitExec(cmd, args)
		if err != nil {
			return err
		}
		req.Argv = argv
		if req.Env, err = a.environment(envFiles, env); err != nil {
			return err
		}
		req.TimeoutMS = timeout.Milliseconds()
		return a.exec(cmd.Context(), ref, req, f, timeout)
	}
	return cmd
}

// splitExec finds VM, reads the flags behind it, and gives the rest as CMD.
func splitExec(cmd *cobra.Command, args []string) (ref string, argv []string, err error) {
	if len(args) == 0 {
		return "", nil, api.Errorf(api.KindInvalid, "%s: too few arguments; usage: %s", cmd.CommandPath(), cmd.UseLine()).WithHint("banger vm list")
	}
	ref, argv = args[0], args[1:]
	if cmd.ArgsLenAtDash() != 0 { // else all behind the dashes is VM and CMD
		if err := cmd.Flags().Parse(argv); err != nil {
			return "", nil, cmd.FlagErrorFunc()(cmd, err)
		}
		if help, err := cmd.Flags().GetBool("help"); err == nil && help {
			return "", nil, pflag.ErrHelp
		}
		argv = cmd.Flags().Args()
	}
	if ref == "" {
		return "", nil, api.Errorf(api.KindInvalid, "%s: VM is empty", cmd.CommandPath()).WithHint("banger vm list")
	}
	if len(argv) == 0 {
		return "", nil, api.Errorf(api.KindInvalid, "%s: no command given", cmd.CommandPath()).WithHint("banger vm shell %s", ref)
	}
	return ref, argv, nil
}

// vmShell is accepted for those who look for it.
func (a *app) vmShell() *cobra.Command {
	var f streamFlags
	var req api.Exec
	cmd := &cobra.Command{
		Use: "shell VM [flags]", Hidden: true, Short: "Open a shell in a machine", Example: "  banger vm shell web",
		Args: argCount(1, 1), ValidArgsFunction: a.completeVMs(1),
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		a.execLike = true
		return a.flagError(cmd, err)
	})
	f.add(cmd.Flags())
	cmd.Flags().StringVarP(&req.Workdir, "workdir", "w", "", "folder the shell begins in")
	cmd.Flags().StringVarP(&req.User, "user", "u", "", "user: name or id, also with :group")
	cmd.Flags().BoolVar(&req.Start, "start", false, "start the machine first when it is not running")
	return a.leaf(cmd, func(ctx context.Context, args []string) error {
		a.execLike = true
		return a.exec(ctx, args[0], req, f, 0)
	})
}

// exec runs one command and ends as it did.
func (a *app) exec(ctx context.Context, ref string, req api.Exec, f streamFlags, timeout time.Duration) error {
	tty, err := f.wantsTTY(a)
	if err != nil {
		return err
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	req.NoStdin = f.noStdin || req.Detach
	if req.TTY = tty && !req.Detach; req.TTY {
		req.Rows, req.Cols = a.newTerminal().dimensions()
		req.Env = append(a.execEnv(true), req.Env...)
	}
	at := &attachment{tty: req.TTY, noStdin: req.NoStdin}
	cap := a.captured(at, f, req.Detach)
	exit, err := a.attach(ctx, c, at, func(ctx context.Context) (*client.Stream, error) { return c.Exec(ctx, ref, req) })
	if req.Detach && at.began && api.KindOf(err) != api.KindCancelled {
		return a.ui.Answer(at.started, func() error { return a.ui.Println(strconv.Itoa(at.started.PID)) })
	}
	if err != nil {
		return err
	}
	if cap != nil {
		if err := a.ui.Answer(cap.result(exit, at.beganAt), nil); err != nil {
			return err
		}
	}
	return a.commandEnd(exit, timeout)
}

// captured keeps the output for the JSON answer, if that is asked for.
func (a *app) captured(at *attachment, f streamFlags, detach bool) *capture {
	if !a.ui.JSON || detach {
		return nil
	}
	c := &capture{stdout: bounded{most: f.maxOutput}, stderr: bounded{most: f.maxOutput}}
	at.stdout, at.stderr = &c.stdout, &c.stderr
	return c
}

// capture is a command's output as far as it is kept.
type capture struct{ stdout, stderr bounded }

func (c *capture) result(exit api.Exit, began time.Time) api.ExecResult {
	var took time.Duration
	if !began.IsZero() { // else it could not be run at all
		took = time.Since(began)
	}
	return api.ExecResult{
		ExitCode: exit.Code, Signal: exit.Signal,
		Stdout: c.stdout.b.String(), Stderr: c.stderr.b.String(), Truncated: c.stdout.cut || c.stderr.cut,
		DurationMS: took.Milliseconds(),
	}
}

// bounded keeps the first bytes written and takes note of more.
type bounded struct {
	b    bytes.Buffer
	most int64
	cut  bool
}

func (w *bounded) Write(p []byte) (int, error) {
	room := w.most - int64(w.b.Len())
	if int64(len(p)) > room {
		w.cut = true
		w.b.Write(p[:room])
	} else {
		w.b.Write(p)
	}
	return len(p), nil
}
