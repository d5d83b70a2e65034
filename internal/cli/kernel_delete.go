package cli

import (
	"context"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/cli/ui"
)

func (a *app) kernelDelete() *cobra.Command {
	var ok consent
	cmd := &cobra.Command{
		Use: "delete KERNEL… [flags]", Aliases: []string{"rm"}, Short: "Delete kernels that nothing uses",
		Long:    "Delete kernels and their files. Each must be named exactly, by name or id. One that machines or images use is refused.",
		Example: "  banger kernel delete mine\n  banger kernel delete --yes mine old\n  banger kernel delete --dry-run mine",
		Args:    argCount(1, -1), ValidArgsFunction: a.complete(-1, kernelNames),
	}
	ok.flags(cmd, "do not ask, and let missing ones be")
	a.outputFlags(cmd, true)
	return a.leaf(cmd, func(ctx context.Context, args []string) error {
		if !ok.dryRun {
			words := make([]string, len(args))
			for i, ref := range args {
				words[i] = "kernel " + ui.Clean(ref)
			}
			if err := a.ask(ctx, ok, "delete "+strings.Join(words, ", "), "banger kernel delete --dry-run "+strings.Join(args, " ")); err != nil {
				return err
			}
		}
		c, err := a.connect()
		if err != nil {
			return err
		}
		results := make([]api.Result, len(args))
		for i, ref := range args {
			res, err := c.DeleteKernel(ctx, ref, ok.dryRun)
			switch {
			case err == nil:
				results[i] = res
				if ok.dryRun && !a.ui.Structured() {
					a.ui.Note("would delete kernel %s with its files", ui.Clean(ref))
				}
			case ok.force && api.KindOf(err) == api.KindNotFound:
				results[i] = api.Result{Ref: ref, OK: true}
			case len(args) == 1:
				return err
			default:
				results[i] = api.Result{Ref: ref, Error: api.AsError(err)}
			}
		}
		return a.printResults(results)
	})
}
