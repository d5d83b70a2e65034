package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/cli/ui"
)

func (a *app) events() *cobra.Command {
	var follow bool
	var since int64
	cmd := &cobra.Command{
		Use: "events [flags]", Short: "Show what happened", Example: "  banger events\n  banger events -f --json", Args: argCount(0, 0),
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "show what happens from now on")
	cmd.Flags().Int64Var(&since, "since", 0, "only events after the one with this id")
	a.outputFlags(cmd, false)
	return a.leaf(cmd, func(ctx context.Context, _ []string) error {
		c, err := a.connect()
		if err != nil {
			return err
		}
		if follow {
			return followed(true, c.FollowEvents(ctx, since, func(e api.Event) error {
				return a.ui.Line(e, func() string { return eventLine(e) })
			}))
		}
		events, err := c.Events(ctx, since)
		if err != nil {
			return err
		}
		return a.ui.Answer(events, func() error {
			for _, e := range events {
				if err := a.ui.Println(eventLine(e)); err != nil {
					return err
				}
			}
			return nil
		})
	})
}

func eventLine(e api.Event) string {
	line := e.Time.Local().Format("2006-01-02T15:04:05.000") + " " + e.Kind + " " + e.Target
	if data := sorted(e.Data); data != "" {
		line += " (" + data + ")"
	}
	return ui.Clean(line)
}
