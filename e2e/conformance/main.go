// Command conformance prints the specification items with their tests and results.
//
//	conformance FILE...
//
// Each FILE is what `go test -json` wrote; a test counts by its best result but for failures, so a
// test that was skipped on one kernel and ran on another has run. A test belongs to the item that
// its name begins with (TestS13Ips), a subtest likewise. The exit code is 1 if an item that is due
// has no test, or one that failed or ran nowhere; 2 on wrong usage.
package main

import (
	"bufio"
	_ "embed" // items.txt
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
)

//go:embed items.txt
var itemsText string

const module = "github.com/braid-cni/braid/"

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(files []string, stdout, stderr io.Writer) int {
	if len(files) == 0 {
		fmt.Fprintln(stderr, "usage: conformance FILE...") //nolint:errcheck // nobody to tell
		return 2
	}
	items, err := parseItems(itemsText)
	if err != nil {
		fmt.Fprintln(stderr, "conformance:", err) //nolint:errcheck // nobody to tell
		return 1
	}
	results := map[test]string{}
	for _, file := range files {
		if err := readFile(file, results); err != nil {
			fmt.Fprintln(stderr, "conformance:", err) //nolint:errcheck // nobody to tell
			return 1
		}
	}
	if !report(stdout, items, byItem(results)) {
		return 1
	}
	return 0
}

// item is one line of items.txt.
type item struct {
	name, title string
	due         bool
}

// parseItems reads the list of what conformance asks for.
func parseItems(text string) ([]item, error) {
	var items []item
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		fields := strings.SplitN(line, " ", 3)
		if len(fields) != 3 || fields[1] != "due" && fields[1] != "later" {
			return nil, fmt.Errorf("items.txt: %q is not: item, due or later, title", line)
		}
		items = append(items, item{name: fields[0], title: fields[2], due: fields[1] == "due"})
	}
	return items, nil
}

// test is a test or subtest of a package.
type test struct{ pkg, name string }

// Results, the one that counts more last.
const (
	skipped = "skip"
	passed  = "pass"
	failed  = "FAIL"
)

func readFile(path string, results map[test]string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // opened for reading
	if err := read(f, results); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

// read adds the results of one run. Tests that began and did not end, because the process died,
// have failed. End-to-end tests that another verb runs are left out.
func read(r io.Reader, results map[test]string) error {
	begun, elsewhere := map[test]bool{}, map[test]bool{}
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e struct{ Action, Package, Test, Output string }
		if json.Unmarshal(lines.Bytes(), &e) != nil || e.Test == "" {
			continue // what a compiler wrote in between, or a package's own result
		}
		t := test{e.Package, e.Test}
		switch e.Action {
		case "run":
			begun[t] = true
		case "output":
			elsewhere[t] = elsewhere[t] || strings.Contains(e.Output, "BRAID_E2E is not 1")
		case "pass":
			delete(begun, t)
			count(results, t, passed)
		case "fail":
			delete(begun, t)
			count(results, t, failed)
		case "skip":
			delete(begun, t)
			if !elsewhere[t] {
				count(results, t, skipped)
			}
		}
	}
	for t := range begun {
		count(results, t, failed)
	}
	return lines.Err()
}

// count adds a result of a test. Of several the worst counts: the test of two runs failed if one
// did.
func count(results map[test]string, t test, result string) {
	weight := []string{"", skipped, passed, failed}
	if slices.Index(weight, result) > slices.Index(weight, results[t]) {
		results[t] = result
	}
}

// named is an item's name at the begin of a test's or subtest's own name: what follows is no small
// letter and no digit.
var named = regexp.MustCompile(`^(?:Test)?([SDCUMR][0-9]+)(?:[^a-z0-9]|$)`)

// byItem returns the tests of each item, without the subtests of those.
func byItem(results map[test]string) map[string]map[test]string {
	tests := map[string]map[test]string{}
	for t, result := range results {
		path := ""
		for part := range strings.SplitSeq(t.name, "/") {
			top := path == ""
			path = strings.TrimPrefix(path+"/"+part, "/")
			m := named.FindStringSubmatch(part)
			if m == nil || top != strings.HasPrefix(part, "Test") {
				continue
			}
			if path == t.name {
				if tests[m[1]] == nil {
					tests[m[1]] = map[test]string{}
				}
				tests[m[1]][t] = result
			}
			break
		}
	}
	return tests
}

// report prints the table; it is false if something that is due is missing.
func report(w io.Writer, items []item, tests map[string]map[test]string) bool {
	n := map[string]int{}
	for _, it := range items {
		result := resultOf(it, tests[it.name])
		n[result]++
		fmt.Fprintf(w, "%-4s %-8s %s\n", it.name, result, it.title) //nolint:errcheck // as much as can be
		for _, t := range slices.SortedFunc(maps.Keys(tests[it.name]), compare) {
			mark := ""
			if r := tests[it.name][t]; r != passed {
				mark = ": " + r
			}
			fmt.Fprintf(w, "              %s %s%s\n", strings.TrimPrefix(t.pkg, module), t.name, mark)
		}
	}
	fmt.Fprintf(w, "\n%d items: %d pass, %d fail, %d skipped, %d without a test, %d later\n",
		len(items), n[passed], n[failed], n[skipped], n[noTest], n[later])
	return n[failed]+n[skipped]+n[noTest] == 0
}

const (
	noTest = "no test"
	later  = "later"
)

// resultOf is the worst result of the item's tests. Tests that exist before their item is due are
// shown, and count for nothing.
func resultOf(it item, tests map[test]string) string {
	if !it.due {
		return later
	}
	results := slices.Collect(maps.Values(tests))
	for _, worst := range []string{failed, skipped, passed} {
		if slices.Contains(results, worst) {
			return worst
		}
	}
	return noTest
}

func compare(a, b test) int { return strings.Compare(a.pkg+" "+a.name, b.pkg+" "+b.name) }
