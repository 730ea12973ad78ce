package strictjson

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// walker goes through all objects of a text that is known to be valid JSON. It decodes no more than
// keys.
type walker struct {
	raw []byte
	// pos is the offset of what is read next, at that of the key or value that was read last.
	pos, at int
	// path holds the keys and "[index]" elements that lead to the present value.
	path []string
}

// Member is a key of an object with its value.
type Member struct {
	Key   string
	Value json.RawMessage
}

// Members returns the members of an object as they are written: a map would keep one of two equal
// keys. The text is valid JSON. What is no object has none.
func Members(object json.RawMessage) []Member {
	if Kind(object) != "an object" {
		return nil
	}
	var members []Member
	w := walker{raw: object}
	w.space()
	w.each('}', func(int) error { //nolint:errcheck // there is none
		w.space()
		key := unquote(w.quoted())
		w.space()
		w.pos++ // the colon
		if members == nil {
			members = make([]Member, 0, 8)
		}
		members = append(members, Member{key, w.skip()})
		return nil
	})
	return members
}

// Fold returns a key in lower case, as far as encoding/json takes keys for equal whatever their
// case: U+017F is an s to it, and U+212A a k.
func Fold(key string) string {
	lower := strings.ToLower(key)
	for i := range len(lower) {
		if lower[i] >= utf8.RuneSelf {
			return signs.Replace(lower)
		}
	}
	return lower
}

var signs = strings.NewReplacer("\u017f", "s", "\u212a", "k")

// Elements returns the elements of a list as they are written. The text is valid JSON. What is no
// list has none.
func Elements(list json.RawMessage) []json.RawMessage {
	if Kind(list) != "a list" {
		return nil
	}
	var elements []json.RawMessage
	w := walker{raw: list}
	w.space()
	w.each(']', func(int) error { //nolint:errcheck // there is none
		elements = append(elements, w.skip())
		return nil
	})
	return elements
}

// skip passes a value by and returns it.
func (w *walker) skip() json.RawMessage {
	start := w.space()
	for depth := 0; w.pos < len(w.raw); {
		switch w.raw[w.pos] {
		case '"':
			w.quoted()
			continue
		case '{', '[':
			depth++
		case '}', ']':
			depth--
		}
		if depth < 0 || depth == 0 && w.raw[w.pos] == ',' { // what follows it
			break
		}
		w.pos++
	}
	return bytes.TrimRight(w.raw[start:w.pos], " \t\r\n")
}

// checkKeys refuses two keys of one object that are equal, and a value that is nested too deeply.
// raw is valid JSON.
func checkKeys(raw []byte) error {
	w := walker{raw: raw}
	return w.value()
}

// value passes over the value at the position.
func (w *walker) value() error {
	w.at = w.space()
	if len(w.path) > MaxDepth {
		return w.fail(fmt.Sprintf("nested more than %d levels deep", MaxDepth), "")
	}
	switch w.raw[w.pos] {
	case '{':
		return w.each('}', w.member(map[string]bool{}))
	case '[':
		return w.each(']', w.element)
	case '"':
		w.quoted()
	default:
		if end := bytes.IndexAny(w.raw[w.pos:], ",]} \t\r\n"); end >= 0 {
			w.pos += end
		} else {
			w.pos = len(w.raw)
		}
	}
	return nil
}

// each reads the elements of a list or the members of an object, with their commas, and its end.
func (w *walker) each(end byte, read func(i int) error) error {
	w.pos++
	if w.raw[w.space()] == end {
		w.pos++
		return nil
	}
	for i := 0; ; i++ {
		if err := read(i); err != nil {
			return err
		}
		w.space()
		w.pos++
		if w.raw[w.pos-1] == end {
			return nil
		}
	}
}

// member reads the members of one object. The keys so far are in seen.
func (w *walker) member(seen map[string]bool) func(int) error {
	return func(int) error {
		w.at = w.space()
		key := unquote(w.quoted())
		w.path = append(w.path, key)
		if seen[key] {
			return w.fail("the key appears twice in one object", "keep one of the two")
		}
		seen[key] = true
		w.space()
		w.pos++ // the colon
		return w.inner()
	}
}

func (w *walker) element(i int) error {
	w.path = append(w.path, "["+strconv.Itoa(i)+"]")
	return w.inner()
}

// inner reads the value that path leads to.
func (w *walker) inner() error {
	err := w.value()
	if err == nil {
		w.path = w.path[:len(w.path)-1]
	}
	return err
}

// quoted reads a string, and returns it with its quotes.
func (w *walker) quoted() []byte {
	start := w.pos
	for w.pos++; w.raw[w.pos] != '"'; w.pos++ {
		if w.raw[w.pos] == '\\' {
			w.pos++
		}
	}
	w.pos++
	return w.raw[start:w.pos]
}

// unquote returns the text of a JSON string.
func unquote(quoted []byte) string {
	if bytes.IndexByte(quoted, '\\') < 0 {
		return string(quoted[1 : len(quoted)-1])
	}
	var text string
	json.Unmarshal(quoted, &text) //nolint:errcheck // it is valid
	return text
}

// space goes to what is not white space, and returns its offset.
func (w *walker) space() int {
	for w.pos < len(w.raw) && strings.IndexByte(" \t\r\n", w.raw[w.pos]) >= 0 {
		w.pos++
	}
	return w.pos
}

// fail points at the key or value that was read last.
func (w *walker) fail(msg, fix string) error {
	e := newError(w.raw, w.at, msg, fix)
	e.Path = Label(strings.ReplaceAll(strings.Join(w.path, "."), ".[", "["))
	return e
}
