package cli

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/internal/cli/ui"
	"github.com/bangervm/banger/internal/config"
)

func (a *app) config() *cobra.Command {
	return parent(&cobra.Command{Use: "config", Short: "Settings and where they came from", Example: "  banger config show"}, a.configShow())
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
				if n, isNumber := v.Value.(float64); isNumber && isSize(v.Key) {
					text, ok = config.FormatSize(int64(n)), true // as the file takes it
				}
				if !ok && v.Value != nil {
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

// isSize says whether the key is a size, whose value is bytes in JSON.
func isSize(key string) bool {
	return strings.HasSuffix(key, ".memory") || strings.HasSuffix(key, "_size") || strings.HasSuffix(key, "_bytes_per_second")
}
