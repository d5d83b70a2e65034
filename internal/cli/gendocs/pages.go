package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/api"
)

// pages gives each file of docs/reference: one for banger itself, one for each
// noun, and one for the exit codes.
func pages(root *cobra.Command) map[string]string {
	out := map[string]string{"exit-codes.md": exitCodes()}
	var index strings.Builder
	index.WriteString("# Commands\n\n" + generated + root.Long + "\n\n| command | does |\n|---|---|\n")
	for _, cmd := range root.Commands() {
		if !cmd.IsAvailableCommand() {
			continue
		}
		cmd.InitDefaultHelpFlag()
		name := "banger-" + cmd.Name() + ".md"
		fmt.Fprintf(&index, "| [banger %s](%s) | %s |\n", cmd.Name(), name, cmd.Short)
		out[name] = page(cmd)
	}
	fmt.Fprintf(&index, "\nFlags of all commands:\n\n```\n%s```\n\nExit codes: [exit-codes.md](exit-codes.md). What the commands do where one might wonder: [cli-notes.md](cli-notes.md).\n", root.PersistentFlags().FlagUsages())
	out["banger.md"] = index.String()
	return out
}

const generated = "<!-- Written by go run ./internal/cli/gendocs; do not edit. -->\n\n"

// page describes a command and all below it.
func page(cmd *cobra.Command) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n%s", cmd.CommandPath(), generated)
	if !cmd.HasAvailableSubCommands() {
		describe(&b, cmd)
		return b.String()
	}
	b.WriteString(cmd.Short + "\n")
	for _, sub := range cmd.Commands() {
		if !sub.IsAvailableCommand() {
			continue
		}
		fmt.Fprintf(&b, "\n## %s\n\n", sub.CommandPath())
		describe(&b, sub)
	}
	return b.String()
}

func describe(b *strings.Builder, cmd *cobra.Command) {
	text := cmd.Long
	if text == "" {
		text = cmd.Short
	}
	fmt.Fprintf(b, "%s\n\n    %s\n", text, cmd.UseLine())
	if cmd.Example != "" {
		fmt.Fprintf(b, "\nExamples:\n\n```\n%s\n```\n", unindent(cmd.Example))
	}
	if flags := cmd.LocalFlags().FlagUsages(); flags != "" {
		fmt.Fprintf(b, "\nFlags:\n\n```\n%s```\n", flags)
	}
}

func unindent(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = strings.TrimPrefix(lines[i], "  ")
	}
	return strings.Join(lines, "\n")
}

// kinds is every kind of error with what it means.
var kinds = []struct {
	kind api.Kind
	text string
}{
	{api.KindInternal, "a fault in banger, or something of the host that nobody expected"},
	{api.KindGuest, "the guest failed or does not answer as it should"},
	{api.KindInvalid, "a flag, value or file is wrong"},
	{api.KindNotFound, "no such VM, image, kernel or operation"},
	{api.KindExists, "the name, or the request id with other parameters, is taken"},
	{api.KindBadState, "not possible while the VM is as it is, or in use"},
	{api.KindDenied, "no permission"},
	{api.KindUnavailable, "the daemon, an archive or the guest cannot be reached"},
	{api.KindUnsupported, "this host or this version cannot do it"},
	{api.KindNoSpace, "no room on the disk"},
	{api.KindBusy, "something else is at work there, try again"},
	{api.KindTimeout, "the time given by --timeout ran out"},
	{api.KindCancelled, "cancelled, by Ctrl-C or `operation cancel`"},
}

func exitCodes() string {
	var b strings.Builder
	b.WriteString("# Exit codes and kinds of error\n\n" + generated)
	b.WriteString("An error has a kind: `kind` in JSON (`--json` or `BANGER_ERROR_FORMAT=json`: one line `{\"error\":{…}}` on stderr), the HTTP status in the API, the exit code of the command.\n\n")
	b.WriteString("| exit code | kind | HTTP status | means |\n|---|---|---|---|\n| 0 | | 200, 202 | done |\n")
	sorted := slices.Clone(kinds)
	slices.SortStableFunc(sorted, func(x, y struct {
		kind api.Kind
		text string
	}) int {
		return cmp.Compare(x.kind.ExitCode(), y.kind.ExitCode())
	})
	for _, k := range sorted {
		fmt.Fprintf(&b, "| %d | %s | %d | %s |\n", k.kind.ExitCode(), k.kind, k.kind.HTTPStatus(), k.text)
	}
	b.WriteString(`
` + "`banger doctor`" + ` exits with 1 when a check failed. With several references the code is that of the first failure.

` + "`banger vm run -- CMD`, `banger vm exec` and `banger vm shell`" + ` exit as the command in the machine did:

| exit code | means |
|---|---|
| 0 to 255 | the command's own |
| 126 | the command could not be run |
| 127 | the command was not found |
| 128+N | signal N ended the command |
| 124 | the time given by --timeout ran out |
| 125 | banger itself failed; the message names the kind |
| 130 | cancelled before the command began |

` + "`banger vm run`" + ` without CMD and ` + "`banger vm run -d`" + ` use the first table for banger's own failures.
`)
	return b.String()
}
