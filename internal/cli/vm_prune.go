package cli

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/cli/ui"
)

func (a *app) vmPrune() *cobra.Command {
	var ok consent
	var req api.PruneVMs
	var stopped time.Duration
	cmd := &cobra.Command{
		Use: "prune [flags]", Short: "Delete stopped machines",
		Long:    "Delete stopped machines and their disks, after listing them.",
		Example: "  banger vm prune --dry-run\n  banger vm prune --stopped-for 24h --filter label=project=shop",
		Args:    argCount(0, 0),
	}
	cmd.Flags().Var(&durationFlag{d: &stopped}, "stopped-for", "only those stopped for at least this long")
	cmd.Flags().StringArrayVar(&req.Filters, "filter", nil, "only those with label=KEY or label=KEY=VALUE; may be repeated")
	ok.flags(cmd, "")
	a.outputFlags(cmd, true)
	return a.leaf(cmd, func(ctx context.Context, _ []string) error {
		c, err := a.connect()
		if err != nil {
			return err
		}
		req.Filters = splitFilters(req.Filters)
		req.StoppedForMS = stopped.Milliseconds()
		req.DryRun = true
		would, err := c.PruneVMs(ctx, req)
		if err != nil || ok.dryRun || len(would) == 0 {
			if err == nil && len(would) == 0 {
				a.ui.Note("no machine to delete")
			}
			if err != nil {
				return err
			}
			return a.printResults(would)
		}
		for _, r := range would {
			a.ui.Note("will delete vm %s", ui.Clean(r.Ref))
		}
		if err := a.ask(ctx, ok, fmt.Sprintf("delete %d stopped machines and all on them", len(would)), "banger vm prune --dry-run"); err != nil {
			return err
		}
		req.DryRun = false
		gone, err := c.PruneVMs(ctx, req)
		if err != nil {
			return err
		}
		return a.printResults(gone)
	})
}
