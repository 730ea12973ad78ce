package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
)

// Null reports whether the value is absent or null.
func Null(raw json.RawMessage) bool {
	raw = bytes.TrimSpace(raw)
	return len(raw) == 0 || string(raw) == "null"
}

// String decodes a string; the error says what the value is instead.
func String(raw json.RawMessage) (string, error) { return as[string](raw, "a string") }

// Bool decodes true or false.
func Bool(raw json.RawMessage) (bool, error) { return as[bool](raw, "a boolean") }

// Object decodes one level of an object; the values stay as written.
func Object(raw json.RawMessage) (map[string]json.RawMessage, error) {
	return as[map[string]json.RawMessage](raw, "an object")
}

// List decodes one level of a list; the values stay as written.
func List(raw json.RawMessage) ([]json.RawMessage, error) {
	return as[[]json.RawMessage](raw, "a list")
}

// as decodes a value of one kind, such as "a string"; the error says what it is instead.
func as[T any](raw json.RawMessage, want string) (T, error) {
	var value T
	if got := Kind(raw); got != want {
		return value, fmt.Errorf("is %s, not %s", got, want)
	}
	if err := json.Unmarshal(raw, &value); err != nil {
		return value, fmt.Errorf("decode %s: %w", want, err)
	}
	return value, nil
}

// Decode decodes a file that Braid wrote, whole. A key that the type does not have is an error, as
// is text after the value: a newer version wrote the file, or another hand.
func Decode(data []byte, into any) error {
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.DisallowUnknownFields()
	if err := dec.Decode(into); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something follows the JSON value")
	}
	return nil
}

// Kind names the type of a value, with its article: "a string", "an object", "a list", "a number",
// "a boolean", "null".
func Kind(raw json.RawMessage) string {
	if Null(raw) {
		return "null"
	}
	switch bytes.TrimSpace(raw)[0] {
	case '"':
		return "a string"
	case '{':
		return "an object"
	case '[':
		return "a list"
	case 't', 'f':
		return "a boolean"
	}
	return "a number"
}

// Text returns a string value; empty where it is absent, null or something else.
func Text(raw json.RawMessage) string {
	if Null(raw) {
		return ""
	}
	s, err := String(raw)
	if err != nil {
		return ""
	}
	return s
}

// Lookup returns the value of a key whatever its case; nil where it is absent. Of several spellings
// the exact one counts, else the first in the order of bytes.
func Lookup(object map[string]json.RawMessage, key string) json.RawMessage {
	if raw, ok := object[key]; ok {
		return raw
	}
	first, found := "", false
	for other := range object {
		if strings.EqualFold(other, key) && (!found || other < first) {
			first, found = other, true
		}
	}
	if !found {
		return nil
	}
	return object[first]
}

// Marshal returns a value as JSON and leaves '<', '>' and '&' as they are. It is nil if a
// json.RawMessage in it is no JSON.
func Marshal(value any) []byte {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	if enc.Encode(value) != nil {
		return nil
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}
