// Command testsummary reads what `go test -json` wrote.
//
//	testsummary lacking FILE
//
// prints the tests that were skipped for want of a kernel, one line a package: its import path, a
// tab, and a pattern for -test.run.
//
//	testsummary report NATIVE UML
//
// prints what a person wants to know of a run on this machine's kernel (NATIVE) and in the
// user-mode kernel (UML, may not exist): counts, what took longest, the output of each test that
// failed, and as the last line "N passed, N failed, N skipped". A test that was skipped in the
// first and ran in the second counts once, by the second. With CI=true in the environment, skipped
// tests are a failure. The exit code is 1 when something failed, 2 on wrong usage.
package main

import (
	"bufio"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout)) }

func run(args []string, out io.Writer) int {
	var err error
	code := 0
	switch {
	case len(args) == 2 && args[0] == "lacking":
		err = lacking(out, args[1])
	case len(args) == 3 && args[0] == "report":
		code, err = report(out, args[1], args[2])
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
	// elsewhere marks tests that another verb runs, or another run of make e2e.
	elsewhere = regexp.MustCompile(`BRAID_E2E(_RUNTIME)? is not `)
	// said is a line that a test wrote by t.Log or t.Skip.
	said = regexp.MustCompile(`^\s+\S+\.go:\d+: (.*)`)
	// frame is a line of the framework's own.
	frame = regexp.MustCompile(
		`^\s*(=== (RUN|PAUSE|CONT|NAME)\s|--- (PASS|FAIL|SKIP): |(PASS|FAIL)\s*$)`)
	// crash is the line with which the account of a crash begins.
	crash = regexp.MustCompile(`^(panic: |fatal error: |WARNING: DATA RACE)`)
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
	output  []string // of a failure: what it printed, without the framework's own lines
	file    string   // where the whole output is
}

// outcome is what a file says.
type outcome struct {
	tests map[key]result
	// packages are the results of packages as a whole.
	packages map[key]result
	took     time.Duration
}

// event is a line of the file.
type event struct {
	Time                                                   time.Time
	Action, Package, Test, Output, ImportPath, FailedBuild string
	Elapsed                                                float64
}

// reader collects results from events.
type reader struct {
	outcome
	file        string
	said        map[key]string
	output      map[key][]string
	built       map[string][]string // what the compiler said, by import path
	first, last time.Time
}

// read returns the result of each test, and of packages that failed without a test that did: those
// that do not build, or race. A test that began and did not end has failed: it panicked, or the
// kernel died under it.
func read(path string) (outcome, error) {
	f, err := os.Open(path)
	if err != nil {
		return outcome{}, err
	}
	defer f.Close()
	r := &reader{
		outcome: outcome{tests: map[key]result{}, packages: map[key]result{}}, file: path,
		said: map[key]string{}, output: map[key][]string{}, built: map[string][]string{},
	}
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			continue // what a compiler or a program wrote in between
		}
		r.take(&e)
	}
	r.finish()
	return r.outcome, lines.Err()
}

// saw notes the time of an event, which not every one has.
func (r *reader) saw(at time.Time) {
	if at.IsZero() {
		return
	}
	if r.first.IsZero() {
		r.first = at
	}
	r.last = at
}

// take takes an event. A test has failed until an event says how it ended.
func (r *reader) take(e *event) {
	r.saw(e.Time)
	k := key{e.Package, e.Test}
	switch e.Action {
	case "run":
		r.tests[k] = result{status: "fail", file: r.file}
	case "build-output":
		r.built[e.ImportPath] = append(r.built[e.ImportPath], strings.TrimSuffix(e.Output, "\n"))
	case "output":
		if m := said.FindStringSubmatch(e.Output); m != nil {
			r.said[k] = m[1]
		}
		if !frame.MatchString(e.Output) {
			r.output[k] = append(r.output[k], strings.TrimSuffix(e.Output, "\n"))
		}
	case "pass", "fail", "skip":
		r.end(k, e)
	}
}

