package main

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// events is what `go test -json` writes, of "action test" lines.
func events(lines ...string) string {
	var b strings.Builder
	for _, line := range lines {
		action, name, _ := strings.Cut(line, " ")
		name, output, _ := strings.Cut(name, ": ")
		fmt.Fprintf(&b, `{"Action":%q,"Package":"github.com/braid-cni/braid/pkg/x","Test":%q,`+
			`"Output":%q}`+"\n", action, name, output)
	}
	return b.String()
}

// table is the report of some runs, over five items.
func table(t *testing.T, runs ...string) (text string, ok bool) {
	t.Helper()
	items, err := parseItems(
		"# items\nS1 due first\n\nS13 due thirteenth\nM1 due defect\nR13 due real\nS46 later claims\n")
	if err != nil {
		t.Fatal(err)
	}
	results := map[test]string{}
	for _, run := range runs {
		if err := read(strings.NewReader(run), results); err != nil {
			t.Fatal(err)
		}
	}
	var b strings.Builder
	ok = report(&b, items, byItem(results))
	return b.String(), ok
}

func TestTable(t *testing.T) {
	got, ok := table(t, "# a compiler's line\n"+events(
		"run TestS1First", "pass TestS1First", "pass TestS13Ips/v4", "pass TestS13Ips",
		"pass TestS13_more", "pass TestAll", "pass TestAll/M1_defect",
		"pass TestAll/M1_defect/sub", "pass TestS46Claims", "pass TestS1x", "pass TestM11Other",
		"pass TestAll/TestM1", "pass TestR13Rules", "pass TestR13Rules/R1"))
	want := `S1   pass     first
              pkg/x TestS1First
S13  pass     thirteenth
              pkg/x TestS13Ips
              pkg/x TestS13_more
M1   pass     defect
              pkg/x TestAll/M1_defect
R13  pass     real
              pkg/x TestR13Rules
S46  later    claims
              pkg/x TestS46Claims

5 items: 4 pass, 0 fail, 0 skipped, 0 without a test, 1 later
`
	if got != want || !ok {
		t.Errorf("ok %v, got\n%swant\n%s", ok, got, want)
	}
}

func TestWhatIsMissing(t *testing.T) {
	rest := events("pass TestS13Ips", "pass TestM1Defect", "pass TestR13Rules")
	for name, tc := range map[string]struct{ run, want string }{
		"no test": {"", "S1   no test  first"},
		"failed":  {events("fail TestS1First", "pass TestS1Second"), "TestS1First: FAIL"},
		"died":    {events("run TestS1First"), "TestS1First: FAIL"},
		"skipped": {
			events("output TestS1First: needs kernel: ipvlan", "skip TestS1First"),
			"TestS1First: skip",
		},
		"left to e2e": {
			events("output TestS1First: BRAID_E2E is not 1", "skip TestS1First"),
			"S1   no test  first",
		},
		"failed, then ok": {events("fail TestS1First") + events("pass TestS1First"), "TestS1First: FAIL"},
	} {
		got, ok := table(t, tc.run+rest)
		if ok || !strings.Contains(got, tc.want) {
			t.Errorf("%s: ok %v\n%s", name, ok, got)
		}
	}
}

// What one kernel skipped and another ran has run.
func TestTwoKernels(t *testing.T) {
	first := events("skip TestS1First", "pass TestS13Ips", "pass TestM1Defect", "pass TestR13Rules")
	got, ok := table(t, first, events("pass TestS1First"))
	if !ok {
		t.Error(got)
	}
}

func TestItems(t *testing.T) {
	items, err := parseItems(itemsText)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, it := range items {
		got = append(got, it.name)
	}
	var want []string
	for _, group := range []struct {
		letter string
		last   int
	}{{"S", 46}, {"D", 6}, {"C", 16}, {"U", 22}, {"M", 38}, {"R", 37}} {
		for i := range group.last {
			want = append(want, fmt.Sprint(group.letter, i+1))
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("items %q, want %q", got, want)
	}
	if _, err := parseItems("S1 soon first"); err == nil {
		t.Error("a line that is neither due nor later is taken")
	}
}

func TestRun(t *testing.T) {
	file := filepath.Join(t.TempDir(), "run.json")
	if err := os.WriteFile(file, []byte(events("pass TestS1First")), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]int{"": 2, file: 1, "/nowhere": 1} {
		var out, errs strings.Builder
		if got := run(strings.Fields(args), &out, &errs); got != want {
			t.Errorf("run(%q) = %d, want %d: %s", args, got, want, errs.String())
		}
	}
}
