// Command banger is the command line, the daemon and the keeper in one binary.
package main

import (
	"os"

	"github.com/bangervm/banger/internal/cli"
)

func main() {
	os.Exit(cli.Main(cli.Env{
		Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr, Getenv: os.Getenv,
	}))
}
