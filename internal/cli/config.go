package cli

import (
	"context"
	"encoding/json"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/internal/cli/ui"
)

func (a *app) config() *cobra.Command {
	return parent(&cobra.Command{Use: "config", Short: "Settings and where they came from"}, a.configShow())
}

func (a *app) configShow() *cobra.Command {
	cmd := &cobra.Command{
		Use: "show [flags]", Short: "Show all settings and where each came from", Example: "  banger config show", Args: argCount(0, 0),
	}
	a.outputFlags(cmd, false)
	return a.leaf(cmd, func(ctx context.Context, _ []string) error {
		c, err := a.connect()
		if err != nil {
			return err
		}
		values, err := c.Config(ctx)
		if err != nil {
			return err
		}
		return a.ui.Answer(values, func() error {
			t := ui.NewTable("KEY", "VALUE", "SOURCE")
			for _, v := range values {
				text, ok := v.Value.(string)
				if !ok {
					b, err := json.Marshal(v.Value)
					if err != nil {
						return err
					}
					text = string(b)
				}
				t.Row(v.Key, text, v.Source)
			}
			return a.ui.Table(t)
		})
	})
}
