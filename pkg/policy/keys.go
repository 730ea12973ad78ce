package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strings"

	"github.com/braid-cni/braid/pkg/strictjson"
)

// key is a key of a rule: how it is read, and how it is written.
type key struct {
	name string
	// allowed describes valid values, for messages.
	allowed string
	// parse reads the key's value into a rule.
	parse func(*Rule, json.RawMessage) error
	// value returns a rule's value of the key.
	value func(*Rule) any
}

const (
	allowedNamespaces = `name the namespaces that the rule is for, as ["team-a", "lab-*"]`
	allowedBool       = "give true or false"
	allowedTypes      = "give a list of plugin types"
	allowedNumber     = "give a number, 0 for none"
)

// keys returns the keys of a rule, in the order in which they are written.
func keys() []key {
	return []key{
		entry("namespaces", allowedNamespaces,
			func(r *Rule) *[]string { return &r.Namespaces }, list(namespace)),
		entry("all", allowedBool, func(r *Rule) *bool { return &r.All }, strictjson.Bool),
		entry("types", allowedTypes, func(r *Rule) *[]string { return &r.Types }, list(pluginType)),
		entry("exec", allowedTypes, func(r *Rule) *[]string { return &r.Exec }, list(pluginType)),
		entry("masters", `give a list of links, as ["ens2*"]`,
			func(r *Rule) *[]string { return &r.Masters }, list(pattern)),
		entry("vlans", `give a list of VLANs, as ["100-199", 205]`,
			func(r *Rule) *[]Span { return &r.VLANs }, list(span(maxVLAN))),
		entry("bridges", `give a list of bridges, as ["br-*"]`,
			func(r *Rule) *[]string { return &r.Bridges }, list(pattern)),
		entry("spoofing", allowedBool, func(r *Rule) *bool { return &r.Spoofing }, strictjson.Bool),
		entry("prefixes", `give a list of prefixes, as ["10.9.0.0/16"]`,
			func(r *Rule) *[]netip.Prefix { return &r.Prefixes }, list(prefix)),
		entry("hostPorts", `give an object, as {"ports": ["1024-65535"], "loopback": false}`,
			func(r *Rule) *HostPorts { return &r.HostPorts }, hostPorts),
		entry("sysctls", `give a list of parameters, as ["net.ipv4.conf.IFNAME.*"]`,
			func(r *Rule) *[]string { return &r.Sysctls }, list(pattern)),
		entry("names", `give a list of names of networks, as ["shared", "team-b.*"]`,
			func(r *Rule) *[]string { return &r.Names }, list(pattern)),
		entry("onDisk", allowedBool, func(r *Rule) *bool { return &r.OnDisk }, strictjson.Bool),
		entry("defaultNetworks", allowedBool,
			func(r *Rule) *bool { return &r.DefaultNetworks }, strictjson.Bool),
		entry("networks", allowedNumber, func(r *Rule) *int { return &r.Networks }, number),
		entry("ranges", allowedNumber, func(r *Rule) *int { return &r.Ranges }, number),
		entry("addresses", allowedNumber, func(r *Rule) *int { return &r.Addresses }, number),
	}
}

// entry returns a key whose value is in a field of Rule.
func entry[T any](
	name, allowed string, place func(*Rule) *T, decode func(json.RawMessage) (T, error),
) key {
	return key{
		name: name, allowed: allowed,
		parse: func(r *Rule, raw json.RawMessage) (err error) {
			*place(r), err = decode(raw)
			return err
		},
		value: func(r *Rule) any { return *place(r) },
	}
}

// Keys returns the names of a rule's keys, in the order in which they are written.
func Keys() []string {
	var names []string
	for _, k := range keys() {
		names = append(names, k.name)
	}
	return names
}

// differing returns the keys in which a rule differs from another, with their values, as they are
// written.
func (r *Rule) differing(other *Rule) []string {
	var lines []string
	for _, k := range keys() {
		if value := k.value(r); !reflect.DeepEqual(value, k.value(other)) {
			lines = append(lines, fmt.Sprintf("%q: %s", k.name, strictjson.Marshal(value)))
		}
	}
	return lines
}

// String returns the rule as it is written: the keys that differ from the tenant's default.
func (r *Rule) String() string {
	def := Default()
	return "{" + strings.Join(r.differing(&def), ", ") + "}"
}

// MarshalJSON is String.
func (r Rule) MarshalJSON() ([]byte, error) { return []byte(r.String()), nil }

// hostPorts decodes the key of that name. Without "ports" they are those of Default.
func hostPorts(raw json.RawMessage) (HostPorts, error) {
	given, err := strictjson.Object(raw)
	if err != nil {
		return HostPorts{}, err
	}
	ports := HostPorts{Ports: Default().HostPorts.Ports}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		switch name {
		case "ports":
			ports.Ports, err = list(span(maxPort))(given[name])
		case "loopback":
			ports.Loopback, err = strictjson.Bool(given[name])
		default:
			err = errors.New("is unknown")
		}
		if err != nil {
			return HostPorts{}, fmt.Errorf("%s: %w", strictjson.Label(name), err)
		}
	}
	return ports, nil
}
