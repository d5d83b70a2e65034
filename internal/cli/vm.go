package cli

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/client"
	"github.com/bangervm/banger/internal/cli/ui"
)

func (a *app) vm() *cobra.Command {
	return parent(&cobra.Command{Use: "vm", Short: "Machines: run, look at, change and delete them",
		Example: "  banger vm run\n  banger vm run --rm -- uname -a\n  banger vm list\n  banger vm exec web uname -a\n  banger vm delete web"},
		a.vmRun(), a.vmCreate(), a.vmStart(), a.vmStop(), a.vmRestart(), a.vmKill(), a.vmDelete(), a.vmRename(), a.vmWait(),
		a.vmList(), a.vmShow(), a.vmSet(), a.vmLogs(), a.vmExec(), a.vmShell(), a.vmPrune())
}

// printVM answers with one VM: its name, under -q its id.
func (a *app) printVM(vm api.VM) error {
	return a.ui.Answer(vm, func() error {
		if a.ui.Quiet {
			return a.ui.Println(vm.ID)
		}
		return a.ui.Println(ui.Clean(vm.Name))
	})
}

// printBegun answers under --no-wait: the operation's id.
func (a *app) printBegun(op api.Operation) error {
	return a.ui.Answer(op, func() error { return a.ui.Println(op.ID) })
}

// vmOperations is the body of start, stop, restart: one operation for each
// reference. With one reference the answer is the VM, with several the results.
func (a *app) vmOperations(ctx context.Context, refs []string, w waiting, begin func(context.Context, *client.Client, string) (api.Operation, error)) error {
	outs, err := a.runOperations(ctx, refs, w, begin)
	if err != nil {
		return err
	}
	if len(outs) == 1 {
		out := outs[0]
		if out.err != nil {
			return out.err
		}
		if w.noWait {
			return a.printBegun(out.op)
		}
		vm, err := client.Result[api.VM](out.op)
		if err != nil {
			return err
		}
		if out.op.Kind == "vm.create" && !vm.Changed {
			a.ui.Note("vm %s was made by this request id already", ui.Clean(vm.Name))
		} else {
			a.noteUnchanged(vm)
		}
		return a.printVM(vm)
	}
	results := make([]api.Result, len(outs))
	for i, out := range outs {
		results[i] = resultOf(out, w.noWait)
	}
	return a.printResults(results)
}

// noteUnchanged tells people that a VM was already as they want it.
func (a *app) noteUnchanged(vm api.VM) {
	if !vm.Changed {
		a.ui.Note("vm %s is %s already", ui.Clean(vm.Name), vm.Status)
	}
}

// resultOf turns how one reference ended into a line of results.
func resultOf(out outcome, noWait bool) api.Result {
	r := api.Result{Ref: out.ref, ID: out.op.Target}
	if out.err != nil {
		r.Error = api.AsError(out.err)
		return r
	}
	r.OK, r.Changed = true, true
	if noWait {
		return r
	}
	if vm, err := client.Result[api.VM](out.op); err == nil {
		r.ID, r.Changed = vm.ID, vm.Changed
	}
	return r
}

