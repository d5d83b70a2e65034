package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
)

func (a *app) vmList() *cobra.Command {
	var filters []string
	cmd := &cobra.Command{
		Use: "list [flags]", Aliases: []string{"ls"}, Short: "List machines",
		Example: "  banger vm list\n  banger vm list --filter status=stopped --filter label=project=shop\n  banger vm list --json",
		Args:    argCount(0, 0),
	}
	cmd.Flags().StringArrayVar(&filters, "filter", nil, "only those with label=KEY, label=KEY=VALUE or status=STATUS; may be repeated")
	a.outputFlags(cmd, true)
	return a.leaf(cmd, func(ctx context.Context, _ []string) error { return a.listVMs(ctx, filters) })
}

// splitFilters reads also several conditions in one word: label=a,status=running.
func splitFilters(words []string) []string {
	var out []string
	for _, w := range words {
		for part := range strings.SplitSeq(w, ",") {
			key, _, _ := strings.Cut(part, "=")
			if begins := key == "label" || key == "status" || key == "name"; begins || len(out) == 0 {
				out = append(out, part)
			} else { // a comma within a value
				out[len(out)-1] += "," + part
			}
		}
	}
	return out
}

func (a *app) ps() *cobra.Command {
	cmd := &cobra.Command{Use: "ps [flags]", Short: "List running machines", Example: "  banger ps", Args: argCount(0, 0)}
	a.outputFlags(cmd, true)
	return a.leaf(cmd, func(ctx context.Context, _ []string) error {
		return a.listVMs(ctx, []string{"status=" + string(api.StatusRunning)})
	})
}

func (a *app) listVMs(ctx context.Context, filters []string) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	vms, err := c.VMs(ctx, splitFilters(filters)...)
	if err != nil {
		return err
	}
	return a.ui.Answer(vms, func() error {
		if !a.ui.Quiet {
			return a.vmTable(vms)
		}
		for _, vm := range vms {
			if err := a.ui.Println(vm.ID); err != nil {
				return err
			}
		}
		return nil
	})
}
