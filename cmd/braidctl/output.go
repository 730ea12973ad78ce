package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// format is how a command prints: as "json", or for people.
type format string

const (
	formatTable format = "table"
	formatText  format = "text"
	formatJSON  format = "json"
)

// formatFlag is the flag that chooses between a format for people, which is the default, and JSON.
func formatFlag(f *flag.FlagSet, plain format) *format {
	o := plain
	f.Func("o", fmt.Sprintf("`format`: %s, the default, or json", plain), func(text string) error {
		if format(text) != plain && format(text) != formatJSON {
			return fmt.Errorf("it is none of %s, json", plain)
		}
		o = format(text)
		return nil
	})
	return &o
}

// write prints the items: as JSON, or as a table with one line for each row. A row is as long as the header; empty cells are dashes.
func write[T any](out io.Writer, o format, items []T, header string, rows func(T) [][]string) error {
	if o == formatJSON {
		return writeJSON(out, items)
	}
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, strings.ReplaceAll(header, " ", "\t")) //nolint:errcheck // Flush tells
	for _, item := range items {
		for _, row := range rows(item) {
			for i := range row {
				if row[i] == "" {
					row[i] = "-"
				}
			}
			fmt.Fprintln(w, strings.Join(row, "\t")) //nolint:errcheck // Flush tells
		}
	}
	return w.Flush()
}

// writeJSON prints the items as a list, also if there are none.
func writeJSON[T any](out io.Writer, items []T) error {
	e := json.NewEncoder(out)
	e.SetIndent("", "  ")
	return e.Encode(append([]T{}, items...))
}
