// Package strictjson decodes JSON text so that nothing in it is silently dropped: encoding/json
// takes the last of two equal keys, replaces bytes that are not UTF-8, ignores unknown keys, and
// tells a syntax error by a byte offset.
//
// What users write passes Check and is then decoded level by level by String, Object and their
// like, whose errors the caller adds the key to. What Braid itself wrote is read by Decode.
//
// Contract: pure; a leaf that imports the standard library only. Errors of Check are *Error and say
// line and column, both counted from 1, columns in characters. The decoding functions but Decode
// expect a value that passed Check.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// MaxDepth is how deep objects and lists may be nested. CNI configurations use five levels or so.
const MaxDepth = 64

// Error is the first thing that is wrong in a text.
type Error struct {
	// Line and Column of the offending character, from 1.
	Line, Column int
	// Path leads to the offending key, as in "plugins[0].type"; empty for errors of syntax.
	Path string
	// Msg says what is wrong.
	Msg string
	// Fix says what to do about it, as an imperative; may be empty.
	Fix string
}

// Error reads "line 3 column 7: what is wrong".
func (e *Error) Error() string {
	return fmt.Sprintf("line %d column %d: %s", e.Line, e.Column, e.Msg)
}

// Place returns the Path and the Fix of an error of Check; empty for any other error.
func Place(err error) (path, fix string) {
	if bad, ok := errors.AsType[*Error](err); ok {
		return bad.Path, bad.Fix
	}
	return "", ""
}

// Check accepts one JSON value in UTF-8 in which no object has a key twice and nothing is nested
// deeper than MaxDepth.
func Check(raw []byte) error {
	if at := firstInvalid(raw); at >= 0 {
		return newError(raw, at, fmt.Sprintf("byte 0x%02x is not UTF-8", raw[at]),
			"store the text as UTF-8")
	}
	if !json.Valid(raw) {
		var value json.RawMessage
		return syntaxError(raw, json.Unmarshal(raw, &value))
	}
	return checkKeys(raw)
}

// firstInvalid returns the offset of the first byte that is not UTF-8, or -1.
func firstInvalid(raw []byte) int {
	for at := 0; at < len(raw); {
		r, size := utf8.DecodeRune(raw[at:])
		if r == utf8.RuneError && size == 1 {
			return at
		}
		at += size
	}
	return -1
}

// syntaxError turns what encoding/json found into an *Error. Its scanner stops at the first byte
// that cannot be JSON, so a '#' or '/' there is outside of any string and begins a comment.
func syntaxError(raw []byte, err error) error {
	syntax, ok := errors.AsType[*json.SyntaxError](err)
	if !ok || int(syntax.Offset) > len(raw) {
		return newError(raw, 0, err.Error(), "")
	}
	at := max(int(syntax.Offset)-1, 0)
	if comment := commentAt(raw[at:]); comment != "" {
		return newError(raw, at, fmt.Sprintf("a %q comment, and JSON has no comments", comment),
			"remove the comment")
	}
	msg, fix := remedy(raw[:at], raw[at:], syntax)
	return newError(raw, at, msg, fix)
}

// remedy says what is wrong at the beginning of rest, the first text that cannot be JSON, and what
// to do about it.
func remedy(before, rest []byte, syntax *json.SyntaxError) (msg, fix string) {
	before = bytes.TrimRight(before, " \t\r\n")
	after := func(set string) bool {
		return len(before) > 0 && strings.IndexByte(set, before[len(before)-1]) >= 0
	}
	begins := func(set string) bool { return len(rest) > 0 && strings.IndexByte(set, rest[0]) >= 0 }
	switch {
	case strings.HasPrefix(syntax.Error(), "unexpected end"):
		return syntax.Error(), "the text is cut off: complete it, or close what is open"
	case after(",") && begins("]}"):
		return fmt.Sprintf("a comma before %q, and JSON has none there", rest[0]), "remove the comma"
	case begins("'`"):
		return syntax.Error(), "put keys and texts between double quotes"
	case after(`"]}0123456789el`) && begins(`"[{`):
		return syntax.Error(), "put a comma, or after a key a colon, before it"
	}
	return syntax.Error(), "correct the JSON at this place"
}

// commentAt returns how the comment at the beginning of rest starts; empty when there is none.
func commentAt(rest []byte) string {
	switch {
	case len(rest) > 0 && rest[0] == '#':
		return "#"
	case len(rest) > 1 && rest[0] == '/' && (rest[1] == '/' || rest[1] == '*'):
		return string(rest[:2])
	}
	return ""
}

// newError returns an error at an offset of raw, which it counts lines and columns to.
func newError(raw []byte, at int, msg, fix string) *Error {
	e := &Error{Line: 1, Column: 1, Msg: msg, Fix: fix}
	for _, r := range string(raw[:at]) {
		e.Column++
		if r == '\n' {
			e.Line, e.Column = e.Line+1, 1
		}
	}
	return e
}
