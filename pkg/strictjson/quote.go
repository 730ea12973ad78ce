package strictjson

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/braid-cni/braid/pkg/weaken"
)

// maxQuoted is how many bytes of a user's text a message repeats.
const maxQuoted = 64

// Quote makes a user's text fit for a message: bounded, in quotes, control characters escaped.
func Quote(text string) string {
	if len(text) > maxQuoted {
		text = strings.ToValidUTF8(text[:maxQuoted], "") + "..."
	}
	return strconv.Quote(text)
}

// Label is Quote for keys and paths of keys: without quotes where nothing in the text needs them.
func Label(text string) string {
	if text != "" && len(text) <= maxQuoted && utf8.ValidString(text) &&
		!strings.ContainsFunc(text, quotes) {
		return text
	}
	return Quote(text)
}

// quotes reports whether a character needs the quotes.
func quotes(r rune) bool { return r == '"' || r == '\\' || !strconv.IsPrint(r) }

// Printable returns text that a terminal shows as it is: what is not printable becomes an escape of
// Go's, so that no object moves the cursor or changes a colour.
func Printable(text string) string {
	if !strings.ContainsFunc(text, func(r rune) bool {
		return !strconv.IsPrint(r)
	}) && utf8.ValidString(text) || weaken.Off(weaken.Printing) {
		return text
	}
	var b strings.Builder
	for text != "" {
		r, size := utf8.DecodeRuneInString(text)
		if printable := strconv.IsPrint(r) && (r != utf8.RuneError || size > 1); printable {
			b.WriteString(text[:size])
		} else {
			b.WriteString(strings.Trim(strconv.Quote(text[:size]), `"`))
		}
		text = text[size:]
	}
	return b.String()
}
