package plan

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"

	"github.com/braid-cni/braid/pkg/conf/strictjson"
)

// tree is a JSON value with every member of every object, also those with the same key, in their order. Maps and structs
// would keep one of the twins; which one a plugin takes is not known here, so checks look at all of them.
type tree struct {
	object, array bool
	members       []member // of an object, or the elements of an array, then without key
	scalar        any      // string, json.Number, bool or nil
}

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

// named gives the members whose key encoding/json would match with key: it folds case, so the plugins do.
func (t tree) named(key string) []tree {
	var out []tree
	for _, m := range t.members {
		if t.object && strings.EqualFold(m.key, key) {
			out = append(out, m.value)
		}
	}
	return out
}

// walk calls visit for every member at any depth, with its path such as "ipam.routes[0].dst", fit for messages.
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

// text is the value of a string, else empty.
func (t tree) text() string {
	s, _ := t.scalar.(string)
	return s
}
