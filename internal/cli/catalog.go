package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/client"
	"github.com/bangervm/banger/internal/cli/ui"
)

// staleAfter is how old a catalog may be before its age is told of.
const staleAfter = 24 * time.Hour

// catalog is the command of both nouns.
func (a *app) catalog(noun string, list, refreshed func(*client.Client, context.Context) ([]api.CatalogEntry, error)) *cobra.Command {
	var refresh bool
	cmd := &cobra.Command{
		Use: "catalog [flags]", Short: "List what can be pulled by name",
		Long: "List what can be pulled by name: what comes with banger, then what the catalogs of config.toml have, in their order.\n" +
			"Where two have a name, the earlier one's is pulled.",
		Example: "  banger " + noun + " catalog\n  banger " + noun + " catalog --refresh", Args: argCount(0, 0),
	}
	cmd.Flags().BoolVar(&refresh, "refresh", false, "ask the configured catalogs for what is new")
	a.outputFlags(cmd, true)
	return a.leaf(cmd, func(ctx context.Context, _ []string) error {
		c, err := a.connect()
		if err != nil {
			return err
		}
		get := list
		if refresh {
			get = refreshed
		}
		entries, err := get(c, ctx)
		if err != nil {
			return err
		}
		a.tellCatalogs(ctx, c, noun)
		for _, e := range entries {
			if e.ShadowedBy != "" {
				a.ui.Note("%s of the catalog %s is not to be had by its name: %s has one too", ui.Clean(e.Name), ui.Clean(e.Catalog), ui.Clean(e.ShadowedBy))
			}
		}
		return answerRows(a, entries, []string{"NAME", "KIND", "CATALOG", "LOCAL", "DESCRIPTION"},
			func(e api.CatalogEntry) string { return e.Name },
			func(e api.CatalogEntry) []any {
				local, kind := "no", e.Kind
				if e.Local {
					local = "yes"
				}
				if e.Unsupported != "" {
					kind = "unsupported"
					e.Description = e.Unsupported
				}
				return []any{e.Name, kind, e.Catalog, local, e.Description}
			})
	})
}

// tellCatalogs says which catalogs could not be read, or are old. That this
// cannot be learnt spoils no answer.
func (a *app) tellCatalogs(ctx context.Context, c *client.Client, noun string) {
	all, err := c.Catalogs(ctx)
	if err != nil {
		return
	}
	for _, cat := range all {
		old := time.Since(cat.FetchedAt)
		switch {
		case cat.Error != nil && cat.Entries == 0:
			a.ui.Note("the catalog %s could not be read: %s", ui.Clean(cat.Name), ui.Clean(cat.Error.Message))
		case cat.Error != nil:
			a.ui.Note("the catalog %s is as it was %s: %s", ui.Clean(cat.Name), ui.Ago(time.Now(), cat.FetchedAt), ui.Clean(cat.Error.Message))
		case old > staleAfter && !cat.FetchedAt.IsZero():
			a.ui.Note("the catalog %s is as it was %s; banger %s catalog --refresh asks for what is new", ui.Clean(cat.Name), ui.Ago(time.Now(), cat.FetchedAt), noun)
		}
	}
}
