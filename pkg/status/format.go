package status

import (
	"encoding/json"
	"fmt"
	"strings"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

const indent = "    "

// formatEach returns the text of each entry: one line for each key, lists on one line.
func formatEach(entries []nadv1.NetworkStatus) ([]string, error) {
	var out []string
	for _, e := range entries {
		raw, err := json.Marshal(e)
		if err != nil {
			return nil, fmt.Errorf("encode network-status of %s: %w", e.Name, err)
		}
		out = append(out, spread(raw))
	}
	return out, nil
}

func join(texts []string) string { return "[" + strings.Join(texts, ",") + "]" }

// spread writes compact JSON with a line for each member of an object. Lists stay on one line:
// those of a NetworkStatus hold nothing but strings.
func spread(compact []byte) string {
	var b strings.Builder
	depth, lists := 0, 0
	inString, escaped := false, false
	newline := func() { b.WriteString("\n" + strings.Repeat(indent, depth)) }
	for i, c := range compact {
		if inString {
			b.WriteByte(c)
			inString = escaped || c != '"'
			escaped = c == '\\' && !escaped
			continue
		}
		switch c {
		case '{':
			b.WriteByte(c)
			if compact[i+1] != '}' {
				depth++
				newline()
			}
		case '}':
			if compact[i-1] != '{' {
				depth--
				newline()
			}
			b.WriteByte(c)
		case ',':
			b.WriteByte(c)
			if lists > 0 {
				b.WriteByte(' ')
			} else {
				newline()
			}
		case ':':
			b.WriteString(": ")
		case '[', ']':
			lists += map[byte]int{'[': 1, ']': -1}[c]
			b.WriteByte(c)
		default:
			inString = c == '"'
			b.WriteByte(c)
		}
	}
	return b.String()
}
