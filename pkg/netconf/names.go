package netconf

import (
	"encoding/json"

	"github.com/braid-cni/braid/pkg/strictjson"
)

// The space of cluster-wide addresses, a key of an IPAM plugin.
const (
	spaceType = "whereabouts"
	spaceKey  = "network_name"
)

// RenameSpaces replaces the network_name of each whereabouts in the list, at whatever depth, by
// what rename returns for it. Empty means none.
func (l *List) RenameSpaces(rename func(string) string) {
	for _, plugin := range l.plugins {
		renameSpaces(plugin, rename)
	}
}

// renameSpaces reports whether it has changed the plugin's configuration, or one in it.
func renameSpaces(plugin map[string]json.RawMessage, rename func(string) string) (changed bool) {
	for key, raw := range plugin {
		switch strictjson.Fold(key) {
		case "ipam", "delegate":
			if renamed := renameInside(raw, rename); renamed != nil {
				plugin[key], changed = renamed, true
			}
		case "delegates", "plugins":
			if renamed := renameEach(raw, rename); renamed != nil {
				plugin[key], changed = renamed, true
			}
		}
	}
	if strictjson.Text(strictjson.Lookup(plugin, "type")) == spaceType {
		changed = renameSpace(plugin, rename) || changed
	}
	return changed
}

// renameEach is renameInside for a list of configurations.
func renameEach(raw json.RawMessage, rename func(string) string) json.RawMessage {
	elements, err := strictjson.List(raw)
	if err != nil {
		return nil // it configures no plugins
	}
	changed := false
	for i, element := range elements {
		if renamed := renameInside(element, rename); renamed != nil {
			elements[i], changed = renamed, true
		}
	}
	if !changed {
		return nil
	}
	return strictjson.Marshal(elements)
}

// renameInside returns the configuration of a plugin that another one calls as it is to be; nil if
// nothing of it changes.
func renameInside(raw json.RawMessage, rename func(string) string) json.RawMessage {
	inside, err := strictjson.Object(raw)
	if err != nil || !renameSpaces(inside, rename) {
		return nil // it may configure no plugin
	}
	return strictjson.Marshal(inside)
}

// renameSpace renames the space of one plugin, in each key that a plugin may take for that of it. A
// value that is no text the plugin refuses.
func renameSpace(plugin map[string]json.RawMessage, rename func(string) string) (changed bool) {
	named := false
	for key, raw := range plugin {
		if strictjson.Fold(key) != spaceKey || strictjson.Null(raw) {
			continue
		}
		was := strictjson.Text(raw)
		if named = true; strictjson.Kind(raw) != "a string" {
			continue
		}
		if now := rename(was); now != was {
			plugin[key], changed = strictjson.Marshal(now), true
		}
	}
	if now := rename(""); !named && now != "" {
		plugin[spaceKey], changed = strictjson.Marshal(now), true
	}
	return changed
}
