package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// sources are the files of a module in which a test fails, one of two subtests fails, one panics,
// and a package does not build.
func sources() map[string]string {
	return map[string]string{
		"go.mod": "module example.org/m\n\ngo 1.24\n",
		"fails/fails_test.go": `package fails

import "testing"

func TestQuiet(t *testing.T) { t.Log("of no interest") }

func TestWrong(t *testing.T) {
	for i := range 100 {
		t.Logf("step %d", i)
	}
	t.Error("one is not two")
}

func TestParts(t *testing.T) {
	t.Run("good", func(t *testing.T) { t.Log("of no interest") })
	t.Run("bad", func(t *testing.T) { t.Error("a part is missing") })
}

func TestSkipped(t *testing.T) { t.Skip("needs kernel: ipvlan") }
`,
		"panics/panics_test.go": `package panics

import "testing"

func TestPanics(t *testing.T) {
	for i := range 100 {
		t.Logf("before %d", i)
	}
	var m map[string]int
	m["a"] = 1
}
`,
		"broken/broken_test.go": "package broken\n\nfunc f() { undefined() }\n",
	}
}

// jsonOf runs the tests of a module and returns the file of their events.
func jsonOf(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range sources() {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), "go", "test", "-vet=off", "-json", "./...")
	cmd.Dir = dir
	out, err := cmd.Output()
	if err == nil {
		t.Fatalf("the tests passed: %s", out)
	}
	path := filepath.Join(dir, "run.json")
	if err := os.WriteFile(path, out, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestReportSaysWhy(t *testing.T) {
	path := jsonOf(t)
	var out strings.Builder
	if code := run([]string{"report", path, filepath.Join(t.TempDir(), "none")}, &out); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	got := out.String()
	for _, want := range []string{
		"=== example.org/m/fails TestWrong\n", "one is not two",
		"| 60 of 101 lines; all are in " + path + "\n",
		"=== example.org/m/fails TestParts/bad\n", "a part is missing",
		"=== example.org/m/panics TestPanics\n", "| panic: assignment to entry in nil map",
		"=== example.org/m/broken\n", "undefined: undefined",
		"skipped:\n    example.org/m/fails TestSkipped: needs kernel: ipvlan\n",
		"\n2 passed, 5 failed, 1 skipped\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the report does not say %q", want)
		}
	}
	for _, not := range []string{
		"of no interest", "step 1\n", "before 1\n", "=== example.org/m/fails TestParts\n", "=== RUN",
		"--- FAIL",
	} {
		if strings.Contains(got, not) {
			t.Errorf("the report says %q", not)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
}

func TestLacking(t *testing.T) {
	var out strings.Builder
	if code := run([]string{"lacking", jsonOf(t)}, &out); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if got, want := out.String(), "example.org/m/fails\t^(TestSkipped)$\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestBounds(t *testing.T) {
	results, keys := map[key]result{}, []key{}
	for i := range mostTests + 3 {
		k := key{"p", strings.Repeat("T", i+1)}
		keys, results[k] = append(keys, k), result{
			status: "fail", output: []string{strings.Repeat("x", 10*mostLength)},
		}
	}
	var out strings.Builder
	why(&out, keys, results)
	got := out.String()
	if len(got) > mostTests*(mostLength+100) || !strings.HasSuffix(got, "and the output of 3 more\n") {
		t.Errorf("%d bytes, ending in %q", len(got), got[len(got)-40:])
	}
}

func TestUsage(t *testing.T) {
	if code := run([]string{"report"}, &strings.Builder{}); code != 2 {
		t.Errorf("exit code %d, want 2", code)
	}
}
