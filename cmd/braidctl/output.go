package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/braid-cni/braid/pkg/strictjson"
)

// format is how a command prints: as "json", or for people.
type format string

const (
	formatTable format = "table"
	formatText  format = "text"
	formatJSON  format = "json"
)

// formatFlag returns the flag that chooses between a format for people, which is the default, and
// JSON.
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

// write prints the items: as JSON, or as a table with one line for each row. A row is as long as
// the header; empty cells are dashes.
func write[T any](
	out io.Writer, o format, items []T, header string, rows func(T) [][]string,
) error {
	if o == formatJSON {
		return writeJSON(out, items)
	}
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, strings.ReplaceAll(header, " ", "\t")) //nolint:errcheck // Flush tells
	for _, item := range items {
		for _, row := range rows(item) {
			for i := range row {
				row[i] = strictjson.Printable(cmp.Or(row[i], "-"))
			}
			fmt.Fprintln(w, strings.Join(row, "\t")) //nolint:errcheck // Flush tells
		}
	}
	return w.Flush()
}

// writeTexts prints the items: as JSON, or each as its text.
func writeTexts[T fmt.Stringer](out io.Writer, o format, items []T) error {
	if o == formatJSON {
		return writeJSON(out, items)
	}
	for _, item := range items {
		if _, err := fmt.Fprintln(out, item); err != nil {
			return err
		}
	}
	return nil
}

// writeJSON prints the items as a list, also if there are none.
func writeJSON[T any](out io.Writer, items []T) error {
	var text bytes.Buffer
	e := json.NewEncoder(&text)
	e.SetIndent("", "  ")
	if err := e.Encode(append([]T{}, items...)); err != nil {
		return err
	}
	_, err := out.Write(strictjson.PrintableJSON(text.Bytes()))
	return err
}
