// Command summary reads `go test -json` on standard input, prints one line a
// package and the whole output of each failed test, and writes the counts
// "passed failed skipped" to the file it is given. It fails when a test failed.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"os"
	"strings"
)

// event is one line of test2json.
type event struct {
	Action, Package, Test, Output string
	ImportPath                    string
	Elapsed                       float64
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go test -json … | summary COUNTS-FILE")
		os.Exit(2)
	}
	if failed := summarize(os.Args[1]); failed > 0 {
		os.Exit(1)
	}
}

func summarize(countsFile string) int {
	output := map[string]*strings.Builder{} // by package and test
	var passed, failed, skipped int
	in := bufio.NewScanner(os.Stdin)
	in.Buffer(nil, 16<<20)
	for in.Scan() {
		var e event
		if json.Unmarshal(in.Bytes(), &e) != nil {
			fmt.Println(in.Text())
			continue
		}
		key := e.Package + " " + e.Test
		switch e.Action {
		case "output", "build-output":
			if e.Action == "build-output" {
				fmt.Print(e.Output)
				continue
			}
			if output[key] == nil {
				output[key] = &strings.Builder{}
			}
			output[key].WriteString(e.Output)
		case "pass", "fail", "skip":
			if e.Action == "fail" && output[key] != nil {
				fmt.Print(output[key].String())
			}
			if e.Test == "" {
				if e.Action != "skip" {
					fmt.Printf("%s\t%s\t%.1fs\n", e.Action, e.Package, e.Elapsed)
				}
				if e.Action == "fail" {
					failed++ // a package that does not build, or a test binary that died
				}
			} else {
				switch e.Action {
				case "pass":
					passed++
				case "fail":
					failed++
				case "skip":
					skipped++
					fmt.Printf("skip\t%s %s: %s\n", e.Package, e.Test, lastLine(output[key]))
				}
			}
			delete(output, key)
		}
	}
	if err := os.WriteFile(countsFile, fmt.Appendf(nil, "%d %d %d\n", passed, failed, skipped), 0o644); err != nil {
		fmt.Fprintln(os.Stderr, "cannot write counts:", err)
		failed++
	}
	return failed
}

// lastLine is the reason a skipped test gave: the last line before its verdict.
func lastLine(b *strings.Builder) string {
	if b == nil {
		return ""
	}
	reason := ""
	for line := range strings.Lines(b.String()) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "---") {
			reason = line
		}
	}
	return reason
}
