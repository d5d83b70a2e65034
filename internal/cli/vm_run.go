package cli

import (
	"context"
	"slices"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/client"
	"github.com/bangervm/banger/internal/cli/ui"
)

func (a *app) vmRun() *cobra.Command {
	var create createFlags
	var streams streamFlags
	var remove, detach bool
	cmd := &cobra.Command{
		Use:   "run [flags] [-- CMD…]",
		Short: "Make a machine and run a command or a shell in it",
		Long: "Make a machine, start it, and run CMD in it, or a shell when there is none.\n" +
			"After CMD the machine is stopped and kept, after a shell it keeps running; with --rm it is deleted.\n" +
			"CMD's stdin, stdout, stderr and exit code are ours; it goes through no shell.",
		Example: `  banger vm run
  banger vm run --rm -- uname -a
  echo data | banger vm run --rm -- cat
  banger vm run --name web --memory 2G -d -- python3 -m http.server`,
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	fs := cmd.Flags()
	create.add(a, cmd)
	streams.add(fs)
	fs.BoolVar(&remove, "rm", false, "delete the machine at the end, whatever happens")
	fs.BoolVarP(&detach, "detach", "d", false, "leave the command running: print the machine's id")
	for _, name := range []string{"branch", "from", "include-untracked", "dry-run"} {
		laterFlag(fs, name, "", "copying a repository into a machine is not in this version")
	}
	a.outputFlags(cmd, true)
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		i := slices.Index(a.env.Args, "--")
		a.execLike = i >= 0 && i < len(a.env.Args)-1
		return a.flagError(cmd, err)
	})
	a.leaf(cmd, nil)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		argv := []string{}
		if dash := cmd.ArgsLenAtDash(); dash >= 0 {
			args, argv = args[:dash], args[dash:]
		}
		a.execLike = len(argv) > 0
		if len(args) > 0 {
			return runPath(cmd, args)
		}
		req, err := create.request(a, fs)
		if err != nil {
			return err
		}
		if detach {
			return a.runDetached(cmd.Context(), req, argv, remove, create)
		}
		return a.run(cmd.Context(), api.Run{VM: req, Exec: api.Exec{Argv: argv}, End: runEnd(argv, create.entry, remove)}, streams, create)
	}
	return cmd
}

// runPath refuses what stands before the dashes: no path, or one too early.
func runPath(cmd *cobra.Command, args []string) error {
	if isPath(args[0]) {
		return api.Errorf(api.KindUnsupported, "cannot copy %s into a machine: not in this version", args[0])
	}
	return imageHint(cmd, args[0])
}

// runEnd is what becomes of the machine when its command ends.
func runEnd(argv []string, entrypoint string, remove bool) string {
	switch {
	case remove:
		return api.EndRemove
	case len(argv) > 0, entrypoint != "": // no command with an entrypoint is no shell
		return api.EndStop
	}
	return api.EndKeep
}

// run makes a machine, runs one command in it, and ends as that did.
func (a *app) run(ctx context.Context, req api.Run, f streamFlags, create createFlags) error {
	tty, err := f.wantsTTY(a)
	if err != nil {
		return err
	}
	if a.ui.JSON && len(req.Exec.Argv) == 0 && create.entry == "" {
		return api.Errorf(api.KindInvalid, "cannot show a shell as JSON: give a command").WithHint("banger vm run --json -- true")
	}
	if a.ui.Format != "" && !a.ui.JSON {
		return api.Errorf(api.KindInvalid, "cannot use --format without -d: stdout is the command's")
	}
	c, err := a.connect()
	if err != nil {
		return err
	}
	req.VM.AutoRemove = req.End == api.EndRemove
	req.Exec.NoStdin = f.noStdin
	req.Exec.TimeoutMS = create.timeout.Milliseconds()
	if req.Exec.TTY = tty; tty {
		req.Exec.Rows, req.Exec.Cols = a.newTerminal().dimensions()
		req.Exec.Env = a.runTerm(req.VM.Env)
	}
	at := &attachment{tty: tty, noStdin: f.noStdin, timeout: create.timeout}
	cap := a.captured(at, f, false)
	exit, err := a.attach(ctx, c, at, func(ctx context.Context) (*client.Stream, error) { return c.Run(ctx, req) })
	a.noteEnd(exit)
	if err != nil {
		return err
	}
	if cap != nil {
		out := runResult{ExecResult: cap.result(exit, at.beganAt), VM: at.started.VM, Name: exit.Name}
		if err := a.ui.Answer(out, nil); err != nil {
			return err
		}
	}
	return a.commandEnd(exit, create.timeout)
}

// runResult is what `vm run --json -- CMD` prints.
type runResult struct {
	api.ExecResult
	VM   string `json:"vm"`
	Name string `json:"name"`
}

// runTerm passes our terminal's kind on, unless the user gave another.
func (a *app) runTerm(env []string) []string {
	for _, kv := range env {
		if len(kv) >= 5 && kv[:5] == "TERM=" {
			return nil
		}
	}
	return a.execEnv(true)
}

// noteEnd says what became of the machine.
func (a *app) noteEnd(exit api.Exit) {
	name := ui.Clean(exit.Name)
	switch exit.VM {
	case "running":
		a.ui.Note("vm %s keeps running: banger vm shell %s, or banger vm stop %s", name, name, name)
	case "stopped":
		a.ui.Note("vm %s is stopped and kept: banger vm start %s, or banger vm delete %s", name, name, name)
	}
}

// runDetached makes a machine and leaves the command running in it.
func (a *app) runDetached(ctx context.Context, req api.CreateVM, argv []string, remove bool, create createFlags) error {
	a.execLike = false
	if remove {
		return api.Errorf(api.KindUnsupported, "cannot use --rm with -d: not in this version")
	}
	outs, err := a.runOperations(ctx, []string{req.Name}, waiting{timeout: create.timeout}, func(ctx context.Context, c *client.Client, _ string) (api.Operation, error) {
		return c.CreateVM(ctx, req)
	})
	if err != nil {
		return err
	}
	if outs[0].err != nil {
		return outs[0].err
	}
	vm, err := client.Result[api.VM](outs[0].op)
	if err != nil {
		return err
	}
	command := len(argv) > 0 || create.entry != ""
	if command && vm.Changed { // unchanged: the same request, whose command runs already
		if err := a.detach(ctx, vm, argv); err != nil {
			return err
		}
	}
	return a.ui.Answer(vm, func() error { return a.ui.Println(vm.ID) })
}

// detach starts a command in a new machine.
func (a *app) detach(ctx context.Context, vm api.VM, argv []string) error {
	at := &attachment{noStdin: true}
	exit, err := a.attach(ctx, a.client, at, func(ctx context.Context) (*client.Stream, error) {
		return a.client.Exec(ctx, vm.ID, api.Exec{Argv: argv, Entrypoint: true, NoStdin: true, Detach: true})
	})
	if at.began && api.KindOf(err) != api.KindCancelled {
		return nil
	}
	if err != nil {
		return api.AsError(err).WithHint("banger vm show %s", vm.Name)
	}
	a.noteEnd(api.Exit{VM: "running", Name: vm.Name}) // it is there, though its command is not
	return a.commandEnd(exit, 0)
}
