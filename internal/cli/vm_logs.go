package cli

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/client"
	"github.com/bangervm/banger/internal/cli/ui"
	"github.com/bangervm/banger/internal/config"
)

func (a *app) vmLogs() *cobra.Command {
	opts := client.LogOptions{}
	var since string
	cmd := &cobra.Command{
		Use: "logs VM [flags]", Short: "Show a machine's log", Example: "  banger vm logs web\n  banger vm logs -f --tail 20 web",
		Args: argCount(1, 1), ValidArgsFunction: a.completeVMs(1),
	}
	cmd.Flags().BoolVarP(&opts.Follow, "follow", "f", false, "go on with what comes")
	cmd.Flags().StringVar(&since, "since", "", "only from this time (RFC 3339) or this long ago (10m)")
	cmd.Flags().IntVarP(&opts.Tail, "tail", "n", -1, "only the last so many lines (-1: all)")
	cmd.Flags().BoolVar(&opts.Console, "console", false, "the console, also where a command has a log of its own")
	return a.leaf(cmd, func(ctx context.Context, args []string) error {
		if a.ui.JSON {
			return api.Errorf(api.KindInvalid, "cannot print a log as JSON: it is the machine's own bytes")
		}
		if since != "" {
			t, err := timeSince(since, time.Now())
			if err != nil {
				return err
			}
			opts.Since = t
		}
		c, err := a.connect()
		if err != nil {
			return err
		}
		log, err := c.VMLogs(ctx, args[0], opts)
		if err != nil {
			return err
		}
		defer log.Close()
		out := a.env.Stdout
		if a.ui.OutTTY { // raw to a file or a pipe only: it is what a guest chose to say
			sift := ui.NewSift(out)
			defer sift.Close()
			out = sift
		}
		if _, err := io.Copy(out, log); err != nil {
			if cause := context.Cause(ctx); cause != nil {
				return followed(opts.Follow, cause)
			}
			if errors.Is(err, io.ErrUnexpectedEOF) {
				return api.Errorf(api.KindUnavailable, "cannot follow the log: the daemon went away").WithHint("banger daemon status")
			}
			return api.Errorf(api.KindInternal, "cannot print the log: %w", err)
		}
		return nil
	})
}

// followed is the end of what may have been followed: Ctrl-C is how one leaves
// that, and needs no word.
func followed(follow bool, err error) error {
	if follow && api.KindOf(err) == api.KindCancelled {
		return exitStatus(api.KindCancelled.ExitCode())
	}
	return err
}

// timeSince reads a time, or a duration before now.
func timeSince(s string, now time.Time) (time.Time, error) {
	for _, layout := range []string{time.RFC3339Nano, "2006-01-02T15:04:05", "2006-01-02"} {
		if t, err := time.ParseInLocation(layout, s, time.Local); err == nil {
			return t, nil
		}
	}
	d, err := config.ParseDuration(s)
	if err != nil {
		return time.Time{}, api.Errorf(api.KindInvalid, "cannot use --since %q: want a time such as 2026-01-31T12:00:00Z or a duration such as 10m", s)
	}
	return now.Add(-d), nil
}
