package cli

import (
	"bufio"
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
)

// consent is the flags of a command that takes away what cannot be had back.
type consent struct {
	yes, force, dryRun bool
}

func (c *consent) flags(cmd *cobra.Command, force string) {
	cmd.Flags().BoolVarP(&c.yes, "yes", "y", false, "do not ask (also BANGER_YES=1)")
	if force != "" {
		cmd.Flags().BoolVarP(&c.force, "force", "f", false, force)
	}
	cmd.Flags().BoolVar(&c.dryRun, "dry-run", false, "show what would go, delete nothing")
}

// ask gets the user's word for question, on a terminal; elsewhere it takes the
// flags or the environment. again is the same command as a dry run.
func (a *app) ask(ctx context.Context, c consent, question, again string) error {
	if yes := a.env.Getenv("BANGER_YES"); c.yes || c.force || yes != "" && yes != "0" && yes != "false" {
		return nil
	}
	if !isTerminal(a.env.Stdin) || !a.ui.ErrTTY {
		return api.Errorf(api.KindInvalid, "cannot ask here whether to %s: give --yes, or set BANGER_YES=1", question).WithHint("%s", again)
	}
	fmt.Fprintf(a.env.Stderr, "%s? [y/N] ", strings.ToUpper(question[:1])+question[1:])
	answer := make(chan string, 1)
	go func() { // ends with the process at the latest: a read of a terminal cannot be called off
		line, _ := bufio.NewReader(a.env.Stdin).ReadString('\n')
		answer <- line
	}()
	select {
	case line := <-answer:
		if !strings.HasSuffix(line, "\n") {
			fmt.Fprintln(a.env.Stderr)
		}
		switch strings.ToLower(strings.TrimSpace(line)) {
		case "y", "yes":
			return nil
		}
	case <-ctx.Done():
		fmt.Fprintln(a.env.Stderr)
	}
	return api.Errorf(api.KindCancelled, "cancelled: nothing was deleted")
}
