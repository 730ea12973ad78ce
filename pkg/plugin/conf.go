package plugin

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/pkg/conf/strictjson"
)

// ConfError is that of a key of the configuration that has a value it cannot have; value may be nil. Its code is CNI's "invalid network
// config".
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

// decode reads a configuration, the value of the key of ("ipam", or empty for the whole), and says what
// is to be said of its keys, which match whatever their case, as in the reference. The error is of
// CNI's code "invalid network config", but for text that is no JSON, which has "decoding failure".
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

// Picky is a configuration of which the plugin does not know every value. Knows names one that it does not know, which another implementation
// of the plugin's type may know.
type Picky interface{ Knows() error }

// badValue names the key and quotes the value that a configuration's type does not have. raw is the value of the key of, which is empty
// for the whole configuration.
func badValue(of string, raw []byte, err error) error {
	wrong, ok := errors.AsType[*json.UnmarshalTypeError](err)
	if !ok {
		return types.NewError(types.ErrDecodingFailure, "decode configuration: "+err.Error(), "")
	}
	path, value := []string{of}, json.RawMessage(raw)
	for key := range strings.FieldsFuncSeq(wrong.Field, func(c rune) bool { return c == '.' }) {
		object, err := strictjson.Object(value)
		if err == nil && object[key] == nil {
			continue // the name of an embedded struct, not a key
		}
		path, value = append(path, key), object[key]
	}
	text := cmp.Or(strings.Trim(strings.Join(path, "."), "."), "configuration")
	if value != nil {
		text += " " + strictjson.Label(string(value))
	}
	want := wrong.Type.String()
	if wrong.Type.Kind() == reflect.Struct {
		want = "object"
	}
	return types.NewError(types.ErrInvalidNetworkConfig, fmt.Sprintf("field %s: is a JSON %s, want %s", text, wrong.Value, want), "")
}
