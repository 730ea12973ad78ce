package conf

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// object decodes one object of Braid's configuration, key by key. After the first error its methods
// return defaults, so that the caller looks at err once.
type object struct {
	// path is "" or ends in a period.
	path string
	keys map[string]json.RawMessage
	// anyCase lets keys match in any case.
	anyCase bool
	err     error
	// warnings are of values that are read otherwise than they are written.
	warnings []*failure.Error
}

// odd adds a warning.
func (o *object) odd(key, fix, format string, args ...any) {
	warning := badConfig(o.path+key, fix, format, args...)
	warning.Reason = failure.OddConfig
	o.warnings = append(o.warnings, warning)
}

// field decodes a key; def where it is absent or null.
func field[T any](
	o *object, key string, def T, allowed string, decode func(json.RawMessage) (T, error),
) T {
	raw := o.raw(key)
	if o.err != nil || strictjson.Null(raw) {
		return def
	}
	value, err := decode(raw)
	if err != nil {
		o.err = badConfig(o.path+key, allowed, "%w", err)
		return def
	}
	return value
}

func (o *object) raw(key string) json.RawMessage {
	if !o.anyCase {
		return o.keys[key]
	}
	return strictjson.Lookup(o.keys, key)
}

// inner returns the object that a key holds; empty where it is absent or null. Its keys match in
// exact case.
func (o *object) inner(key string) *object {
	keys := field(o, key, nil, allowedObject, strictjson.Object)
	return &object{path: o.path + key + ".", keys: keys, err: o.err}
}

// only refuses keys other than these.
func (o *object) only(known ...string) {
	for _, key := range slices.Sorted(maps.Keys(o.keys)) {
		if o.err == nil && !slices.Contains(known, key) {
			o.err = badConfig(o.path+strictjson.Label(key), "use "+strings.Join(known, ", "),
				"unknown key %s", strictjson.Quote(key))
		}
	}
}
