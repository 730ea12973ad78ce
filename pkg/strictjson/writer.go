package strictjson

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/braid-cni/braid/pkg/weaken"
)

// PrintableWriter returns a writer that makes all text Printable but for line feeds and tabs: the
// last writer before a terminal or a log, whatever the text is made of. One write is whole lines,
// or at least whole characters.
func PrintableWriter(w io.Writer) io.Writer { return &printableWriter{w} }

type printableWriter struct{ w io.Writer }

func (p *printableWriter) Write(text []byte) (int, error) {
	clean := string(text)
	if !allPrintable(clean) {
		var b strings.Builder
		for part := range strings.SplitAfterSeq(clean, "\n") {
			line, feed := strings.CutSuffix(part, "\n")
			for i, cell := range strings.Split(line, "\t") {
				if i > 0 {
					b.WriteByte('\t')
				}
				b.WriteString(Printable(cell))
			}
			if feed {
				b.WriteByte('\n')
			}
		}
		clean = b.String()
	}
	if _, err := io.WriteString(p.w, clean); err != nil {
		return 0, err
	}
	return len(text), nil
}

func allPrintable(text string) bool {
	return weaken.Off(weaken.Printing) ||
		utf8.ValidString(text) && !strings.ContainsFunc(text, func(r rune) bool {
			return r != '\n' && r != '\t' && !strconv.IsPrint(r)
		})
}

// PrintableJSON returns a text that is JSON with escapes in the place of the characters that are
// not printable, so that it means the same. Line feeds and tabs between values stay.
func PrintableJSON(text []byte) []byte {
	if allPrintable(string(text)) {
		return text
	}
	var b strings.Builder
	for _, r := range string(text) {
		switch {
		case r == '\n', r == '\t', strconv.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			first, second := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, first, second)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return []byte(b.String())
}
