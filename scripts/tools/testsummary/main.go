// Command testsummary reads what `go test -json` wrote.
//
//	testsummary lacking FILE
//
// prints the tests that were skipped for want of a kernel, one line a package: its import path, a tab, and a pattern for -test.run.
//
//	testsummary report NATIVE UML
//
// prints what a person wants to know of a run on this machine's kernel (NATIVE) and in the user-mode kernel (UML, may not exist), and
// as the last line "N passed, N failed, N skipped". A test that was skipped in the first and ran in the second counts once, by the
// second. With CI=true in the environment, skipped tests are a failure. The exit code is 1 when something failed, 2 on wrong usage.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

func main() { os.Exit(run(os.Args[1:])) }

func run(args []string) int {
	var err error
	code := 0
	switch {
	case len(args) == 2 && args[0] == "lacking":
		err = lacking(args[1])
	case len(args) == 3 && args[0] == "report":
		code, err = report(args[1], args[2])
	default:
		fmt.Fprintln(os.Stderr, "usage: testsummary lacking FILE | report NATIVE UML")
		return 2
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "testsummary:", err)
		return 1
	}
	return code
}

// The reasons of skips that mean something here.
var (
	// needsKernel is what pkg/nettest says.
	needsKernel = regexp.MustCompile(`needs kernel: (\S+)`)
	// elsewhere marks tests that another verb runs.
	elsewhere = regexp.MustCompile(`BRAID_E2E is not 1`)
	// said is a line that a test wrote by t.Log or t.Skip.
	said = regexp.MustCompile(`^\s+\S+\.go:\d+: (.*)`)
)

const module = "github.com/braid-cni/braid/"

// key names a test or, with an empty name, a package.
type key struct{ pkg, test string }

func (k key) String() string {
	return strings.TrimSpace(strings.TrimPrefix(k.pkg, module) + " " + k.test)
}

type result struct {
	status  string // pass, fail, skip
	reason  string // of a skip
	kernel  string // what the kernel lacks, of a skip
	elapsed time.Duration
}

// read gives the result of each test, and of packages that failed without a test that did: those that do not build, or race. A test
// that began and did not end has failed: it panicked, or the kernel died under it.
func read(path string) (results map[key]result, took time.Duration, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	results = map[key]result{}
	lastSaid := map[key]string{}
	packages := map[key]result{}
	var first, last time.Time
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e struct {
			Time                          time.Time
			Action, Package, Test, Output string
			Elapsed                       float64
		}
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			continue // what a compiler or a program wrote in between
		}
		if !e.Time.IsZero() {
			if first.IsZero() {
				first = e.Time
			}
			last = e.Time
		}
		k := key{e.Package, e.Test}
		switch e.Action {
		case "run":
			results[k] = result{status: "fail"}
		case "output":
			if m := said.FindStringSubmatch(e.Output); m != nil {
				lastSaid[k] = m[1]
			}
		case "pass", "fail", "skip":
			r := result{status: e.Action, elapsed: time.Duration(e.Elapsed * float64(time.Second))}
			if e.Action == "skip" {
				r.reason = lastSaid[k]
				if m := needsKernel.FindStringSubmatch(r.reason); m != nil {
					r.kernel = m[1]
				}
			}
			if e.Test == "" {
				packages[k] = r
			} else {
				results[k] = r
			}
		}
	}
	for k, r := range packages {
		if r.status == "fail" && !anyFailed(results, k.pkg) {
			results[k] = r
		}
	}
	return results, last.Sub(first), lines.Err()
}

func anyFailed(results map[key]result, pkg string) bool {
	for k, r := range results {
		if k.pkg == pkg && r.status == "fail" {
			return true
		}
	}
	return false
}

