package invoke

import (
	"context"
	"encoding/json"
	"reflect"
	"slices"
	"strings"

	cniinvoke "github.com/containernetworking/cni/pkg/invoke"
)

// injected are the keys that libcni sets in a plugin's configuration; all others are the network's own.
var injected = map[string]bool{
	"name": true, "cniVersion": true, "prevResult": true, "runtimeConfig": true,
	"cni.dev/valid-attachments": true, "cni.dev/attachments": true,
}

// Lossless gives an Exec whose plugins receive their configuration as it was written. libcni decodes configurations into
// floating point numbers to add its keys, so an integer beyond 2^53 would reach the plugin as another one.
func Lossless(inner cniinvoke.Exec, plugins []json.RawMessage) cniinvoke.Exec {
	if !slices.ContainsFunc(plugins, inexact) {
		return inner
	}
	return &lossless{Exec: inner, plugins: plugins}
}

// maxExact is how many digits an integer may have that a floating point number holds for certain.
const maxExact = 15

// inexact says whether a JSON text may have a number that is written otherwise once it was a floating point number.
func inexact(raw json.RawMessage) bool {
	digits, quoted := 0, false
	for i := 0; i < len(raw); i++ {
		switch c := raw[i]; {
		case c == '"':
			quoted = !quoted
		case quoted && c == '\\':
			i++
		case quoted:
		case '0' <= c && c <= '9':
			digits++
		case digits > 0 && strings.ContainsRune(".eE", rune(c)):
			return true
		default:
			digits = 0
		}
		if digits > maxExact {
			return true
		}
	}
	return false
}

type lossless struct {
	cniinvoke.Exec
	plugins []json.RawMessage
}

func (l *lossless) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	return l.Exec.ExecPlugin(ctx, path, restore(stdin, l.plugins), environ)
}

// restore puts back the values of the plugin that stdin was made from. Without such a plugin stdin stays as it is.
func restore(stdin []byte, plugins []json.RawMessage) []byte {
	var sent map[string]json.RawMessage
	if json.Unmarshal(stdin, &sent) != nil {
		return stdin
	}
	for _, plugin := range plugins {
		var original map[string]json.RawMessage
		if json.Unmarshal(plugin, &original) != nil || !sameConfig(sent, original) {
			continue
		}
		for key, value := range original {
			if !injected[key] {
				sent[key] = value
			}
		}
		if out, err := json.Marshal(sent); err == nil {
			return out
		}
	}
	return stdin
}

// sameConfig says whether sent is what libcni makes of original: equal but for the injected keys, with numbers as floats.
func sameConfig(sent, original map[string]json.RawMessage) bool {
	for key, value := range original {
		if !injected[key] && !sameValue(sent[key], value) {
			return false
		}
	}
	return true
}

func sameValue(a, b json.RawMessage) bool {
	var x, y any
	return json.Unmarshal(a, &x) == nil && json.Unmarshal(b, &y) == nil && reflect.DeepEqual(x, y)
}
