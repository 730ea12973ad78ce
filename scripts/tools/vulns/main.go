// Command vulns reads what `govulncheck -format json` writes, and prints a line for each known
// vulnerability of a module that the code reaches, and one for all of the standard library.
//
// The exit code is 1 where one is in a module, since go.mod can name a release without it. Those of
// the standard library are a line alone: Go comes from whoever builds. 2 means that the input was
// not understood.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"

	"golang.org/x/mod/semver"
)

// stdlib is how govulncheck names the standard library among modules.
const stdlib = "stdlib"

// message is the part of govulncheck's output that matters here.
type message struct {
	OSV *struct {
		ID      string `json:"id"`
		Summary string `json:"summary"`
	} `json:"osv"`
	Finding *finding `json:"finding"`
}

// finding is one way to a vulnerability. The first frame of its trace is the vulnerable symbol. It
// has a function where the code reaches it, and none where a module is merely required.
type finding struct {
	OSV   string `json:"osv"`
	Fixed string `json:"fixed_version"`
	Trace []struct {
		Module   string `json:"module"`
		Version  string `json:"version"`
		Function string `json:"function"`
	} `json:"trace"`
}

func main() { os.Exit(run(os.Stdin, os.Stdout, os.Stderr)) }

func run(in io.Reader, out, stderr io.Writer) int {
	reached, summaries, err := read(in)
	if err != nil {
		fmt.Fprintln(stderr, "vulns: read the output of govulncheck:", err)
		return 2
	}
	code, library, newest := 0, 0, ""
	for _, key := range slices.Sorted(maps.Keys(reached)) {
		f := reached[key]
		at := f.Trace[0]
		if at.Module == stdlib {
			library++
			if semver.Compare(f.Fixed, newest) > 0 {
				newest = f.Fixed
			}
			continue
		}
		code = 1
		remedy := "no release without it"
		if f.Fixed != "" {
			remedy = "mended in " + f.Fixed
		}
		fmt.Fprintf(out, "%s %s: %s: %s; %s\n", at.Module, at.Version, f.OSV, summaries[f.OSV], remedy)
	}
	if library > 0 {
		fmt.Fprintf(out, "this Go's standard library has %d that are reached; all of them are mended "+
			"in %s\n", library, newest)
	}
	return code
}

// read returns the findings that the code reaches by module and vulnerability, and the summary of
// each vulnerability.
func read(in io.Reader) (reached map[string]finding, summaries map[string]string, err error) {
	reached, summaries = map[string]finding{}, map[string]string{}
	complete := false
	for d := json.NewDecoder(in); ; complete = true {
		var m message
		if err := d.Decode(&m); errors.Is(err, io.EOF) && complete {
			return reached, summaries, nil
		} else if err != nil {
			return nil, nil, err
		}
		if m.OSV != nil {
			summaries[m.OSV.ID] = m.OSV.Summary
		}
		if f := m.Finding; f != nil && len(f.Trace) > 0 && f.Trace[0].Function != "" {
			reached[f.Trace[0].Module+" "+f.OSV] = *f
		}
	}
}
