package banger_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/bangervm/banger/internal/cli"
)

// A hint is one next command, never a destructive one. What the hints in the
// code begin with is held here; those put together at run time are not.
func TestEveryHintIsACommand(t *testing.T) {
	t.Parallel()
	programs := map[string]bool{}
	for _, p := range strings.Fields("banger sudo apt-get df ls less tail sed export unset curl mkdir make type docker file") {
		programs[p] = true
	}
	seen := 0
	root := cli.NewCommand()
	for _, room := range []string{"api", "client", "cmd", "internal"} {
		err := filepath.WalkDir(room, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
				return err
			}
			fset := token.NewFileSet()
			file, err := parser.ParseFile(fset, path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(file, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok || len(call.Args) == 0 {
					return true
				}
				if f, ok := call.Fun.(*ast.SelectorExpr); !ok || f.Sel.Name != "WithHint" {
					return true
				}
				lit, ok := call.Args[0].(*ast.BasicLit)
				if !ok {
					return true
				}
				hint, err := strconv.Unquote(lit.Value)
				if err != nil {
					t.Error(err)
				}
				seen++
				first, rest, _ := strings.Cut(hint, " ")
				if !programs[first] && !strings.HasPrefix(hint, "%s") && !strings.HasPrefix(hint, "--") {
					t.Errorf("%s: the hint %q is no command", fset.Position(lit.Pos()), hint)
				}
				if why := unknown(root, rest); first == "banger" && why != "" {
					t.Errorf("%s: the hint %q has %s", fset.Position(lit.Pos()), hint, why)
				}
				for _, gone := range []string{"vm delete", "vm kill", "vm prune", "rm "} {
					if strings.HasPrefix(rest, gone) && !strings.Contains(rest, "--dry-run") && !strings.Contains(rest, "--help") {
						t.Errorf("%s: the hint %q is destructive", fset.Position(lit.Pos()), hint)
					}
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if seen < 50 {
		t.Errorf("found %d hints only", seen)
	}
}

// unknown says what of a banger command line there is not; empty when all is.
// What is filled in later is taken for known.
func unknown(c *cobra.Command, line string) string {
	for word := range strings.FieldsSeq(line) {
		name, flag := strings.CutPrefix(word, "--")
		switch {
		case word == "--", strings.Contains(word, "%"):
			return ""
		case flag:
			if name, _, _ = strings.Cut(name, "="); name != "help" && c.Flag(name) == nil {
				return "the flag --" + name
			}
		case c.HasSubCommands():
			i := slices.IndexFunc(c.Commands(), func(s *cobra.Command) bool { return s.Name() == word || s.HasAlias(word) })
			if i < 0 {
				return "the command " + word
			}
			c = c.Commands()[i]
		}
	}
	return ""
}
