package cli

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/client"
	"github.com/bangervm/banger/internal/cli/ui"
)

func (a *app) operation() *cobra.Command {
	return parent(&cobra.Command{Use: "operation", Short: "Long work: see it, wait for it, cancel it", Example: "  banger operation list\n  banger vm create --no-wait\n  banger operation wait ID"},
		a.operationList(), a.operationShow(), a.operationWait(), a.operationCancel(), a.operationPrune())
}

func (a *app) operationList() *cobra.Command {
	cmd := &cobra.Command{Use: "list [flags]", Aliases: []string{"ls"}, Short: "List operations", Example: "  banger operation list", Args: argCount(0, 0)}
	a.outputFlags(cmd, true)
	return a.leaf(cmd, func(ctx context.Context, _ []string) error {
		c, err := a.connect()
		if err != nil {
			return err
		}
		ops, err := c.Operations(ctx)
		if err != nil {
			return err
		}
		return a.printOperations(ops)
	})
}

func (a *app) printOperations(ops []api.Operation) error {
	return answerRows(a, ops, []string{"ID", "KIND", "TARGET", "STATUS", "STAGE", "BEGAN"},
		func(op api.Operation) string { return op.ID },
		func(op api.Operation) []any {
			stage := op.Stage
			if op.Error != nil {
				stage = op.Error.Message
			} else if client.Finished(op) {
				stage = ""
			}
			return []any{op.ID, op.Kind, op.Target, operationCell(op.Status), stage, ui.Ago(time.Now(), op.CreatedAt)}
		})
}

func operationCell(s api.OperationStatus) ui.Cell {
	mood := map[api.OperationStatus]ui.Mood{
		api.OperationRunning: ui.Caution, api.OperationSucceeded: ui.Good, api.OperationFailed: ui.Bad,
		api.OperationCancelled: ui.Faint, api.OperationInterrupted: ui.Bad,
	}[s]
	return ui.Cell{Text: string(s), Mood: mood}
}

func (a *app) operationShow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show OPERATION… [flags]", Aliases: []string{"inspect"}, Short: "Show operations", Example: "  banger operation show ID",
		Args: argCount(1, -1), ValidArgsFunction: a.complete(-1, operationIDs(false)),
	}
	a.outputFlags(cmd, false)
	return a.leaf(cmd, func(ctx context.Context, args []string) error {
		c, err := a.connect()
		if err != nil {
			return err
		}
		return showAll(a, args, func(ref string) (api.Operation, error) { return c.Operation(ctx, ref) }, func(op api.Operation) error {
			return a.ui.Fields(operationFields(op))
		})
	})
}

func operationFields(op api.Operation) [][2]string {
	fields := [][2]string{
		{"id", op.ID}, {"kind", op.Kind}, {"target", op.Target}, {"status", string(op.Status)}, {"stage", op.Stage},
		{"progress", ui.Amount(op.Progress)}, {"began", op.CreatedAt.Local().Format("2006-01-02 15:04:05")},
	}
	if op.FinishedAt != nil {
		fields = append(fields, [2]string{"took", ui.Elapsed(op.FinishedAt.Sub(op.CreatedAt))})
	}
	if op.Error != nil {
		fields = append(fields, [2]string{"error", op.Error.Message}, [2]string{"hint", op.Error.Hint})
	}
	for _, s := range op.Steps {
		took := ""
		if s.StartedAt != nil && s.FinishedAt != nil {
			took = " (" + ui.Elapsed(s.FinishedAt.Sub(*s.StartedAt)) + ")"
		}
		fields = append(fields, [2]string{"step", s.Name + ": " + s.Status + took})
	}
	return fields
}

func (a *app) operationWait() *cobra.Command {
	var w waiting
	cmd := &cobra.Command{
		Use: "wait OPERATION [flags]", Short: "Wait for the end of an operation",
		Long: "Wait for the end of an operation. The exit code is that of the operation. Ctrl-C ends the waiting, not the operation.", Example: "  banger operation wait ID --timeout 5m",
		Args: argCount(1, 1), ValidArgsFunction: a.complete(1, operationIDs(true)),
	}
	cmd.Flags().Var(&durationFlag{d: &w.timeout}, "timeout", "give up waiting after this long (exit code 124)")
	a.outputFlags(cmd, false)
	return a.leaf(cmd, func(ctx context.Context, args []string) error {
		c, err := a.connect()
		if err != nil {
			return err
		}
		op, err := a.waitOperation(ctx, c, args[0], w)
		if err != nil {
			return err
		}
		failed := client.OperationError(op)
		if failed != nil && !a.ui.Structured() {
			return failed
		}
		err = a.ui.Answer(op, func() error { return a.ui.Println(op.ID) })
		if err == nil && failed != nil {
			return exitStatus(api.KindOf(failed).ExitCode())
		}
		return err
	})
}

// waitOperation follows an operation that another call began.
func (a *app) waitOperation(ctx context.Context, c *client.Client, id string, w waiting) (api.Operation, error) {
	if w.timeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, w.timeout)
		defer cancel()
	}
	p := a.ui.NewProgress(false)
	defer p.Close()
	op, err := watch(ctx, c, id, func(op api.Operation) { p.Update(id, op) })
	if api.KindOf(err) == api.KindTimeout {
		e := api.Errorf(api.KindTimeout, "operation %s still runs after %s", id, w.timeout).WithHint("banger operation show %s", id)
		e.OperationID = id
		return op, e
	}
	return op, err
}

func (a *app) operationCancel() *cobra.Command {
	cmd := &cobra.Command{
		Use: "cancel OPERATION… [flags]", Short: "Cancel operations: what they did is undone", Example: "  banger operation cancel ID",
		Args: argCount(1, -1), ValidArgsFunction: a.complete(-1, operationIDs(true)),
	}
	a.outputFlags(cmd, false)
	return a.leaf(cmd, func(ctx context.Context, args []string) error {
		c, err := a.connect()
		if err != nil {
			return err
		}
		return showAll(a, args, func(ref string) (api.Operation, error) { return c.CancelOperation(ctx, ref) }, func(op api.Operation) error {
			return a.ui.Println(op.ID)
		})
	})
}

func (a *app) operationPrune() *cobra.Command {
	cmd := &cobra.Command{
		Use: "prune [flags]", Short: "Forget finished operations",
		Long:    "Forget finished operations. Only the account of them goes, never what they made, so nobody is asked first; running ones stay.",
		Example: "  banger operation prune", Args: argCount(0, 0),
	}
	cmd.Flags().BoolP("yes", "y", false, "taken as by the other prunes; nothing is asked here")
	a.outputFlags(cmd, false)
	return a.leaf(cmd, func(ctx context.Context, _ []string) error {
		c, err := a.connect()
		if err != nil {
			return err
		}
		ops, err := c.PruneOperations(ctx)
		if err != nil {
			return err
		}
		return a.ui.Answer(ops, func() error {
			ids := make([]string, len(ops))
			for i, op := range ops {
				ids[i] = op.ID + "\n"
			}
			a.ui.Note("forgot %d finished operations", len(ops))
			_, err := a.env.Stdout.Write([]byte(strings.Join(ids, "")))
			return err
		})
	})
}

// operationIDs completes ids, of running operations only if asked.
func operationIDs(running bool) func(context.Context, *client.Client) ([]string, error) {
	return func(ctx context.Context, c *client.Client) ([]string, error) {
		ops, err := c.Operations(ctx)
		var ids []string
		for _, op := range ops {
			if !running || !client.Finished(op) {
				ids = append(ids, op.ID+"\t"+op.Kind)
			}
		}
		return ids, err
	}
}
