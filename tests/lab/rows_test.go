package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestRowsAreWhole(t *testing.T) {
	t.Parallel()
	rows, err := readRows(rowsFile, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if !exists("../../" + r.Package) {
			t.Errorf("row %s: there is no package %s", r.Name, r.Package)
		}
	}
}

func TestReadRowsRefuses(t *testing.T) {
	t.Parallel()
	const good = `{"name":"a","as":"root","package":"./x","run":"T","passed":1}`
	for name, text := range map[string]string{
		"no JSON":          `[`,
		"unknown key":      `[{"name":"a","as":"root","package":"./x","passes":1}]`,
		"twice":            `[` + good + `,` + good + `]`,
		"another user":     strings.ReplaceAll(`[`+good+`]`, "root", "www"),
		"another host":     strings.ReplaceAll(`[`+good+`]`, `"as"`, `"host":"openrc","as"`),
		"nothing to pass":  strings.ReplaceAll(`[`+good+`]`, `"passed":1`, `"passed":0`),
		"a broken pattern": strings.ReplaceAll(`[`+good+`]`, `"T"`, `"("`),
		"none that match":  strings.ReplaceAll(`[`+good+`]`, `"a"`, `"b"`),
	} {
		if rows, err := readRows([]byte(text), "^a$"); err == nil {
			t.Errorf("%s: %+v", name, rows)
		}
	}
	if rows, err := readRows([]byte(`[`+good+`]`), "^a$"); err != nil || len(rows) != 1 {
		t.Errorf("a good one: %+v, %v", rows, err)
	}
}

// A row is as it must be only when at least what must pass has passed, and
// nothing failed, was skipped, or is missing.
func TestVerdictOfARow(t *testing.T) {
	t.Parallel()
	want := row{Name: "a", Passed: 3}
	for name, c := range map[string]struct {
		got result
		bad string
	}{
		"right":          {result{Passed: 3}, ""},
		"more":           {result{Passed: 4}, ""},
		"fewer":          {result{Passed: 2}, "2 passed, 3 must"},
		"one failed":     {result{Passed: 3, Failed: 1}, "1 failed"},
		"one skipped":    {result{Passed: 3, Skipped: 1}, "1 skipped"},
		"a crash":        {result{Passed: 3, Problem: "ended with exit status 2"}, "exit status 2"},
		"nothing at all": {result{}, "0 passed"},
	} {
		if why := c.got.verdict(want); (why == "") != (c.bad == "") || !strings.Contains(why, c.bad) {
			t.Errorf("%s: %q", name, why)
		}
	}
	var out bytes.Buffer
	if bad, _ := table(&out, []row{want, {Name: "b", Passed: 1}}, map[string]result{"a": {Passed: 3}}); bad != 1 || !strings.Contains(out.String(), "did not run") {
		t.Errorf("a row that did not run: %d bad\n%s", bad, out.String())
	}
}

func TestCount(t *testing.T) {
	t.Parallel()
	got, err := count(strings.NewReader(`=== RUN   TestA
=== RUN   TestA/x
    a_test.go:1: --- PASS: said by a test
--- FAIL: TestA (0.10s)
    --- PASS: TestA/x (0.00s)
    --- SKIP: TestA/y (0.00s)
` + strings.Repeat("x", 200<<10) + `
--- PASS: TestB (0.00s)
FAIL`))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(result{Passed: 2, Failed: 1, Skipped: 1}, got); diff != "" {
		t.Error(diff)
	}
}
