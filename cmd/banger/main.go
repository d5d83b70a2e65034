// Command banger is the command line, the daemon and the keeper in one binary.
package main

import (
	"context"
	"os"

	"github.com/bangervm/banger/internal/cli"
	"github.com/bangervm/banger/internal/config"
	"github.com/bangervm/banger/internal/daemon"
	"github.com/bangervm/banger/internal/host"
	"github.com/bangervm/banger/internal/keeper"
	"github.com/bangervm/banger/internal/layout"
	"github.com/bangervm/banger/internal/vmm/cell"
)

func main() {
	os.Exit(cli.Main(cli.Env{
		Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv,
		Config: settings,
		Programs: cli.Programs{
			Daemon: func(ctx context.Context) error { return daemon.Main(ctx, os.Getenv, os.Stderr) },
			Keeper: keeper.Main,
			Cell:   cell.Main,
		},
	}))
}

// settings reads the configuration as the daemon does.
func settings(l layout.Layout) (config.Config, error) {
	world := host.New(os.Getenv)
	memory, err := world.MemoryTotal()
	if err != nil {
		return config.Config{}, err
	}
	return config.Load(l.ConfigFile(), os.Getenv, config.Facts{CPUs: world.CPUs(), MemoryBytes: memory})
}
