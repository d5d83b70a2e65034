package cli

import (
	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
)

func (a *app) completion() *cobra.Command {
	shells := []string{"bash", "zsh", "fish"}
	cmd := &cobra.Command{
		Use: "completion bash|zsh|fish [flags]", Short: "Print a shell's completion script",
		Example: "  source <(banger completion bash)\n  banger completion zsh > ~/.zfunc/_banger\n  banger completion fish > ~/.config/fish/completions/banger.fish",
		Args:    argCount(1, 1), ValidArgs: shells,
	}
	a.leaf(cmd, nil)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		root := cmd.Root()
		var err error
		switch args[0] {
		case "bash":
			err = root.GenBashCompletionV2(a.env.Stdout, true)
		case "zsh":
			err = root.GenZshCompletion(a.env.Stdout)
		case "fish":
			err = root.GenFishCompletion(a.env.Stdout, true)
		default:
			return api.Errorf(api.KindInvalid, "cannot complete for %q: want %s", args[0], orList(shells)).WithHint("banger completion bash")
		}
		if err != nil {
			return api.Errorf(api.KindInternal, "cannot write completion script: %w", err)
		}
		return nil
	}
	return cmd
}
