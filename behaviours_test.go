package banger_test

import (
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// Every behaviour that docs/behaviours.md promises names the test that holds
// it, and that test exists.
func TestBehavioursNameTestsThatExist(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("docs/behaviours.md")
	if err != nil {
		t.Fatal(err)
	}
	files, err := exec.Command("sh", "-c", "find . -name '*_test.go' -not -path './bin/*' | xargs cat").Output()
	if err != nil {
		t.Fatal(err)
	}
	declared := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllStringSubmatch(string(files), -1) {
		declared[m[1]] = true
	}
	name := regexp.MustCompile("`((?:Test|Fuzz)\\w+)`")
	lines := 0
	for line := range strings.Lines(string(doc)) {
		if !strings.HasPrefix(line, "- ") {
			continue
		}
		lines++
		tests := name.FindAllStringSubmatch(line, -1)
		if len(tests) == 0 {
			t.Errorf("no test is named for: %s", line)
		}
		for _, m := range tests {
			if !declared[m[1]] {
				t.Errorf("no such test: %s, named for: %s", m[1], line)
			}
		}
	}
	if lines < 40 {
		t.Errorf("only %d behaviours: the file was misread", lines)
	}
}
