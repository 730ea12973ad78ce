package whereabouts

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/pkg/hostfile"
	"github.com/braid-cni/braid/pkg/plugin"
)

// maxFlat bounds the flat file, in bytes.
const maxFlat = 64 << 10

// Files returns the places of the flat file, which configuration_path comes before.
func Files() []string {
	return []string{
		"/etc/kubernetes/cni/net.d/whereabouts.d/whereabouts.conf",
		"/etc/cni/net.d/whereabouts.d/whereabouts.conf",
	}
}

// complete returns the configuration with what the flat file has and it does not, and the path of
// that file, empty for none. With an error it is the configuration alone. Keys that have no effect
// are left out.
//
// The path may be that of any file of the node, so errors do not quote what is in it.
func (p Plugin) complete(c *Conf) (full *Conf, path string, err error) {
	c = p.heeded(c)
	path, raw, err := p.flat(c.ConfigurationPath)
	if err != nil || path == "" {
		return c, "", err
	}
	flat := Conf{}
	if err := json.Unmarshal(raw, &flat); err != nil {
		return c, "", flatError(path, reasonOf(err))
	}
	if !slices.Contains(p.Files, path) { // not the administrator's
		flat = *p.heeded(&flat)
	}
	copied := *c
	fill(reflect.ValueOf(&copied).Elem(), reflect.ValueOf(&flat).Elem())
	return &copied, path, nil
}

// flat reads the first file that exists. All are optional.
func (p Plugin) flat(first string) (path string, raw []byte, err error) {
	paths := p.Files
	if first != "" {
		if !filepath.IsAbs(first) {
			return "", nil, plugin.ConfError("ipam.configuration_path", first, "is not an absolute path")
		}
		paths = append([]string{first}, paths...)
	}
	for _, path := range paths {
		raw, err := hostfile.ReadLinked(path, maxFlat)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if bad, ok := errors.AsType[*os.PathError](err); ok {
			err = bad.Err
		}
		if err != nil {
			return "", nil, flatError(path, err.Error())
		}
		return path, raw, nil
	}
	return "", nil, nil
}

// flatError returns the error of a flat file; why quotes nothing of it.
func flatError(path, why string) error {
	return types.NewError(types.ErrInvalidNetworkConfig,
		fmt.Sprintf("flat file %.200q: %s", path, why), "")
}

// reasonOf returns why a flat file cannot be decoded, without its values.
func reasonOf(err error) string {
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		return fmt.Sprintf("field %.80q is not of the type %s", wrong.Field, wrong.Type)
	}
	return "is no JSON object"
}

// fill sets the fields that are empty to those of another value of the struct.
func fill(into, from reflect.Value) {
	for i := range into.NumField() {
		field := into.Field(i)
		switch {
		case field.Kind() == reflect.Struct:
			fill(field, from.Field(i))
		case field.IsZero() || field.Kind() == reflect.Slice && field.Len() == 0:
			field.Set(from.Field(i))
		}
	}
}

// fieldsOf returns the fields of a struct by their keys in JSON.
func fieldsOf(object any) iter.Seq2[string, reflect.Value] {
	return func(yield func(string, reflect.Value) bool) {
		value := reflect.ValueOf(object).Elem()
		for i := range value.NumField() {
			key, _, _ := strings.Cut(value.Type().Field(i).Tag.Get("json"), ",")
			if !yield(key, value.Field(i)) {
				return
			}
		}
	}
}
