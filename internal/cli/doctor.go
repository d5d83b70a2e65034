package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/cli/ui"
)

func (a *app) doctor() *cobra.Command {
	cmd := &cobra.Command{
		Use: "doctor [flags]", Short: "Check what machines need on this host",
		Long:    "Check what machines need on this host: accelerator, tools, space, permissions, images. The exit code is 1 when a check failed.",
		Example: "  banger doctor\n  banger doctor --json", Args: argCount(0, 0),
	}
	laterFlag(cmd.Flags(), "fix", "", "repairing is not in this version")
	a.outputFlags(cmd, false)
	return a.leaf(cmd, func(ctx context.Context, _ []string) error {
		checks, err := a.checks(ctx)
		if err != nil {
			return err
		}
		err = a.ui.Answer(checks, func() error {
			t := ui.NewTable("CHECK", "STATUS", "FOUND")
			for _, c := range checks {
				found := c.Message
				if c.Hint != "" {
					found += " (hint: " + c.Hint + ")"
				}
				t.Row(c.Name, ui.Cell{Text: c.Status, Mood: checkMoods[c.Status]}, found)
			}
			return a.ui.Table(t)
		})
		if err != nil {
			return err
		}
		for _, c := range checks {
			if c.Status == api.CheckFail {
				return exitStatus(1)
			}
		}
		return nil
	})
}

var checkMoods = map[string]ui.Mood{api.CheckPass: ui.Good, api.CheckWarn: ui.Caution, api.CheckFail: ui.Bad, api.CheckSkip: ui.Faint}

// checks are the daemon's, behind the one it cannot make: whether it can be
// reached, and is of our build.
func (a *app) checks(ctx context.Context) ([]api.Check, error) {
	c, err := a.connect()
	if err != nil {
		return []api.Check{failed("daemon", err)}, nil
	}
	checks, err := c.Doctor(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, err
		}
		return []api.Check{failed("daemon", err)}, nil
	}
	daemon := api.Check{Name: "daemon", Status: api.CheckPass, Message: "answers, of the same build as this command (" + a.version.Build + ")"}
	if b := c.DaemonBuild(); b != "" {
		daemon = api.Check{Name: "daemon", Status: api.CheckWarn, Message: "answers, but is of build " + b + ", this command of " + a.version.Build, Hint: "banger daemon restart"}
	}
	return append([]api.Check{daemon}, checks...), nil
}

func failed(name string, err error) api.Check {
	e := api.AsError(err)
	return api.Check{Name: name, Status: api.CheckFail, Message: e.Message, Hint: e.Hint}
}
