package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/bangervm/banger/internal/config"
)

// helpWithDefaults shows the help of a command that makes machines, its
// defaults as they are on this host.
func (a *app) helpWithDefaults(cmd *cobra.Command, _ []string) {
	if a.env.Config != nil && a.resolveLayout() == nil {
		if cfg, err := a.env.Config(a.layout); err == nil { // else another command tells what is wrong with it
			setDefaults(cmd.Flags(), cfg)
		}
	}
	text := cmd.Long
	if text == "" {
		text = cmd.Short
	}
	fmt.Fprintln(cmd.OutOrStdout(), text+"\n\n"+strings.TrimRight(cmd.UsageString(), "\n"))
}

func setDefaults(fs *pflag.FlagSet, cfg config.Config) {
	for name, value := range map[string]string{
		"image":               cfg.DefaultImageName,
		"vcpu":                fmt.Sprint(cfg.VMDefaults.VCPU),
		"memory":              config.FormatSize(cfg.VMDefaults.Memory),
		"disk-size":           config.FormatSize(cfg.VMDefaults.DiskSize) + ", sparse",
		"system-overlay-size": config.FormatSize(cfg.VMDefaults.SystemOverlaySize) + ", sparse",
		"network":             cfg.Network,
		"driver":              cfg.Driver,
		"accel":               cfg.Accel,
	} {
		f := fs.Lookup(name)
		if f == nil {
			continue
		}
		if i := strings.LastIndex(f.Usage, "(default "); i >= 0 {
			f.Usage = f.Usage[:i] + "(default " + value + ")"
		}
	}
}
