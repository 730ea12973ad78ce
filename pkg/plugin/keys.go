package plugin

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/invoke"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// listKeys returns those that a plugin's object may have and no plugin reads: those of a list,
// which a configuration of one plugin holds, and the device, which Braid and Multus write into
// every plugin of a NAD that has one.
func listKeys() []string {
	return []string{
		"cniVersions", "disableCheck", "disableGC", "loadOnlyInlinedPlugins", "deviceID", "pciBusID",
	}
}

// ipamKeys returns the same for the object "ipam": the reference's plugins have the network's name
// there.
func ipamKeys() []string { return []string{"name"} }

// keys compares the keys of a configuration with those that a plugin reads.
type keys struct {
	unknown []string
	recased []invoke.Recased
	// refused is the first key that is likely to be meant for another.
	refused *failure.Error
}

// object compares an object with the fields of a struct, and what is in it. The path is empty or
// ends in a period; extra are keys that are known besides. What is no object is left to the
// decoder.
func (k *keys) object(path string, raw json.RawMessage, t reflect.Type, extra []string) {
	fields := fieldsOf(t)
	written := map[string]string{} // by the key that is known
	for _, m := range strictjson.Members(raw) {
		key, at := m.Key, path+strictjson.Label(m.Key)
		name := key
		if _, ok := fields[key]; !ok && !slices.Contains(extra, key) {
			known := append(slices.Sorted(maps.Keys(fields)), extra...)
			if name = spelled(key, known); name == "" {
				k.stranger(at, key, known)
				continue
			}
		}
		if twin, ok := written[name]; ok {
			k.twins(at, twin, key)
			continue
		}
		written[name] = key
		if key != name {
			k.recased = append(k.recased, invoke.Recased{Path: at, Key: name})
		}
		if field, ok := fields[name]; ok {
			k.value(at, m.Value, field)
		}
	}
}

// twins refuses two keys of one object that mean the same.
func (k *keys) twins(path, first, second string) {
	const fix = "keep one of the two"
	if first == second {
		k.refuse(path, fix, "the key appears twice in one object")
		return
	}
	k.refuse(path, fix, "%s and %s differ by case alone", strictjson.Quote(first),
		strictjson.Quote(second))
}

// value looks at the objects in a value.
func (k *keys) value(path string, raw json.RawMessage, t reflect.Type) {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if reflect.PointerTo(t).Implements(reflect.TypeFor[json.Unmarshaler]()) {
		return
	}
	switch t.Kind() {
	case reflect.Struct:
		k.object(path+".", raw, t, nil)
	case reflect.Slice, reflect.Array:
		elements, err := strictjson.List(raw)
		if err != nil {
			return
		}
		for i, element := range elements {
			k.value(fmt.Sprintf("%s[%d]", path, i), element, t.Elem())
		}
	default: // texts, numbers, and maps, whose keys are the user's
	}
}

// stranger notes a key that is not known.
func (k *keys) stranger(at, key string, known []string) {
	if meant := strictjson.Near(key, known); meant != "" {
		k.refuse(at, "write "+meant, "unknown key %s", strictjson.Quote(key))
		return
	}
	k.unknown = append(k.unknown, at)
}

// refuse notes that a key is likely to be meant for another. The first one counts.
func (k *keys) refuse(at, fix, format string, args ...any) {
	if k.refused == nil {
		k.refused = &failure.Error{
			Reason: failure.NADInvalid, Field: at, Err: fmt.Errorf(format, args...), Fix: fix,
		}
	}
}

// spelled returns the known key that encoding/json takes a key for, which does not look at the
// case; "" where there is none.
func spelled(key string, known []string) string {
	if i := slices.IndexFunc(known, func(k string) bool { return strings.EqualFold(k, key) }); i >= 0 {
		return known[i]
	}
	return ""
}

// fieldTypes are what fieldsOf has returned, as types never change.
var fieldTypes sync.Map // of reflect.Type: map[string]reflect.Type

// fieldsOf returns the types of a struct's fields by their keys, those of embedded structs among
// them. The caller does not change the map.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	if fields, ok := fieldTypes.Load(t); ok {
		return fields.(map[string]reflect.Type) //nolint:errcheck,forcetypeassert // no other is stored
	}
	fields := map[string]reflect.Type{}
	for i := range t.NumField() {
		field := t.Field(i)
		name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
		inner := field.Type
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		switch {
		case name == "-":
		case name != "":
			fields[name] = field.Type
		case field.Anonymous && inner.Kind() == reflect.Struct:
			maps.Copy(fields, fieldsOf(inner))
		case field.IsExported():
			fields[field.Name] = field.Type
		}
	}
	fieldTypes.Store(t, fields)
	return fields
}
