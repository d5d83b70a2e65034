package cli

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/client"
	"github.com/bangervm/banger/internal/cli/ui"
)

func (a *app) vmDelete() *cobra.Command {
	var w waiting
	var ok consent
	cmd := &cobra.Command{
		Use: "delete VM… [flags]", Aliases: []string{"rm"}, Short: "Delete machines and their disks",
		Long:    "Delete machines and their disks. Each must be named exactly, by name or id.",
		Example: "  banger vm delete web\n  banger vm delete --yes web db\n  banger vm delete --dry-run web",
		Args:    argCount(1, -1), ValidArgsFunction: a.completeVMs(-1),
	}
	w.flags(cmd, true)
	ok.flags(cmd, "do not ask, delete running machines too, and let missing ones be")
	a.outputFlags(cmd, true)
	return a.leaf(cmd, func(ctx context.Context, args []string) error {
		if ok.dryRun {
			return a.vmDeleteDry(ctx, args, ok.force)
		}
		question := fmt.Sprintf("delete %s and all on %s", strings.Join(quoted(args), ", "), pronoun(len(args)))
		if err := a.ask(ctx, ok, question, "banger vm delete --dry-run "+strings.Join(args, " ")); err != nil {
			return err
		}
		outs, err := a.runOperations(ctx, args, w, func(ctx context.Context, c *client.Client, ref string) (api.Operation, error) {
			return c.DeleteVM(ctx, ref, ok.force)
		})
		if err != nil {
			return err
		}
		if len(outs) == 1 && outs[0].err != nil && !(ok.force && api.KindOf(outs[0].err) == api.KindNotFound) {
			return outs[0].err
		}
		if len(outs) == 1 && w.noWait && outs[0].err == nil {
			return a.printBegun(outs[0].op)
		}
		results := make([]api.Result, len(outs))
		for i, out := range outs {
			results[i] = resultOf(out, w.noWait)
			if ok.force && out.err != nil && api.KindOf(out.err) == api.KindNotFound {
				results[i] = api.Result{Ref: out.ref, OK: true}
			}
		}
		return a.printResults(results)
	})
}

// vmDeleteDry says what would go.
func (a *app) vmDeleteDry(ctx context.Context, refs []string, force bool) error {
	c, err := a.connect()
	if err != nil {
		return err
	}
	results := make([]api.Result, len(refs))
	for i, ref := range refs {
		vm, err := c.VM(ctx, ref)
		if err == nil && vm.Name != ref && vm.ID != ref {
			e := api.Errorf(api.KindNotFound, "cannot delete vm %q: it must be named exactly", ref)
			e.Candidates = []string{vm.Name}
			err = e
		}
		if err == nil && !force && vm.Status != api.StatusStopped && vm.Status != api.StatusBroken {
			err = api.Errorf(api.KindBadState, "cannot delete vm %q while it is %s", vm.Name, vm.Status).WithHint("banger vm stop %s", vm.Name)
		}
		if err != nil && force && api.KindOf(err) == api.KindNotFound {
			err = nil
		}
		if err != nil && len(refs) == 1 {
			return err
		}
		results[i] = api.Result{Ref: ref, ID: vm.ID, OK: err == nil, Changed: err == nil && vm.ID != "", Error: api.AsError(err)}
		if results[i].Changed && !a.ui.Structured() {
			a.ui.Note("would delete vm %s (%s) with its disks of %s and %s", ui.Clean(vm.Name), vm.Status, ui.Bytes(vm.DiskBytes), ui.Bytes(vm.SystemOverlayBytes))
		}
	}
	return a.printResults(results)
}

func quoted(words []string) []string {
	out := make([]string, len(words))
	for i, w := range words {
		out[i] = "vm " + ui.Clean(w)
	}
	return out
}

func pronoun(n int) string {
	if n == 1 {
		return "it"
	}
	return "them"
}
