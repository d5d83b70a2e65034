package cli

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/client"
	"github.com/bangervm/banger/internal/cli/ui"
)

// What the commands of images and kernels have in common.

// made waits for the operations begun, of which there is one, and answers with
// the thing it made; tell says its name and what else a person wants to know.
func made[T any](a *app, ctx context.Context, ref string, w waiting, begin func(context.Context, *client.Client) (api.Operation, error), tell func(T) string) error {
	outs, err := a.runOperations(ctx, []string{ref}, w, func(ctx context.Context, c *client.Client, _ string) (api.Operation, error) {
		return begin(ctx, c)
	})
	if err != nil {
		return err
	}
	if outs[0].err != nil {
		return outs[0].err
	}
	if w.noWait {
		return a.printBegun(outs[0].op)
	}
	got, err := client.Result[T](outs[0].op)
	if err != nil {
		return err
	}
	return a.ui.Answer(got, func() error { return a.ui.Println(ui.Clean(tell(got))) })
}

// listLocal is the list command of both nouns.
func listLocal[T any](a *app, noun string, get func(context.Context, *client.Client) ([]T, error),
	header []string, name func(T) string, row func(T) []any) *cobra.Command {
	cmd := &cobra.Command{Use: "list [flags]", Aliases: []string{"ls"}, Short: "List local " + noun + "s", Example: "  banger " + noun + " list", Args: argCount(0, 0)}
	a.outputFlags(cmd, true)
	return a.leaf(cmd, func(ctx context.Context, _ []string) error {
		c, err := a.connect()
		if err != nil {
			return err
		}
		list, err := get(ctx, c)
		if err != nil {
			return err
		}
		return answerRows(a, list, header, name, row)
	})
}

// answerRows answers with a row for each of a list; quiet, with their names alone.
func answerRows[T any](a *app, list []T, header []string, name func(T) string, row func(T) []any) error {
	return a.ui.Answer(list, func() error {
		t := ui.NewTable(header...)
		for _, v := range list {
			if a.ui.Quiet {
				if err := a.ui.Println(name(v)); err != nil {
					return err
				}
				continue
			}
			t.Row(row(v)...)
		}
		if a.ui.Quiet {
			return nil
		}
		return a.ui.Table(t)
	})
}

// catalogNames completes what can be pulled by name.
func catalogNames(list func(*client.Client, context.Context) ([]api.CatalogEntry, error)) func(context.Context, *client.Client) ([]string, error) {
	return func(ctx context.Context, c *client.Client) ([]string, error) {
		entries, err := list(c, ctx)
		var names []string
		for _, e := range entries {
			names = append(names, e.Name+"\t"+e.Description)
		}
		return names, err
	}
}

// count is 0, 1 VM, 2 VMs; empty for none.
func count(n int, what string) string {
	switch n {
	case 0:
		return ""
	case 1:
		return "1 " + what
	}
	return strconv.Itoa(n) + " " + what + "s"
}

// shortDigest is enough of a digest to tell things apart.
func shortDigest(d string) string {
	algo, sum, ok := strings.Cut(d, ":")
	if !ok || len(sum) <= 12 {
		return d
	}
	return algo + ":" + sum[:12]
}

// absolute is a path as the daemon, which runs in another folder, understands it;
// empty stays empty.
func absolute(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return "", api.Errorf(api.KindInvalid, "cannot use path %s: %w", ui.Clean(path), err)
	}
	if _, err := os.Stat(abs); err != nil {
		kind := api.KindInvalid
		switch {
		case os.IsNotExist(err):
			kind = api.KindNotFound
		case os.IsPermission(err):
			kind = api.KindDenied
		}
		return "", api.Errorf(kind, "cannot use %s: %w", ui.Clean(path), err)
	}
	return abs, nil
}