// end is for the last event of a test or package. Of what passed, no output is kept.
func (r *reader) end(k key, e *event) {
	res := result{
		status: e.Action, elapsed: time.Duration(e.Elapsed * float64(time.Second)), file: r.file,
	}
	if e.Action == "skip" {
		res.reason = r.said[k]
		if m := needsKernel.FindStringSubmatch(res.reason); m != nil {
			res.kernel = m[1]
		}
	}
	if e.Action == "fail" {
		res.output = slices.Concat(r.built[e.FailedBuild], r.output[k])
	}
	delete(r.output, k)
	if k.test == "" {
		r.packages[k] = res
	} else {
		r.tests[k] = res
	}
}

// finish adds what no event says: the output of tests that did not end, and packages that failed by
// themselves.
func (r *reader) finish() {
	r.took = r.last.Sub(r.first)
	failed := map[string]bool{}
	for k, res := range r.tests {
		if res.status != "fail" {
			continue
		}
		failed[k.pkg] = true
		if res.output == nil {
			res.output = r.output[k]
			r.tests[k] = res
		}
	}
	for k, res := range r.packages {
		if res.status == "fail" && !failed[k.pkg] {
			r.tests[k] = res
		}
	}
}

// lacking prints the tests that were skipped for want of a kernel, for another run.
func lacking(out io.Writer, path string) error {
	results, err := read(path)
	if err != nil {
		return err
	}
	tests := map[string][]string{}
	for k, r := range results.tests {
		// A pattern cannot name subtests of several tests; their tests run as a whole.
		top, _, _ := strings.Cut(k.test, "/")
		if r.kernel != "" && !slices.Contains(tests[k.pkg], top) {
			tests[k.pkg] = append(tests[k.pkg], top)
		}
	}
	for _, pkg := range slices.Sorted(maps.Keys(tests)) {
		slices.Sort(tests[pkg])
		fmt.Fprintf(out, "%s\t^(%s)$\n", pkg, strings.Join(tests[pkg], "|"))
	}
	return nil
}

// report prints what a person wants to know of two runs. The second need not exist.
func report(out io.Writer, nativePath, umlPath string) (code int, err error) {
	native, err := read(nativePath)
	if err != nil {
		return 0, err
	}
	uml, err := read(umlPath)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, err
	}
	s := sum(native, uml)
	s.head(out, native, uml)
	slowest(out, "slowest tests", s.total, func(k key) bool {
		return k.test != "" && !strings.Contains(k.test, "/")
	})
	slowest(out, "slowest packages", native.packages, func(key) bool { return true })
	list(out, "skipped", s.skipped, func(k key) string { return ": " + s.total[k].reason })
	why(out, s.failed, s.total)
	list(out, "failed", s.failed, kind)
	code = s.code(out)
	fmt.Fprintf(out, "\n%d passed, %d failed, %d skipped\n", s.passed, len(s.failed), len(s.skipped))
	return code, nil
}

// summary is what counts of two runs: a failure anywhere, else having run anywhere.
type summary struct {
	total  map[key]result
	passed int
	// later are tests that another verb runs; they are not in total.
	failed, skipped, later []key
	// kernel is what the kernel lacks.
	kernel map[string]bool
}

// head prints what ran where.
func (s *summary) head(out io.Writer, native, uml outcome) {
	fmt.Fprintf(out, "\n  on this machine's kernel   %s, %s\n", count(native.tests),
		native.took.Round(time.Second))
	if len(uml.tests) > 0 {
		fmt.Fprintf(out, "  in the user-mode kernel    %s, %s; for want of %s\n", count(uml.tests),
			uml.took.Round(time.Second),
			strings.Join(slices.Sorted(maps.Keys(s.kernel)), ", "))
	}
	if len(s.later) > 0 {
		fmt.Fprintf(out, "  left to make e2e           %d\n", len(s.later))
	}
}

