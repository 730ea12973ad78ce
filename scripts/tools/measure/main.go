// Command measure prints figures of Go code that readers feel: how long functions are, how many
// ways lead through them, how much is said about them.
//
//	measure [-peers FILE] NAME=DIR...
//
// prints one row for each directory. With -peers it prints after each figure of the first one the
// best of the rows in FILE, which this command wrote, and a "!" where the first one is behind.
// Generated files, vendored code and testdata do not count. The exit code is 0 also where a figure
// is behind; 1 where a directory cannot be read, 2 on wrong usage.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
)

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, out, stderr io.Writer) int {
	flags := flag.NewFlagSet("measure", flag.ContinueOnError)
	flags.SetOutput(stderr)
	peers := flags.String("peers", "", "a `file` with rows to compare with")
	if flags.Parse(args) != nil || flags.NArg() == 0 {
		fmt.Fprintln(stderr, "usage: measure [-peers FILE] NAME=DIR...")
		return 2
	}
	rows, err := measureAll(flags.Args())
	if err == nil && *peers != "" {
		err = compare(out, rows[0], *peers)
	} else if err == nil {
		err = table(out, rows)
	}
	if err != nil {
		fmt.Fprintln(stderr, "measure:", err)
		return 1
	}
	return 0
}

// measureAll measures each NAME=DIR.
func measureAll(args []string) ([]row, error) {
	var rows []row
	for _, arg := range args {
		name, dir, ok := strings.Cut(arg, "=")
		if !ok {
			return nil, fmt.Errorf("%q is not NAME=DIR", arg)
		}
		t, err := read(dir)
		if err != nil {
			return nil, fmt.Errorf("measure %s: %w", name, err)
		}
		rows = append(rows, row{name, t.values()})
	}
	return rows, nil
}

// table prints rows so that parseRows reads them again.
func table(out io.Writer, rows []row) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprint(w, "tree")
	for _, f := range figures {
		fmt.Fprintf(w, "\t%s", f.name)
	}
	fmt.Fprintln(w)
	for _, r := range rows {
		fmt.Fprint(w, r.name)
		for _, v := range r.values {
			fmt.Fprintf(w, "\t%.1f", v)
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

// compare prints the figures of r beside the best of the rows in the file.
func compare(out io.Writer, r row, file string) error {
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	rows, err := parseRows(string(data))
	if err != nil {
		return fmt.Errorf("read %s: %w", file, err)
	}
	if len(rows) == 0 {
		return errors.New(file + " has no rows")
	}
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintf(w, "\t%s\tbest of the peers\t\n", r.name)
	for i, f := range figures {
		best := rows[0]
		for _, peer := range rows {
			if f.ahead(peer.values[i], best.values[i]) {
				best = peer
			}
		}
		mark := ""
		if f.ahead(best.values[i], r.values[i]) {
			mark = "!"
		}
		fmt.Fprintf(w, "%s\t%.1f\t%.1f (%s)\t%s\n", f.says, r.values[i], best.values[i], best.name, mark)
	}
	return w.Flush()
}
