package strictjson

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// Null says whether the value is absent or null.
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

// Kind names the type of a value, with its article: "a string", "an object", "a list", "a number", "a boolean", "null".
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
