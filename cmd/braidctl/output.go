package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
)

// format is how a command prints: "table" or "json".
type format string

func formatFlag(f *flag.FlagSet) *format {
	o := format("table")
	f.Func("o", "`format`: table, the default, or json", func(text string) error {
		if text != "table" && text != "json" {
			return fmt.Errorf("it is none of table, json")
		}
		o = format(text)
		return nil
	})
	return &o
}

// write prints the items: as JSON, or as a table with one line for each row. A row is as long as the header; empty cells are dashes.
func write[T any](out io.Writer, o format, items []T, header string, rows func(T) [][]string) error {
	if o == "json" {
		e := json.NewEncoder(out)
		e.SetIndent("", "  ")
		return e.Encode(append([]T{}, items...)) // [] and not null
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
