package netconf

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode"

	"github.com/braid-cni/braid/pkg/strictjson"
)

const allowedPlugin = "give the file name of a plugin, without a path"

// pluginName checks that a type is the bare name of a file: libcni and the plugins look it up in
// the plugin path and run what they find (CVE-2021-20206).
func pluginName(raw json.RawMessage) (string, error) {
	name, err := strictjson.String(raw)
	if err != nil {
		return "", fmt.Errorf("%s %w", strictjson.Quote(string(raw)), err)
	}
	return name, CheckType(name)
}

// CheckType returns an error if a plugin type is not the bare name of a file.
func CheckType(name string) error {
	bad := func(r rune) bool {
		return r == '/' || r == '\\' || r == unicode.ReplacementChar || !unicode.IsPrint(r)
	}
	switch {
	case name == "":
		return errors.New(`"" is empty`)
	case name == "." || name == ".." || len(name) > 255 || strings.ContainsFunc(name, bad):
		return fmt.Errorf("%s is no plain file name", strictjson.Quote(name))
	}
	return nil
}

// inner is an object inside a plugin's configuration that names a plugin of its own.
type inner struct {
	path string
	// raw is the value of "type"; pluginType the same, decoded, and empty where that is not a string.
	raw        json.RawMessage
	pluginType string
	// ipam is true if it is the value of a key "ipam"; there a type may be empty or missing.
	ipam bool
	// kind is what the value is where it should be an object, as "a list"; empty where it is one.
	kind string
	keys map[string]json.RawMessage
}

// nested finds the objects under "ipam", and under "delegate", "delegates" and "plugins" where
// plugins that call others keep them, at any depth. The depth is bounded by strictjson.MaxDepth.
func nested(path string, object map[string]json.RawMessage) []inner {
	var all []inner
	for _, key := range []string{"ipam", "delegate"} {
		if raw := strictjson.Lookup(object, key); !strictjson.Null(raw) {
			all = append(all, descend(path+key, raw, key == "ipam")...)
		}
	}
	for _, key := range []string{"delegates", "plugins"} {
		value := strictjson.Lookup(object, key)
		if value == nil {
			continue
		}
		elements, err := strictjson.List(value)
		if err != nil {
			continue // no list of plugins, but a key of the plugin's own
		}
		for i, raw := range elements {
			all = append(all, descend(fmt.Sprintf("%s%s[%d]", path, key, i), raw, false)...)
		}
	}
	return all
}

// descend returns the object at path, and what is in it. A value that is no object is one of the
// plugin's own keys, but for an "ipam".
func descend(path string, raw json.RawMessage, ipam bool) []inner {
	keys, err := strictjson.Object(raw)
	if err != nil {
		if !ipam {
			return nil // no plugin, but a value of the plugin's own
		}
		return []inner{{path: path, ipam: true, kind: strictjson.Kind(raw)}}
	}
	kind := strictjson.Lookup(keys, "type")
	this := inner{path: path, raw: kind, pluginType: strictjson.Text(kind), ipam: ipam, keys: keys}
	return append([]inner{this}, nested(path+".", keys)...)
}

// nestedKeys returns those under which plugins that call others have them, and what they are called
// by.
func nestedKeys() []string { return []string{"type", "ipam", "delegate", "delegates", "plugins"} }

// checkNested validates the types of plugins that the plugin will call itself.
func checkNested(path string, plugin map[string]json.RawMessage) error {
	if err := twins(path, plugin, nestedKeys()); err != nil {
		return err
	}
	for _, n := range nested(path, plugin) {
		if err := n.check(); err != nil {
			return err
		}
	}
	return nil
}

// check validates the type of the plugin.
func (n *inner) check() error {
	if n.kind != "" {
		return invalid(n.path, `give an object with "type"`, "is %s, not an object", n.kind)
	}
	if err := twins(n.path+".", n.keys, nestedKeys()); err != nil {
		return err
	}
	if strictjson.Null(n.raw) || n.ipam && string(n.raw) == `""` {
		return nil
	}
	if _, err := pluginName(n.raw); err != nil {
		return invalid(n.path+".type", allowedPlugin, "%w", err)
	}
	return checkMeta(n.path+".type", n.pluginType)
}
