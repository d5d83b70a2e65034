package daemon

import (
	"context"
	"io"
	"log/slog"
	"os"

	"github.com/bangervm/banger/api"
	"github.com/bangervm/banger/internal/config"
	"github.com/bangervm/banger/internal/host"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/version"
)

// Main is `banger daemon run`: it finds folders and configuration from the
// environment, logs to out, and runs.
func Main(ctx context.Context, getenv func(string) string, out io.Writer) error {
	l, err := layout.Resolve(getenv, os.Getuid())
	if err != nil {
		return err
	}
	world := host.New(getenv)
	memory, err := world.MemoryTotal()
	if err != nil {
		return err
	}
	c, err := config.Load(l.ConfigFile(), getenv, config.Facts{CPUs: world.CPUs(), MemoryBytes: memory})
	if err != nil {
		return err
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(c.LogLevel)); err != nil {
		return api.Errorf(api.KindInvalid, "cannot use log_level %q: %w", c.LogLevel, err)
	}
	log := slog.New(slog.NewTextHandler(out, &slog.HandlerOptions{Level: level}))
	return Run(ctx, Options{Layout: l, Config: c, Info: version.Current(), Getenv: getenv, Log: log})
}
