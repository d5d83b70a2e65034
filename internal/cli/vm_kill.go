package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
)

func (a *app) vmKill() *cobra.Command {
	var req api.KillVM
	cmd := &cobra.Command{
		Use: "kill VM… [flags]", Short: "End machines at once, unsaved data is lost", Example: "  banger vm kill web",
		Args: argCount(1, -1), ValidArgsFunction: a.completeVMs(-1),
	}
	cmd.Flags().StringVarP(&req.Signal, "signal", "s", "", "signal for the machine's process (default KILL)")
	_ = cmd.RegisterFlagCompletionFunc("signal", cobra.FixedCompletions([]string{"KILL", "TERM", "INT", "HUP", "QUIT"}, cobra.ShellCompDirectiveNoFileComp)) // the flag is there
	a.outputFlags(cmd, true)
	return a.leaf(cmd, func(ctx context.Context, args []string) error {
		c, err := a.connect()
		if err != nil {
			return err
		}
		results := make([]api.Result, len(args))
		for i, ref := range args {
			vm, err := c.KillVM(ctx, ref, req)
			if len(args) == 1 {
				if err != nil {
					return err
				}
				a.noteUnchanged(vm)
				return a.printVM(vm)
			}
			results[i] = api.Result{Ref: ref, ID: vm.ID, OK: err == nil, Changed: vm.Changed, Error: api.AsError(err)}
		}
		return a.printResults(results)
	})
}
