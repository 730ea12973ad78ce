package plan

import (
	"bytes"
	"encoding/json"
	"slices"
	"strconv"
	"strings"

	"github.com/braid-cni/braid/pkg/strictjson"
)

// tree is a JSON value with every member of every object, also those with the same key, in their
// order. Maps and structs would keep one of the twins; which one a plugin takes is not known here,
// so checks look at all of them.
type tree struct {
	object, array bool
	members       []member
	scalar        any // string, json.Number, bool or nil
}

// member is a member of an object or, without a key, an element of an array.
type member struct {
	key   string
	value tree
}

// parseTree reads one JSON value.
func parseTree(raw []byte) (tree, error) {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	return readTree(dec)
}

// readTree reads one value, in which members of objects stay in their order, and none is lost: keys
// may be there twice.
func readTree(dec *json.Decoder) (tree, error) {
	tok, err := dec.Token()
	if err != nil {
		return tree{}, err
	}
	delim, ok := tok.(json.Delim)
	if !ok {
		return tree{scalar: tok}, nil
	}
	t := tree{object: delim == '{', array: delim == '['}
	for dec.More() {
		var m member
		if t.object {
			key, err := dec.Token()
			if err != nil {
				return tree{}, err
			}
			m.key, _ = key.(string)
		}
		if m.value, err = readTree(dec); err != nil {
			return tree{}, err
		}
		t.members = append(t.members, m)
	}
	_, err = dec.Token()
	return t, err
}

// named returns the members whose key encoding/json would match with key: it folds case, so the
// plugins do.
func (t tree) named(key string) []tree {
	var out []tree
	for _, m := range t.members {
		if t.object && strings.EqualFold(m.key, key) {
			out = append(out, m.value)
		}
	}
	return out
}

// walk calls visit for every member at any depth, with its path such as "ipam.routes[0].dst", fit
// for messages.
func (t tree) walk(path string, visit func(path, key string, value tree)) {
	for i, m := range t.members {
		at := path + "[" + strconv.Itoa(i) + "]"
		if t.object {
			at = strings.TrimPrefix(path+"."+strictjson.Label(m.key), ".")
		}
		visit(at, m.key, m.value)
		m.value.walk(at, visit)
	}
}

// text returns the value of a string, else empty.
func (t tree) text() string {
	s, _ := t.scalar.(string)
	return s
}

// has reports whether a member of that name has a value.
func (t tree) has(key string) bool {
	return slices.ContainsFunc(t.named(key), func(v tree) bool {
		return v.object || v.array || v.scalar != nil
	})
}

// elements returns those of the list that the last member of that exact name holds.
func (t tree) elements(key string) (list []tree) {
	for _, m := range t.members {
		if t.object && m.key == key && m.value.array {
			list = nil
			for _, e := range m.value.members {
				list = append(list, e.value)
			}
		}
	}
	return list
}

// typeOf returns the type of a plugin's configuration.
func (t tree) typeOf() string {
	for _, v := range t.named("type") {
		return v.text()
	}
	return ""
}

// folds reports whether two keys are one to encoding/json, by which plugins read them.
func folds(a, b string) bool { return strings.EqualFold(a, b) }

// encode returns the value as JSON. Numbers are as they were written.
func (t tree) encode() []byte {
	var b bytes.Buffer
	t.write(&b)
	return b.Bytes()
}

// write writes JSON without blanks.
func (t tree) write(b *bytes.Buffer) {
	if !t.object && !t.array {
		b.Write(literal(t.scalar))
		return
	}
	ends := "[]"
	if t.object {
		ends = "{}"
	}
	b.WriteByte(ends[0])
	for i, m := range t.members {
		if i > 0 {
			b.WriteByte(',')
		}
		if t.object {
			b.Write(literal(m.key))
			b.WriteByte(':')
		}
		m.value.write(b)
	}
	b.WriteByte(ends[1])
}

// literal returns a scalar in JSON; it came from JSON.
func literal(scalar any) []byte {
	var out bytes.Buffer
	enc := json.NewEncoder(&out)
	enc.SetEscapeHTML(false)
	enc.Encode(scalar) //nolint:errcheck // a string, a number, a bool or null
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}
