package netconf

import (
	"encoding/json"
	"fmt"
	"maps"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// SetName sets the network's name, which libcni hands to every plugin.
func (l *List) SetName(name string) { l.top["name"] = strictjson.Marshal(name) }

// SetCNIVersion sets the one version of the list; a choice of versions is dropped.
func (l *List) SetCNIVersion(version string) {
	l.top["cniVersion"] = strictjson.Marshal(version)
	delete(l.top, "cniVersions")
}

// SetAll sets a key in the configuration of every plugin. The value must be valid JSON, and the key
// none that Parse validates.
func (l *List) SetAll(key string, value json.RawMessage) {
	for _, plugin := range l.plugins {
		plugin[key] = value
	}
}

// Rename replaces the types of plugins, and of their IPAM plugins, that are aliases.
func (l *List) Rename(aliases map[string]string) {
	if len(aliases) == 0 {
		return
	}
	for _, plugin := range l.plugins {
		if kind := aliases[strictjson.Text(plugin["type"])]; kind != "" {
			plugin["type"] = strictjson.Marshal(kind)
		}
		ipam, err := strictjson.Object(plugin["ipam"])
		if err != nil {
			continue
		}
		if kind := aliases[strictjson.Text(ipam["type"])]; kind != "" {
			ipam["type"] = strictjson.Marshal(kind)
			plugin["ipam"] = strictjson.Marshal(ipam)
		}
	}
}

// DropPrevResults removes prevResult from the configuration of every plugin, with a warning. Only a
// runtime may pass it, and it has none for the first plugin.
func (l *List) DropPrevResults() (warnings []*failure.Error) {
	for _, plugin := range l.plugins {
		if strictjson.Null(plugin["prevResult"]) {
			continue
		}
		warning := invalid("prevResult", "leave the key out",
			"the key is ignored: the result of the plugin before is passed by the runtime")
		warning.Reason, warning.Plugin = failure.IgnoredKey, strictjson.Text(plugin["type"])
		warnings = append(warnings, warning)
		delete(plugin, "prevResult")
	}
	return warnings
}

// MergeCNIArgs puts values into args.cni of every plugin (CNI conventions, NPWG v1.3 s.4.1.2.1.6).
// They win over values that the configuration has there; its other values stay. On error, the list
// is unchanged.
func (l *List) MergeCNIArgs(args map[string]json.RawMessage) error {
	if len(args) == 0 {
		return nil
	}
	merged := make([]json.RawMessage, l.Len())
	for i, plugin := range l.plugins {
		var err error
		if merged[i], err = mergeCNIArgs(plugin["args"], args); err != nil {
			fe := invalid(fmt.Sprintf("plugins[%d].args", i), `make "args" and "args.cni" objects`,
				"%w", err)
			fe.Plugin = strictjson.Text(plugin["type"])
			return fe
		}
	}
	for i, plugin := range l.plugins {
		plugin["args"] = merged[i]
	}
	return nil
}

// mergeCNIArgs returns args with values put over its "cni"; neither need be there.
func mergeCNIArgs(raw json.RawMessage, values map[string]json.RawMessage) (json.RawMessage, error) {
	args, err := optionalObject(raw)
	if err != nil {
		return nil, err
	}
	cni, err := optionalObject(args["cni"])
	if err != nil {
		return nil, fmt.Errorf(`"cni" %w`, err)
	}
	maps.Copy(cni, values)
	if args["cni"] = strictjson.Marshal(cni); args["cni"] == nil {
		return nil, fmt.Errorf("a value to be merged is no JSON")
	}
	return strictjson.Marshal(args), nil
}

// optionalObject returns an object, empty where it is absent or null.
func optionalObject(raw json.RawMessage) (map[string]json.RawMessage, error) {
	if strictjson.Null(raw) {
		return map[string]json.RawMessage{}, nil
	}
	return strictjson.Object(raw)
}

// invalid returns an error in a network's configuration. The caller names the network.
func invalid(field, fix, format string, args ...any) *failure.Error {
	return &failure.Error{
		Reason: failure.NADInvalid, Field: field, Err: fmt.Errorf(format, args...), Fix: fix,
	}
}
