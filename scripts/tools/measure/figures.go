package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// A row has a tree's values, in the order of figures.
type row struct {
	name   string
	values []float64
}

// A figure is one column of the table.
type figure struct {
	name string // without blanks
	says string
	more bool // more is better
	of   func(tree) float64
}

// figures are what is measured. Each is a mean, a share or a percentile, so that trees of different
// size compare.
var figures = []figure{
	{"func50", "lines of a function, median", false, func(t tree) float64 {
		return percentile(t.lengths, 50)
	}},
	{"func95", "lines of a function, 95th percentile", false, func(t tree) float64 {
		return percentile(t.lengths, 95)
	}},
	{"longest", "lines of the longest function", false, func(t tree) float64 {
		return percentile(t.lengths, 100)
	}},
	{"ways95", "ways through a function, 95th percentile", false, func(t tree) float64 {
		return percentile(t.ways, 95)
	}},
	{"ways", "ways through the worst function", false, func(t tree) float64 {
		return percentile(t.ways, 100)
	}},
	{"dropped", "results given up by `_ =`, per 1,000 lines", false, func(t tree) float64 {
		return 1000 * share(t.dropped, t.code)
	}},
	{"documented", "exported names with a comment, %", true, func(t tree) float64 {
		return 100 * share(t.documented, t.exported)
	}},
	{"comments", "lines of comment, %", true, func(t tree) float64 {
		return 100 * share(t.comments, t.comments+t.code)
	}},
	{"file50", "lines of a file, median", false, func(t tree) float64 {
		return percentile(t.files, 50)
	}},
	{"wide", "lines over 100 columns, %", false, func(t tree) float64 {
		return 100 * share(t.wide, t.lines)
	}},
	{"tests", "lines of test for a line of code", true, func(t tree) float64 {
		return share(t.tests, t.code)
	}},
}

// ahead reports whether a is better than b by more than what the table rounds away.
func (f figure) ahead(a, b float64) bool {
	if f.more {
		return a >= b+0.05
	}
	return a <= b-0.05
}

// values returns the tree's figures, in the order of figures.
func (t tree) values() []float64 {
	values := make([]float64, 0, len(figures))
	for _, f := range figures {
		values = append(values, f.of(t))
	}
	return values
}

// parseRows is the inverse of table.
func parseRows(text string) ([]row, error) {
	var rows []row
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] == "tree" || fields[0] == "#" {
			continue
		}
		if len(fields) != len(figures)+1 {
			return nil, fmt.Errorf("row %q has %d values, not %d", fields[0], len(fields)-1, len(figures))
		}
		r := row{name: fields[0]}
		for _, field := range fields[1:] {
			value, err := strconv.ParseFloat(field, 64)
			if err != nil {
				return nil, fmt.Errorf("row %q: %w", fields[0], err)
			}
			r.values = append(r.values, value)
		}
		rows = append(rows, r)
	}
	return rows, nil
}

// percentile returns the value that p percent of the values do not exceed, 0 without values.
func percentile(values []int, p int) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	return float64(sorted[(len(sorted)-1)*p/100])
}

// share returns part of whole; 0 of nothing.
func share(part, whole int) float64 {
	if whole == 0 {
		return 0
	}
	return float64(part) / float64(whole)
}