// code returns the exit code. It prints why a run without a failure is one.
func (s *summary) code(out io.Writer) (code int) {
	if len(s.skipped) > 0 && os.Getenv("CI") == "true" {
		fmt.Fprintf(out, "\n  a skip is a failure here (CI=true)\n")
		code = 1
	}
	if len(s.failed) > 0 {
		code = 1
	}
	if s.passed+len(s.failed) == 0 {
		fmt.Fprintf(out, "\n  no test ran\n")
		code = 1
	}
	return code
}

// merge returns the results of both runs by test. That of the second counts where the first has
// none, and where the test failed.
func merge(native, uml map[key]result) map[key]result {
	total := maps.Clone(native)
	for k, r := range uml {
		if old, ok := total[k]; !ok || old.status == "skip" || r.status == "fail" {
			total[k] = r
		}
	}
	return total
}

// sum counts each test once.
func sum(native, uml outcome) *summary {
	s := &summary{total: merge(native.tests, uml.tests), kernel: map[string]bool{}}
	for k, r := range native.tests {
		if r.kernel != "" {
			s.kernel[r.kernel] = true
		} else if r.status == "skip" && elsewhere.MatchString(r.reason) {
			s.later = append(s.later, k)
			delete(s.total, k)
		}
	}
	for k, r := range s.total {
		switch r.status {
		case "pass":
			s.passed++
		case "fail":
			s.failed = append(s.failed, k)
		default:
			s.skipped = append(s.skipped, k)
		}
	}
	for _, keys := range [][]key{s.failed, s.skipped} {
		slices.SortFunc(keys, func(a, b key) int { return strings.Compare(a.String(), b.String()) })
	}
	return s
}

// count returns how many tests passed and failed, for people.
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

// kind says what failed where that is no test.
func kind(k key) string {
	if k.test == "" {
		return ": the package does not build, or failed outside of its tests"
	}
	return ""
}

// slowest prints what took longest, of results that are of interest.
func slowest(out io.Writer, label string, results map[key]result, of func(key) bool) {
	keys := slices.DeleteFunc(slices.Collect(maps.Keys(results)), func(k key) bool { return !of(k) })
	slices.SortFunc(keys, func(a, b key) int {
		return cmp.Compare(results[b].elapsed, results[a].elapsed)
	})
	for _, k := range keys[:min(5, len(keys))] {
		fmt.Fprintf(out, "  %-26s %s, %.1fs\n", label, k, results[k].elapsed.Seconds())
		label = ""
	}
}

// Bounds of what is printed of the output of tests that failed.
const (
	mostLines  = 60
	mostLength = 600
	mostTests  = 25
)

// why prints what tests that failed have printed. A test whose subtests alone failed has
// printed nothing.
func why(out io.Writer, keys []key, results map[key]result) {
	shown := 0
	for _, k := range keys {
		r := results[k]
		if len(r.output) == 0 {
			continue
		}
		shown++
		if shown > mostTests {
			continue
		}
		fmt.Fprintf(out, "\n  === %s\n", k)
		lines := telling(r.output)
		for _, line := range lines {
			if len(line) > mostLength {
				line = line[:mostLength] + "..."
			}
			fmt.Fprintf(out, "  | %s\n", line)
		}
		if len(lines) < len(r.output) {
			fmt.Fprintf(out, "  | %d of %d lines; all are in %s\n", len(lines), len(r.output), r.file)
		}
	}
	if shown > mostTests {
		fmt.Fprintf(out, "\n  and the output of %d more\n", shown-mostTests)
	}
}

// telling returns the lines to show: those from a panic on, else the last.
func telling(lines []string) []string {
	if i := slices.IndexFunc(lines, crash.MatchString); i >= 0 {
		return lines[i:min(i+mostLines, len(lines))]
	}
	return lines[max(0, len(lines)-mostLines):]
}

// list prints tests below a label, each with something more; nothing if there are none.
func list(out io.Writer, label string, keys []key, more func(key) string) {
	if len(keys) == 0 {
		return
	}
	fmt.Fprintf(out, "\n  %s:\n", label)
	for _, k := range keys {
		fmt.Fprintf(out, "    %s%s\n", k, more(k))
	}
}
