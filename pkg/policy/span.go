package policy

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/braid-cni/braid/pkg/strictjson"
)

const (
	maxPort = 65535
	maxVLAN = 4094
)

// Span is a run of numbers, From and To included.
type Span struct{ From, To int }

// String reads "100" or "100-199".
func (s Span) String() string {
	if s.From == s.To {
		return strconv.Itoa(s.From)
	}
	return fmt.Sprintf("%d-%d", s.From, s.To)
}

// MarshalText makes it a string of JSON.
func (s Span) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// within reports whether all numbers of s are of the spans. Spans that touch are one.
func (s Span) within(spans []Span) bool {
	for _, one := range spans {
		if one.From <= s.From && s.To <= one.To {
			return true
		}
	}
	sorted := slices.SortedFunc(slices.Values(spans), func(a, b Span) int { return a.From - b.From })
	for _, one := range sorted {
		if one.From <= s.From && s.From <= one.To {
			if s.To <= one.To {
				return true
			}
			s.From = one.To + 1
		}
	}
	return false
}

// span decodes a number, or a string as String returns it, from lowest to highest.
func span(highest int) func(json.RawMessage) (Span, error) {
	return func(raw json.RawMessage) (Span, error) {
		text := string(raw)
		if strictjson.Kind(raw) == "a string" {
			text = strictjson.Text(raw)
		}
		first, last, two := strings.Cut(text, "-")
		if !two {
			last = first
		}
		from, err := strconv.ParseUint(first, 10, 16)
		to, errTo := strconv.ParseUint(last, 10, 16)
		if err != nil || errTo != nil || from == 0 || to > uint64(highest) {
			return Span{}, fmt.Errorf("%s is no number from 1 to %d and no such range",
				strictjson.Quote(text), highest)
		}
		if from > to {
			return Span{}, fmt.Errorf("%s ends before it begins", strictjson.Quote(text))
		}
		return Span{int(from), int(to)}, nil
	}
}
