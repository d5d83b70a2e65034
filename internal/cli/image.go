package cli

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/client"
	"github.com/bangervm/banger/internal/cli/ui"
)

func (a *app) image() *cobra.Command {
	return parent(&cobra.Command{Use: "image", Short: "Images that machines are made from", Example: "  banger image list\n  banger image catalog\n  banger image pull debian-bookworm"},
		a.imageList(), a.imageShow(), a.imagePull(), a.imageCatalog())
}

func (a *app) imageList() *cobra.Command {
	return listLocal(a, "image", func(ctx context.Context, c *client.Client) ([]api.Image, error) { return c.Images(ctx) },
		[]string{"NAME", "KIND", "KERNEL", "SIZE", "CREATED", "USED BY", "DIGEST"},
		func(im api.Image) string { return im.Name },
		func(im api.Image) []any {
			return []any{im.Name, im.Kind, im.Kernel, ui.Bytes(im.SizeBytes), ui.Ago(time.Now(), im.CreatedAt), count(len(im.UsedBy), "VM"), shortDigest(im.Digest)}
		})
}

func (a *app) imageShow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show IMAGE… [flags]", Aliases: []string{"inspect"}, Short: "Show images", Example: "  banger image show debian-bookworm",
		Args: argCount(1, -1), ValidArgsFunction: a.complete(-1, imageNames),
	}
	a.outputFlags(cmd, false)
	return a.leaf(cmd, func(ctx context.Context, args []string) error {
		c, err := a.connect()
		if err != nil {
			return err
		}
		return showAll(a, args, func(ref string) (api.Image, error) { return c.Image(ctx, ref) }, func(im api.Image) error {
			return a.ui.Fields([][2]string{
				{"name", im.Name}, {"digest", im.Digest}, {"kind", im.Kind}, {"reference", im.Reference}, {"kernel", im.Kernel},
				{"size", ui.Bytes(im.SizeBytes)}, {"created", im.CreatedAt.Local().Format("2006-01-02 15:04:05")},
				{"used by", strings.Join(im.UsedBy, ", ")}, {"env", strings.Join(im.Config.Env, " ")}, {"workdir", im.Config.Workdir},
				{"user", im.Config.User}, {"entrypoint", strings.Join(im.Config.Entrypoint, " ")}, {"cmd", strings.Join(im.Config.Cmd, " ")},
				{"source", sorted(im.Source)},
			})
		})
	})
}

func imageNames(ctx context.Context, c *client.Client) ([]string, error) {
	images, err := c.Images(ctx)
	var names []string
	for _, im := range images {
		names = append(names, im.Name)
	}
	return names, err
}

func (a *app) imagePull() *cobra.Command {
	return pull(a, "image", "debian-bookworm", func(ctx context.Context, c *client.Client) ([]api.CatalogEntry, error) { return c.ImageCatalog(ctx) },
		func(ctx context.Context, c *client.Client, req api.Pull) (api.Operation, error) {
			return c.PullImage(ctx, req)
		},
		func(im api.Image) (string, bool) { return im.Name, im.Changed })
}

func (a *app) imageCatalog() *cobra.Command {
	return a.catalog("image", func(ctx context.Context, c *client.Client) ([]api.CatalogEntry, error) { return c.ImageCatalog(ctx) })
}

// pull is the command of both nouns.
func pull[T any](a *app, noun, example string, catalog func(context.Context, *client.Client) ([]api.CatalogEntry, error),
	begin func(context.Context, *client.Client, api.Pull) (api.Operation, error), name func(T) (string, bool)) *cobra.Command {
	var w waiting
	var force bool
	cmd := &cobra.Command{
		Use: "pull NAME [flags]", Short: "Get " + article(noun), Example: "  banger " + noun + " pull " + example, Args: argCount(1, 1),
		ValidArgsFunction: a.complete(1, func(ctx context.Context, c *client.Client) ([]string, error) {
			entries, err := catalog(ctx, c)
			var names []string
			for _, e := range entries {
				names = append(names, e.Name+"\t"+e.Description)
			}
			return names, err
		}),
	}
	cmd.Flags().BoolVarP(&force, "force", "f", false, "make it anew though it is there")
	w.flags(cmd, true)
	a.outputFlags(cmd, true)
	return a.leaf(cmd, func(ctx context.Context, args []string) error {
		outs, err := a.runOperations(ctx, args, w, func(ctx context.Context, c *client.Client, ref string) (api.Operation, error) {
			return begin(ctx, c, api.Pull{Name: ref, Force: force})
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
		return a.ui.Answer(got, func() error {
			word, changed := name(got)
			if !changed {
				a.ui.Note("%s %s is there already", noun, ui.Clean(word))
			}
			return a.ui.Println(ui.Clean(word))
		})
	})
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

// catalog is the command of both nouns.
func (a *app) catalog(noun string, list func(context.Context, *client.Client) ([]api.CatalogEntry, error)) *cobra.Command {
	cmd := &cobra.Command{Use: "catalog [flags]", Short: "List what can be pulled by name", Example: "  banger " + noun + " catalog", Args: argCount(0, 0)}
	a.outputFlags(cmd, true)
	return a.leaf(cmd, func(ctx context.Context, _ []string) error {
		c, err := a.connect()
		if err != nil {
			return err
		}
		entries, err := list(ctx, c)
		if err != nil {
			return err
		}
		return answerRows(a, entries, []string{"NAME", "KIND", "LOCAL", "DESCRIPTION"},
			func(e api.CatalogEntry) string { return e.Name },
			func(e api.CatalogEntry) []any {
				local := "no"
				if e.Local {
					local = "yes"
				}
				return []any{e.Name, e.Kind, local, e.Description}
			})
	})
}

func article(noun string) string {
	if strings.ContainsRune("aeiou", rune(noun[0])) {
		return "an " + noun
	}
	return "a " + noun
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
