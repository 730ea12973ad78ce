package strictjson

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
)

// walker goes through all objects of a text that is known to be valid JSON.
type walker struct {
	raw []byte
	dec *json.Decoder
	// path holds the keys and "[index]" elements that lead to the present value.
	path []string
	// at is the offset of the token that was read last.
	at int
}

func checkKeys(raw []byte) error {
	w := walker{raw: raw, dec: json.NewDecoder(bytes.NewReader(raw))}
	w.dec.UseNumber()
	return w.value()
}

func (w *walker) value() error {
	token, err := w.next()
	if err != nil {
		return err
	}
	if len(w.path) > MaxDepth {
		return w.fail(fmt.Sprintf("nested more than %d levels deep", MaxDepth), "")
	}
	switch token {
	case json.Delim('{'):
		return w.object()
	case json.Delim('['):
		return w.list()
	}
	return nil
}

func (w *walker) object() error {
	seen := map[string]bool{}
	for w.dec.More() {
		token, err := w.next()
		if err != nil {
			return err
		}
		key, _ := token.(string)
		w.path = append(w.path, key)
		if seen[key] {
			return w.fail("the key appears twice in one object", "keep one of the two")
		}
		seen[key] = true
		if err := w.value(); err != nil {
			return err
		}
		w.path = w.path[:len(w.path)-1]
	}
	_, err := w.next()
	return err
}

func (w *walker) list() error {
	for i := 0; w.dec.More(); i++ {
		w.path = append(w.path, "["+strconv.Itoa(i)+"]")
		if err := w.value(); err != nil {
			return err
		}
		w.path = w.path[:len(w.path)-1]
	}
	_, err := w.next()
	return err
}

// next reads a token.
func (w *walker) next() (json.Token, error) {
	before := int(w.dec.InputOffset())
	token, err := w.dec.Token()
	between := w.raw[before:w.dec.InputOffset()]
	w.at = before + len(between) - len(bytes.TrimLeft(between, " \t\r\n,:"))
	if err != nil {
		return nil, w.fail(err.Error(), "")
	}
	return token, nil
}

// fail points at the token that was read last.
func (w *walker) fail(msg, fix string) error {
	e := newError(w.raw, w.at, msg, fix)
	e.Path = Label(strings.ReplaceAll(strings.Join(w.path, "."), ".[", "["))
	return e
}
