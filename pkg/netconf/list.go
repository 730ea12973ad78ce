package netconf

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/version"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// List is a CNI configuration list whose fields are kept as they were written: a conf is a list of
// one plugin. The zero value is not usable; Parse makes one. It is not safe for concurrent use.
type List struct {
	// top holds the list's own keys, without "plugins".
	top     map[string]json.RawMessage
	plugins []map[string]json.RawMessage
	// single is true if the source was a conf, to which no directory adds plugins.
	single bool
	// warnings are of keys that were written in another case.
	warnings []*failure.Error
}

// Warnings returns a warning for each key that the source has in another case.
func (l *List) Warnings() []*failure.Error { return l.warnings }

// Len returns the number of plugins, at least 1.
func (l *List) Len() int { return len(l.plugins) }

// Name returns the network's name; empty where the list has none.
func (l *List) Name() string { return strictjson.Text(l.top["name"]) }

// CNIVersion returns the highest version among cniVersion and cniVersions that Braid speaks (CNI
// 1.1 "Version considerations"); empty where the list names none.
func (l *List) CNIVersion() string {
	var offered []string
	for _, v := range l.offered() {
		if Speaks(v) {
			offered = append(offered, v)
		}
	}
	slices.SortFunc(offered, func(a, b string) int {
		return slices.Index(versions(), a) - slices.Index(versions(), b)
	})
	if len(offered) == 0 {
		return ""
	}
	return offered[len(offered)-1]
}

// offered returns all versions that the list names, supported or not.
func (l *List) offered() []string {
	var all []string
	if v := strictjson.Text(l.top["cniVersion"]); v != "" {
		all = append(all, v)
	}
	if l.top["cniVersions"] == nil {
		return all
	}
	elements, err := strictjson.List(l.top["cniVersions"])
	if err != nil {
		return all
	}
	for _, raw := range elements {
		all = append(all, strictjson.Text(raw))
	}
	return all
}

// versions returns the versions of CNI that Braid speaks, lowest first.
func versions() []string { return version.VersionsStartingFrom("0.3.0").SupportedVersions() }

// Speaks reports whether Braid speaks a version of CNI.
func Speaks(cniVersion string) bool { return slices.Contains(versions(), cniVersion) }

// AllowedVersions describes valid values of cniVersion, for messages.
func AllowedVersions() string { return "use one of " + strings.Join(versions(), ", ") }

// Types returns the plugins' types in the order of the chain.
func (l *List) Types() []string {
	types := make([]string, l.Len())
	for i, p := range l.plugins {
		types[i] = strictjson.Text(p["type"])
	}
	return types
}

// IPAMTypes returns the types of all "ipam" objects, at whatever depth, each once, in the order of
// the chain.
func (l *List) IPAMTypes() []string {
	var types []string
	for _, p := range l.plugins {
		for _, n := range nested("", p) {
			if n.ipam && n.pluginType != "" && !slices.Contains(types, n.pluginType) {
				types = append(types, n.pluginType)
			}
		}
	}
	return types
}

// Capabilities returns the capabilities that at least one plugin declares as true.
func (l *List) Capabilities() map[string]bool {
	all := map[string]bool{}
	for i := range l.plugins {
		for capability, declared := range l.capabilities(i) {
			if declared {
				all[capability] = true
			}
		}
	}
	return all
}

// PluginHas reports whether the plugin at index i declares the capability.
func (l *List) PluginHas(i int, capability string) bool { return l.capabilities(i)[capability] }

func (l *List) capabilities(i int) map[string]bool {
	var declared map[string]bool
	if json.Unmarshal(l.plugins[i]["capabilities"], &declared) != nil {
		return nil
	}
	return declared
}

// HasIPAM reports whether the plugin at index i has an IPAM configuration.
func (l *List) HasIPAM(i int) bool { return !strictjson.Null(l.plugins[i]["ipam"]) }

// shareCapabilities adds the capabilities of the list to each plugin that does not declare them
// otherwise. libcni reads only those of plugins.
func (l *List) shareCapabilities() error {
	if l.single || strictjson.Null(l.top["capabilities"]) {
		return nil
	}
	if err := checkCapabilities("", l.top); err != nil {
		return err
	}
	shared, err := strictjson.Object(l.top["capabilities"])
	if err != nil {
		return err
	}
	for _, plugin := range l.plugins {
		all := maps.Clone(shared)
		if own, err := optionalObject(plugin["capabilities"]); err == nil {
			maps.Copy(all, own)
		}
		plugin["capabilities"] = strictjson.Marshal(all)
	}
	return nil
}

// Plugin returns a copy of the configuration of the plugin at index i, values as written.
func (l *List) Plugin(i int) map[string]json.RawMessage {
	plugin := maps.Clone(l.plugins[i])
	for key, value := range plugin {
		plugin[key] = bytes.Clone(value)
	}
	return plugin
}

// Bytes returns the list as JSON: always a conflist, keys of the list and of its plugins sorted,
// everything below as it was written but for white space. It is nil if a value given to SetAll was
// not JSON.
func (l *List) Bytes() []byte {
	all := map[string]any{"plugins": l.plugins}
	for key, value := range l.top {
		all[key] = value
	}
	return strictjson.Marshal(all)
}