func lacking(path string) error {
	results, _, err := read(path)
	if err != nil {
		return err
	}
	tests := map[string][]string{}
	for k, r := range results {
		// A pattern cannot name subtests of several tests; their tests run as a whole.
		top, _, _ := strings.Cut(k.test, "/")
		if r.kernel != "" && !slices.Contains(tests[k.pkg], top) {
			tests[k.pkg] = append(tests[k.pkg], top)
		}
	}
	for _, pkg := range slices.Sorted(maps.Keys(tests)) {
		slices.Sort(tests[pkg])
		fmt.Printf("%s\t^(%s)$\n", pkg, strings.Join(tests[pkg], "|"))
	}
	return nil
}

func report(nativePath, umlPath string) (code int, err error) {
	native, nativeTook, err := read(nativePath)
	if err != nil {
		return 0, err
	}
	uml, umlTook, err := read(umlPath)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}

	// What counts at the end: a failure anywhere, else having run anywhere.
	total := maps.Clone(native)
	for k, r := range uml {
		if old, ok := total[k]; !ok || old.status == "skip" || r.status == "fail" {
			total[k] = r
		}
	}
	var failed, skipped, later []key
	passed := 0
	kernel := map[string]bool{}
	for k, r := range native {
		if r.kernel != "" {
			kernel[r.kernel] = true
		} else if r.status == "skip" && elsewhere.MatchString(r.reason) {
			later = append(later, k)
			delete(total, k)
		}
	}
	for k, r := range total {
		switch r.status {
		case "pass":
			passed++
		case "fail":
			failed = append(failed, k)
		default:
			skipped = append(skipped, k)
		}
	}

	fmt.Printf("\n  on this machine's kernel   %s, %s\n", count(native), nativeTook.Round(time.Second))
	if len(uml) > 0 {
		fmt.Printf("  in the user-mode kernel    %s, %s; for want of %s\n", count(uml), umlTook.Round(time.Second),
			strings.Join(slices.Sorted(maps.Keys(kernel)), ", "))
	}
	if len(later) > 0 {
		fmt.Printf("  left to make e2e           %d\n", len(later))
	}
	slowest(total)
	list("skipped", skipped, func(k key) string { return ": " + total[k].reason })
	list("failed", failed, kind)
	if len(skipped) > 0 && os.Getenv("CI") == "true" {
		fmt.Printf("\n  a skip is a failure here (CI=true)\n")
		code = 1
	}
	if len(failed) > 0 {
		code = 1
	}
	if passed+len(failed) == 0 {
		fmt.Printf("\n  no test ran\n")
		code = 1
	}
	fmt.Printf("\n%d passed, %d failed, %d skipped\n", passed, len(failed), len(skipped))
	return code, nil
}

func count(results map[key]result) string {
	n := map[string]int{}
	for _, r := range results {
		n[r.status]++
	}
	s := fmt.Sprintf("%d passed, %d failed", n["pass"], n["fail"])
	if n["skip"] > 0 {
		s += fmt.Sprintf(", %d not run", n["skip"])
	}
	return s
}

func kind(k key) string {
	if k.test == "" {
		return ": the package does not build, or failed outside of its tests"
	}
	return ""
}

func slowest(results map[key]result) {
	keys := slices.Collect(maps.Keys(results))
	keys = slices.DeleteFunc(keys, func(k key) bool { return k.test == "" || strings.Contains(k.test, "/") })
	slices.SortFunc(keys, func(a, b key) int { return int(results[b].elapsed - results[a].elapsed) })
	keys = keys[:min(3, len(keys))]
	for i, k := range keys {
		label := ""
		if i == 0 {
			label = "slowest"
		}
		fmt.Printf("  %-26s %s, %.1fs\n", label, k, results[k].elapsed.Seconds())
	}
}

func list(label string, keys []key, more func(key) string) {
	if len(keys) == 0 {
		return
	}
	slices.SortFunc(keys, func(a, b key) int { return strings.Compare(a.String(), b.String()) })
	fmt.Printf("\n  %s:\n", label)
	for _, k := range keys {
		fmt.Printf("    %s%s\n", k, more(k))
	}
}