// printResults answers for several references: the good ones on stdout, errors
// on stderr, all in the order given. The exit code is that of the first failure.
func (a *app) printResults(results []api.Result) error {
	var first *api.Error
	for _, r := range results {
		if r.Error != nil && first == nil {
			first = r.Error
		}
	}
	err := a.ui.Answer(results, func() error {
		for _, r := range results {
			if r.Error != nil {
				a.ui.Error(r.Error, a.wantsJSONErrors(), false)
				continue
			}
			word := r.Ref
			if a.ui.Quiet && r.ID != "" {
				word = r.ID
			}
			if err := a.ui.Println(ui.Clean(word)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	if first != nil {
		return exitStatus(first.Kind.ExitCode())
	}
	return nil
}

// vmTable lists VMs for people.
func (a *app) vmTable(vms []api.VM) error {
	t := ui.NewTable("NAME", "ID", "STATUS", "IMAGE", "CPU", "MEMORY", "DISK", "CREATED")
	now := time.Now()
	for _, vm := range vms {
		t.Row(vm.Name, vm.ID, statusCell(vm), vm.Image.Name, fmt.Sprint(vm.VCPUs), ui.Bytes(vm.MemoryBytes), ui.Bytes(vm.DiskBytes), ui.Ago(now, vm.CreatedAt))
	}
	return a.ui.Table(t)
}

func statusCell(vm api.VM) ui.Cell {
	c := ui.Cell{Text: string(vm.Status), Mood: ui.Caution}
	switch vm.Status {
	case api.StatusRunning:
		c.Mood = ui.Good
	case api.StatusStopped:
		c.Mood = ui.Faint
	case api.StatusBroken:
		c.Mood = ui.Bad
	}
	if vm.Error != nil && vm.Status != api.StatusBroken {
		c.Text += " (error)"
		c.Mood = ui.Bad
	}
	return c
}

// sorted gives K=V words in order.
func sorted(m map[string]string) string {
	words := make([]string, 0, len(m))
	for _, k := range slices.Sorted(maps.Keys(m)) {
		w := k
		if m[k] != "" {
			w += "=" + m[k]
		}
		words = append(words, w)
	}
	return strings.Join(words, ", ")
}

// completeVMs offers the names of VMs; silently nothing when no daemon answers.
func (a *app) completeVMs(most int) cobra.CompletionFunc {
	return a.complete(most, func(ctx context.Context, c *client.Client) ([]string, error) {
		vms, err := c.VMs(ctx)
		var names []string
		for _, vm := range vms {
			names = append(names, vm.Name+"\t"+string(vm.Status))
		}
		return names, err
	})
}

// completeFlags offers what the flags of cmd and of all below it take: closed
// lists, and names that live in the daemon. Only a file's flag is given files.
func (a *app) completeFlags(cmd *cobra.Command) {
	for _, fs := range []*pflag.FlagSet{cmd.Flags(), cmd.PersistentFlags()} {
		fs.VisitAll(func(f *pflag.Flag) {
			offer := cobra.CompletionFunc(cobra.NoFileCompletions)
			switch c, closed := f.Value.(*choice); {
			case closed:
				offer = cobra.FixedCompletions(c.allowed, cobra.ShellCompDirectiveNoFileComp)
			case f.Name == "image":
				offer = a.complete(-1, namesOf(imageNames, (*client.Client).ImageCatalog))
			case f.Name == "kernel":
				offer = a.complete(-1, namesOf(kernelNames, (*client.Client).KernelCatalog))
			case f.Name == "filter":
				offer = cobra.FixedCompletions([]string{"status=", "label="}, cobra.ShellCompDirectiveNoFileComp|cobra.ShellCompDirectiveNoSpace)
			case f.Name == "env-file":
				return
			}
			_ = cmd.RegisterFlagCompletionFunc(f.Name, offer) // fails only where it is set already
		})
	}
	for _, sub := range cmd.Commands() {
		a.completeFlags(sub)
	}
}

// namesOf gives what is local and what the catalog has besides.
func namesOf(local func(context.Context, *client.Client) ([]string, error), catalog func(*client.Client, context.Context) ([]api.CatalogEntry, error)) func(context.Context, *client.Client) ([]string, error) {
	return func(ctx context.Context, c *client.Client) ([]string, error) {
		names, err := local(ctx, c)
		if err != nil {
			return nil, err
		}
		entries, err := catalog(c, ctx)
		for _, e := range entries {
			if !slices.Contains(names, e.Name) {
				names = append(names, e.Name+"\t"+e.Description)
			}
		}
		return names, err
	}
}

// complete offers what list gives for the first most arguments (-1: all),
// starting no daemon and waiting for none.
func (a *app) complete(most int, list func(context.Context, *client.Client) ([]string, error)) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		if most >= 0 && len(args) >= most {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		a.startsUp = false
		c, err := a.connect()
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		names, err := list(ctx, c)
		if err != nil {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		return slices.DeleteFunc(names, func(n string) bool {
			word, _, _ := strings.Cut(n, "\t")
			return slices.Contains(args, word)
		}), cobra.ShellCompDirectiveNoFileComp
	}
}
