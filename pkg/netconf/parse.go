package netconf

import (
	"encoding/json"
	"fmt"

	"github.com/braid-cni/braid/pkg/strictjson"
)

// MaxSize bounds a network's configuration, in bytes: what Kubernetes can store of an object, at
// the least.
const MaxSize = 1 << 20

// Parse reads a network's configuration: a conf, which has "type" and becomes a list of one
// plugin, or a conflist, which has "plugins". It accepts no more than it can keep: comments, a key
// that is given twice and bytes that are not UTF-8 are errors with line and column. Name and
// cniVersion may be missing. Keys that Braid or libcni act on are given their case, with a warning:
// encoding/json, with which plugins read them, would take "Type" for "type" and so get round what
// is checked here.
func Parse(raw []byte) (*List, error) {
	list, err := parse(raw)
	if err != nil {
		return nil, err
	}
	if list.Len() == 0 {
		return nil, invalid("plugins",
			`give a conf, which has "type", or a conflist, which has "plugins"`,
			"the configuration has neither type nor plugins")
	}
	return list, nil
}

// parse is Parse, but a list without the key "plugins" has none, as a list may whose plugins lie in
// a directory.
func parse(raw []byte) (*List, error) {
	top, err := parseObject(raw)
	if err != nil {
		return nil, err
	}
	warnings, err := respell("", top, append(listKeys(), "plugins", "type"))
	if err != nil {
		return nil, err
	}
	list, err := split(top)
	if err != nil {
		return nil, err
	}
	list.warnings = warnings
	if err := list.check(); err != nil {
		return nil, err
	}
	if err := list.shareCapabilities(); err != nil {
		return nil, err
	}
	return list, nil
}

// parseObject decodes the outermost object and checks the text as a whole.
func parseObject(raw []byte) (map[string]json.RawMessage, error) {
	if len(raw) > MaxSize {
		return nil, invalid("", fmt.Sprintf("keep it below %d bytes", MaxSize),
			"the configuration has %d bytes", len(raw))
	}
	if err := strictjson.Check(raw); err != nil {
		path, fix := strictjson.Place(err)
		return nil, invalid(path, fix, "%w", err)
	}
	top, err := strictjson.Object(raw)
	if err != nil {
		return nil, invalid("", "", "the configuration %w", err)
	}
	return top, nil
}

// split makes a list of a conf or a conflist. Keys of a conf that belong to a list move there;
// libcni hands name and cniVersion back to the plugin.
func split(top map[string]json.RawMessage) (*List, error) {
	_, isConf := top["type"]
	plugins, isList := top["plugins"]
	switch {
	case isConf && isList:
		return nil, invalid("type", `remove one of them: a conf has "type", a conflist has "plugins"`,
			"the configuration has both type and plugins")
	case isConf:
		list := &List{
			top: map[string]json.RawMessage{}, plugins: []map[string]json.RawMessage{top}, single: true,
		}
		for _, key := range listKeys() {
			if value, ok := top[key]; ok {
				list.top[key] = value
				delete(top, key)
			}
		}
		return list, nil
	case isList:
		delete(top, "plugins")
		list := &List{top: top}
		return list, list.decodePlugins(plugins)
	}
	return &List{top: top}, nil
}

// listKeys returns the keys of a list besides "plugins".
func listKeys() []string {
	return []string{
		"name", "cniVersion", "cniVersions", "disableCheck", "disableGC", "loadOnlyInlinedPlugins",
	}
}

func (l *List) decodePlugins(raw json.RawMessage) error {
	elements, err := strictjson.List(raw)
	if err != nil {
		return invalid("plugins", "give a list of plugin configurations", "%w", err)
	}
	if len(elements) == 0 {
		return invalid("plugins", "give at least one plugin configuration", "the list is empty")
	}
	for i, element := range elements {
		plugin, err := strictjson.Object(element)
		if err != nil {
			return invalid(fmt.Sprintf("plugins[%d]", i), `give an object with "type"`, "%s %w",
				strictjson.Quote(string(element)), err)
		}
		l.plugins = append(l.plugins, plugin)
	}
	return nil
}
