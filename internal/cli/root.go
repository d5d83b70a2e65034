package cli

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/cli/ui"
)

// NewCommand gives the whole tree of commands, for those who describe it. It
// is not meant to be run.
func NewCommand() *cobra.Command {
	return newApp(Env{Getenv: func(string) string { return "" }}).root()
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "banger",
		Short: "A real Linux machine of your own with one command",
		Long:  "banger gives you, or a coding agent, a real Linux machine (a microVM) with one command.",
		Example: `  banger vm run                      # a shell in a fresh machine
  banger vm run --rm -- uname -a     # one command, its exit code becomes ours
  banger vm list`,
	}
	parent(root)
	root.SilenceErrors, root.SilenceUsage = true, true
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetHelpCommand(&cobra.Command{Use: "help", Hidden: true, RunE: func(_ *cobra.Command, args []string) error {
		cmd, rest, err := root.Find(args)
		if err != nil || cmd == nil || len(rest) > 0 {
			return api.Errorf(api.KindInvalid, "cannot help with %q: no such command", strings.Join(args, " ")).WithHint("banger --help")
		}
		return cmd.Help()
	}})
	root.SetUsageTemplate(usageTemplate)
	root.SetFlagErrorFunc(a.flagError)
	pf := root.PersistentFlags()
	pf.BoolVar(&a.ui.JSON, "json", false, "print one JSON document; errors too, on stderr")
	pf.Var(&choice{value: &a.ui.Progress, allowed: []string{ui.ProgressAuto, ui.ProgressPlain, ui.ProgressJSON, ui.ProgressNone}}, "progress", "how to show progress on stderr: auto, plain, json or none")
	root.PersistentPreRunE = func(*cobra.Command, []string) error { return a.before() }

	root.AddGroup(&cobra.Group{ID: "short", Title: "Short forms:"}, &cobra.Group{ID: "nouns", Title: "Commands:"}, &cobra.Group{ID: "host", Title: "The host:"})
	group := func(id string, cmds ...*cobra.Command) {
		for _, c := range cmds {
			c.GroupID = id
			root.AddCommand(c)
		}
	}
	run, exec, ps := a.vmRun(), a.vmExec(), a.ps()
	run.Short += " (vm run)"
	exec.Short += " (vm exec)"
	group("short", run, exec, ps)
	group("nouns", a.vm(), a.image(), a.kernel(), a.operation(), a.events())
	group("host", a.daemon(), a.doctor(), a.config(), a.system(), a.completion(), a.versionCommand())
	a.completeFlags(root)
	return root
}

// parent makes cmd one that only has commands under it.
func parent(cmd *cobra.Command, children ...*cobra.Command) *cobra.Command {
	cmd.Args = cobra.ArbitraryArgs
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) == 0 {
			return cmd.Help()
		}
		err := api.Errorf(api.KindInvalid, "unknown command %q for %q", args[0], cmd.CommandPath())
		if near := cmd.SuggestionsFor(args[0]); len(near) > 0 {
			return err.WithHint("%s %s", cmd.CommandPath(), near[0])
		}
		return err.WithHint("%s --help", cmd.CommandPath())
	}
	cmd.SuggestionsMinimumDistance = 2
	cmd.AddCommand(children...)
	return cmd
}

// before runs once the flags of any command are read.
func (a *app) before() error {
	if a.ui.Format != "" {
		if a.ui.JSON {
			return api.Errorf(api.KindInvalid, "cannot use --json and --format together")
		}
		return ui.ParseFormat(a.ui.Format)
	}
	return nil
}

// flagError gives every fault in the flags the kind invalid, unless it has one.
func (a *app) flagError(cmd *cobra.Command, err error) error {
	var known *api.Error
	if errors.As(err, &known) {
		e := known
		if !strings.HasPrefix(known.Message, "cannot ") { // does not say it all
			e = api.AsError(err)
		}
		switch {
		case strings.HasPrefix(e.Hint, "--"):
			return e.WithHint("%s %s", cmd.CommandPath(), e.Hint)
		case e.Hint == "" && e.Kind == api.KindInvalid:
			return e.WithHint("%s --help", cmd.CommandPath())
		}
		return e
	}
	return api.Errorf(api.KindInvalid, "%s", plainNumbers(err.Error())).WithHint("%s --help", cmd.CommandPath())
}

