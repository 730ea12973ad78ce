package plugin

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"unicode"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// ConfError returns the error of a key of the configuration with a wrong value, which may be nil.
// Its code is CNI's "invalid network config".
func ConfError(key string, value any, why string) error {
	msg := key
	if text, ok := value.(string); ok {
		msg += " " + strictjson.Quote(text)
	} else if value != nil {
		text, err := json.Marshal(value)
		if err != nil {
			text = []byte(fmt.Sprint(value))
		}
		msg += " " + strictjson.Label(string(text))
	}
	return types.NewError(types.ErrInvalidNetworkConfig, "field "+msg+": "+why, "")
}

// Protected returns the error of an attachment that may not do to the node what the key field of
// its configuration asks for.
func Protected(field string, err error, fix string) error {
	return &failure.Error{Reason: failure.NodeProtected, Field: field, Err: err, Fix: fix}
}

// NotAllowed returns the error of a key field of the configuration that asks for what no rule of
// the policy allows. It ends with the rule that would allow it: the value for this key of the
// policy. fix is what the author of the network can do.
func NotAllowed(
	field string, err error, fix string, limits *attachment.Limits, key string, value any,
) error {
	rule := fmt.Sprintf(`{"namespaces": [%q], %q: %s}`,
		limits.Namespace, key, strictjson.Marshal(value))
	return &failure.Error{
		Reason: failure.PolicyRefused, Field: field, Err: err,
		Fix: fix + `, or let the operator change the rule of the namespace, or add to ` +
			`"braid": {"policy": [...]}: ` + rule,
	}
}

// decode reads a configuration, and collects what is wrong with its keys. It is the value of the
// key of ("ipam", or empty for the whole). Keys match in any case, as in the reference. The error
// has CNI's code "invalid network config", or "decoding failure" for text that is no JSON.
func decode[C any](of string, raw []byte, extra []string) (c *C, p *prepared, err error) {
	c, p = new(C), &prepared{}
	if err := json.Unmarshal(raw, c); err != nil {
		return nil, nil, badValue(of, raw, err)
	}
	path := ""
	if of != "" {
		path = of + "."
	}
	p.keys.object(path, raw, reflect.TypeFor[C](), extra)
	if picky, ok := any(c).(Picky); ok {
		p.foreign = picky.Knows()
	}
	if v, ok := any(c).(Validator); ok {
		p.validate = v.Validate
	}
	return c, p, nil
}

// Picky is a configuration with values that the plugin may not know. Knows returns the error of one
// that it does not know and another implementation of its type may.
type Picky interface{ Knows() error }

// badValue names the key whose value has a wrong type, and quotes the value. raw is the value of
// the key of, which is empty for the whole configuration.
func badValue(of string, raw []byte, err error) error {
	wrong, ok := errors.AsType[*json.UnmarshalTypeError](err)
	if !ok {
		return types.NewError(types.ErrDecodingFailure, "decode configuration: "+err.Error(), "")
	}
	kind, _, _ := strings.Cut(wrong.Value, " ") // of "number 1.5"
	path, value := of, json.RawMessage(raw)
	for key := range strings.FieldsFuncSeq(wrong.Field, func(c rune) bool { return c == '.' }) {
		path, value = element(path, value, func(e json.RawMessage) bool {
			return isKind(valueOf(e, key), kind)
		})
		inner := valueOf(value, key)
		if inner == nil || unicode.IsUpper(rune(key[0])) {
			continue // the name of an embedded struct, not a key
		}
		path, value = path+"."+key, inner
	}
	if wrong.Type.Kind() != reflect.Slice {
		path, value = element(path, value, func(e json.RawMessage) bool { return isKind(e, kind) })
	}
	text := cmp.Or(strings.TrimPrefix(path, "."), "configuration")
	if s, err := strictjson.String(value); err == nil {
		text += " " + strictjson.Quote(s)
	} else if value != nil {
		text += " " + strictjson.Label(string(value))
	}
	return types.NewError(types.ErrInvalidNetworkConfig,
		fmt.Sprintf("field %s: is a JSON %s, want %s", text, wrong.Value, nameOf(wrong.Type)), "")
}

// element goes on to the first element of a list that is the one; it stays where there is none.
func element(
	path string, value json.RawMessage, is func(json.RawMessage) bool,
) (string, json.RawMessage) {
	elements, err := strictjson.List(value)
	if i := slices.IndexFunc(elements, is); err == nil && i >= 0 {
		return fmt.Sprintf("%s[%d]", path, i), elements[i]
	}
	return path, value
}

// valueOf returns the value of a key of an object, whatever its case; nil for none.
func valueOf(raw json.RawMessage, key string) json.RawMessage {
	members := strictjson.Members(raw)
	i := slices.IndexFunc(members, func(m strictjson.Member) bool {
		return strings.EqualFold(m.Key, key)
	})
	if i < 0 {
		return nil
	}
	return members[i].Value
}

// isKind reports whether a value is what encoding/json calls by that name.
func isKind(raw json.RawMessage, name string) bool {
	kinds := map[string]string{
		"a number": "number", "a string": "string", "a boolean": "bool", "an object": "object",
		"a list": "array",
	}
	return kinds[strictjson.Kind(raw)] == name
}

// nameOf returns what JSON has for a type.
func nameOf(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Struct, reflect.Map:
		return "object"
	case reflect.Slice, reflect.Array:
		return "list"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint32, reflect.Uint64:
		return "whole number"
	}
	return t.String()
}
