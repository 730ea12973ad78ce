package wire

import (
	"encoding/base64"
	"errors"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// errJSON is that a frame is no object of strings, whole numbers, booleans and null.
var errJSON = errors.New("a frame that is no object of plain values")

// decode reads the text of a frame. Of a key that is there twice the last counts.
func decode(text []byte) (*Frame, error) {
	f := &Frame{}
	s := &scanner{text: text}
	if !s.take('{') {
		return nil, errJSON
	}
	for first := true; !s.take('}'); first = false {
		if !first && !s.take(',') {
			return nil, errJSON
		}
		key, ok := s.str()
		if !ok || !s.take(':') {
			return nil, errJSON
		}
		v, ok := s.value()
		if !ok {
			return nil, errJSON
		}
		if err := f.set(key, v); err != nil {
			return nil, err
		}
	}
	s.space()
	if len(s.text) > 0 {
		return nil, errJSON
	}
	return f, nil
}

// value is a value of JSON: a string if text is set, else a number, a boolean or null as written.
type value struct {
	text string
	str  bool
}

func (f *Frame) set(key string, v value) error {
	if !v.str && v.text == "null" {
		return nil
	}
	texts := map[string]*string{"type": &f.Type, "verb": &f.Verb, "reason": &f.Reason}
	bytes := map[string]*[]byte{"environ": &f.Environ, "stdin": &f.Stdin, "stdout": &f.Stdout, "stderr": &f.Stderr}
	ints := map[string]*int{"version": &f.Version, "oldest": &f.Oldest, "millis": &f.Millis, "exit": &f.Exit}
	ok := true
	switch {
	case texts[key] != nil:
		*texts[key], ok = v.text, v.str
	case bytes[key] != nil:
		data, err := base64.StdEncoding.DecodeString(v.text)
		*bytes[key], ok = data, v.str && err == nil
	case ints[key] != nil:
		n, err := strconv.Atoi(v.text)
		*ints[key], ok = n, !v.str && err == nil
	case key == "netns":
		f.NetNS, ok = v.text == "true", !v.str && (v.text == "true" || v.text == "false")
	}
	if !ok {
		return errors.New("a frame whose field " + key + " is of another kind")
	}
	return nil
}

// scanner reads JSON from the front of text.
type scanner struct{ text []byte }

func (s *scanner) space() {
	for len(s.text) > 0 && (s.text[0] == ' ' || s.text[0] == '\t' || s.text[0] == '\n' || s.text[0] == '\r') {
		s.text = s.text[1:]
	}
}

func (s *scanner) take(c byte) bool {
	s.space()
	if len(s.text) == 0 || s.text[0] != c {
		return false
	}
	s.text = s.text[1:]
	return true
}

func (s *scanner) value() (value, bool) {
	s.space()
	if len(s.text) > 0 && s.text[0] == '"' {
		text, ok := s.str()
		return value{text, true}, ok
	}
	n := 0
	for n < len(s.text) && (s.text[n] == '-' || s.text[n] >= '0' && s.text[n] <= '9' || s.text[n] >= 'a' && s.text[n] <= 'z') {
		n++
	}
	text := string(s.text[:n])
	s.text = s.text[n:]
	return value{text, false}, text == "true" || text == "false" || text == "null" || whole(text)
}

// whole reports whether a text is a whole number of JSON.
func whole(text string) bool {
	if len(text) > 1 && text[0] == '-' {
		text = text[1:]
	}
	for _, c := range []byte(text) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return text == "0" || text != "" && text[0] != '0'
}

// str reads a string.
func (s *scanner) str() (string, bool) {
	if !s.take('"') {
		return "", false
	}
	for n, c := range s.text {
		if c == '"' {
			text := string(s.text[:n])
			s.text = s.text[n+1:]
			return text, utf8.ValidString(text)
		}
		if c == '\\' {
			return s.escaped(n)
		}
		if c < ' ' {
			break
		}
	}
	return "", false
}

// escaped reads a string whose first n bytes have no escape.
func (s *scanner) escaped(n int) (string, bool) {
	b := append([]byte(nil), s.text[:n]...)
	for s.text = s.text[n:]; len(s.text) > 0; {
		c := s.text[0]
		s.text = s.text[1:]
		switch {
		case c == '"':
			return string(b), utf8.Valid(b)
		case c < ' ':
			return "", false
		case c != '\\':
			b = append(b, c)
			continue
		}
		r, ok := s.escape()
		if !ok {
			return "", false
		}
		b = utf8.AppendRune(b, r)
	}
	return "", false
}

// escape reads what follows a backslash.
func (s *scanner) escape() (rune, bool) {
	if len(s.text) == 0 {
		return 0, false
	}
	c := s.text[0]
	s.text = s.text[1:]
	switch c {
	case '"', '\\', '/':
		return rune(c), true
	case 'b':
		return '\b', true
	case 'f':
		return '\f', true
	case 'n':
		return '\n', true
	case 'r':
		return '\r', true
	case 't':
		return '\t', true
	case 'u':
	default:
		return 0, false
	}
	r, ok := s.hex()
	if ok && utf16.IsSurrogate(r) && len(s.text) > 1 && s.text[0] == '\\' && s.text[1] == 'u' {
		rest := s.text
		s.text = s.text[2:]
		low, isHex := s.hex()
		if pair := utf16.DecodeRune(r, low); isHex && pair != utf8.RuneError {
			return pair, true
		}
		s.text = rest
	}
	return r, ok
}

func (s *scanner) hex() (rune, bool) {
	if len(s.text) < 4 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(s.text[:4]), 16, 16)
	s.text = s.text[4:]
	return rune(n), err == nil
}

// appendString appends a string of JSON.
func appendString(b []byte, text string) []byte {
	const digits = "0123456789abcdef"
	b = append(b, '"')
	for _, r := range text { // what is no UTF-8 becomes U+FFFD
		switch {
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r < ' ':
			b = append(b, '\\', 'u', '0', '0', digits[r>>4], digits[r&15])
		default:
			b = utf8.AppendRune(b, r)
		}
	}
	return append(b, '"')
}