// plainNumbers says what a flag wants in our words rather than in those of Go's
// parser.
func plainNumbers(s string) string {
	s, said, found := strings.Cut(s, "strconv.Parse")
	switch {
	case !found:
		return s
	case strings.HasSuffix(said, "out of range"):
		return s + "the number is too large"
	case strings.HasPrefix(said, "Bool"):
		return s + "want true or false"
	}
	return s + "want a whole number"
}

// argCount refuses too few and too many arguments, in the words of the usage.
func argCount(least, most int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < least:
			return api.Errorf(api.KindInvalid, "%s: too few arguments; usage: %s", cmd.CommandPath(), cmd.UseLine()).WithHint("%s --help", cmd.CommandPath())
		case most >= 0 && len(args) > most:
			return api.Errorf(api.KindInvalid, "%s: unexpected argument %q; usage: %s", cmd.CommandPath(), args[most], cmd.UseLine()).WithHint("%s --help", cmd.CommandPath())
		}
		for _, arg := range args {
			if arg == "" {
				return api.Errorf(api.KindInvalid, "%s: an argument is empty", cmd.CommandPath()).WithHint("%s --help", cmd.CommandPath())
			}
		}
		return nil
	}
}

// outputFlags adds --format, and where ids make sense -q.
func (a *app) outputFlags(cmd *cobra.Command, ids bool) {
	cmd.Flags().StringVar(&a.ui.Format, "format", "", "print by a Go template over the JSON object, e.g. '{{.name}}'")
	if ids {
		cmd.Flags().BoolVarP(&a.ui.Quiet, "quiet", "q", false, "print ids only")
	}
}

// leaf fills in what every command that does something has in common.
func (a *app) leaf(cmd *cobra.Command, run func(ctx context.Context, args []string) error) *cobra.Command {
	cmd.DisableFlagsInUseLine = true
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return run(cmd.Context(), args) }
	if cmd.ValidArgsFunction == nil && cmd.ValidArgs == nil {
		cmd.ValidArgsFunction = cobra.NoFileCompletions
	}
	return cmd
}

// laterFlag adds a hidden flag that a later banger has: it is refused with what
// to know and perhaps a hint.
func laterFlag(fs *pflag.FlagSet, name, short, what string, hint ...string) {
	err := api.Errorf(api.KindUnsupported, "cannot use --%s: %s", name, what)
	if len(hint) > 0 {
		err = err.WithHint("%s", hint[0])
	}
	f := fs.VarPF(refused{err}, name, short, "")
	f.Hidden = true
	f.NoOptDefVal = "true" // refused with and without a value
}

// refused is the value of a flag that is not taken.
type refused struct{ err error }

func (r refused) Set(string) error { return r.err }
func (refused) String() string     { return "" }
func (refused) Type() string       { return "" }

// choice is a flag with a closed list of values. refused names those that exist
// but not in this banger, and why.
type choice struct {
	value   *string
	allowed []string
	refused map[string]string
}

func (c *choice) Set(s string) error {
	for _, a := range c.allowed {
		if s == a {
			*c.value = s
			return nil
		}
	}
	if why, ok := c.refused[s]; ok {
		return api.Errorf(api.KindUnsupported, "%s", why)
	}
	return fmt.Errorf("want %s", orList(c.allowed))
}

func (c *choice) String() string {
	if c.value == nil {
		return ""
	}
	return *c.value
}
func (c *choice) Type() string { return strings.Join(c.allowed, "|") }

// orList joins words as a sentence does: a, b or c.
func orList(words []string) string {
	if len(words) < 2 {
		return strings.Join(words, "")
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

const usageTemplate = `Usage:{{if and .Runnable (not .HasAvailableSubCommands)}}
  {{.UseLine}}{{end}}{{if .HasAvailableSubCommands}}
  {{.CommandPath}} COMMAND{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}{{$cmds := .Commands}}{{if eq (len .Groups) 0}}

Commands:{{range $cmds}}{{if .IsAvailableCommand}}
  {{rpad .Name .NamePadding }} {{.Short}}{{end}}{{end}}{{else}}{{range $group := .Groups}}

{{.Title}}{{range $cmds}}{{if (and (eq .GroupID $group.ID) .IsAvailableCommand)}}
  {{rpad .Name .NamePadding }} {{.Short}}{{end}}{{end}}{{end}}{{end}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableInheritedFlags}}

Global flags:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableSubCommands}}

More with: {{.CommandPath}} COMMAND --help{{end}}
`
