package strictjson

import (
	"strconv"
	"strings"
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
	quoted := Quote(text)
	if text != "" && quoted == `"`+text+`"` {
		return text
	}
	return quoted
}
