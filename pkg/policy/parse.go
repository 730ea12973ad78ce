package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/netconf"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// Keys are those of a rule, in the order in which they are written.
func Keys() []string {
	return []string{
		"namespaces", "all", "types", "exec", "masters", "vlans", "bridges", "prefixes", "hostPorts", "sysctls",
		"onDisk", "defaultNetworks", "networks", "ranges",
	}
}

// Parse reads the rules of a policy, a list. Errors are *failure.Error with the field, beginning at
// field, and what is allowed.
func Parse(field string, raw json.RawMessage) ([]Rule, error) {
	elements, err := strictjson.List(raw)
	if err != nil {
		return nil, bad(field, `give a list of rules, as [{"namespaces": ["team-a"]}]`, err)
	}
	var rules []Rule
	for i, element := range elements {
		rule, err := parseRule(fmt.Sprintf("%s[%d]", field, i), element)
		if err != nil {
			return nil, err
		}
		for j := range rules {
			for _, name := range rule.Namespaces {
				if slices.Contains(rules[j].Namespaces, name) {
					return nil, bad(fmt.Sprintf("%s[%d].namespaces", field, i), "make one rule of the two",
						fmt.Errorf("%s is named by rule %d already, which comes first", strictjson.Quote(name), j))
				}
			}
		}
		rules = append(rules, *rule)
	}
	return rules, nil
}

func parseRule(field string, raw json.RawMessage) (*Rule, error) {
	keys, err := strictjson.Object(raw)
	if err != nil {
		return nil, bad(field, `give an object, as {"namespaces": ["team-a"]}`, err)
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if !slices.Contains(Keys(), key) {
			return nil, bad(field+"."+strictjson.Label(key), "use "+strings.Join(Keys(), ", "), errors.New("a rule has no such key"))
		}
	}
	rule := Default()
	p := parser{field: field, keys: keys}
	p.namespaces(&rule)
	value(&p, "all", &rule.All, "give true or false", strictjson.Bool)
	value(&p, "types", &rule.Types, "give a list of plugin types", list(pluginType))
	value(&p, "exec", &rule.Exec, "give a list of plugin types", list(pluginType))
	value(&p, "masters", &rule.Masters, `give a list of links, as ["ens2*"]`, list(pattern))
	value(&p, "vlans", &rule.VLANs, `give a list of VLANs, as ["100-199", 205]`, list(span(maxVLAN)))
	value(&p, "bridges", &rule.Bridges, `give a list of bridges, as ["br-*"]`, list(pattern))
	value(&p, "prefixes", &rule.Prefixes, `give a list of prefixes, as ["10.9.0.0/16"]`, list(prefix))
	value(&p, "hostPorts", &rule.HostPorts, `give an object, as {"ports": ["1024-65535"], "loopback": false}`, p.hostPorts)
	value(&p, "sysctls", &rule.Sysctls, `give a list of parameters, as ["net.ipv4.conf.IFNAME.*"]`, list(pattern))
	value(&p, "onDisk", &rule.OnDisk, "give true or false", strictjson.Bool)
	value(&p, "defaultNetworks", &rule.DefaultNetworks, "give true or false", strictjson.Bool)
	value(&p, "networks", &rule.Networks, "give a number, 0 for none", number)
	value(&p, "ranges", &rule.Ranges, "give a number, 0 for none", number)
	p.contradictions(&rule)
	if p.err != nil {
		return nil, p.err
	}
	return &rule, nil
}

// parser decodes one rule, key by key. After the first error its methods do nothing.
type parser struct {
	field string
	keys  map[string]json.RawMessage
	err   error
}

// value decodes a key into a field, which keeps its default where the key is absent.
func value[T any](p *parser, key string, into *T, allowed string, decode func(json.RawMessage) (T, error)) {
	raw, ok := p.keys[key]
	if !ok || p.err != nil {
		return
	}
	v, err := decode(raw)
	if err != nil {
		p.fail(key, allowed, err)
		return
	}
	*into = v
}

func (p *parser) fail(key, fix string, err error) {
	if p.err == nil {
		p.err = bad(p.field+"."+key, fix, err)
	}
}

// namespaces decodes the key without which a rule is for nobody.
func (p *parser) namespaces(rule *Rule) {
	const allowed = `name the namespaces that the rule is for, as ["team-a", "lab-*"]`
	value(p, "namespaces", &rule.Namespaces, allowed, list(namespace))
	if p.err == nil && len(rule.Namespaces) == 0 {
		p.fail("namespaces", allowed, errors.New("the rule names no namespace"))
	}
}

// contradictions refuses keys that leave each other without effect.
func (p *parser) contradictions(rule *Rule) {
	if p.err != nil {
		return
	}
	if rule.All && len(p.keys) > len([]string{"namespaces", "all"}) {
		p.fail("all", "keep it and namespaces alone, or remove it", errors.New("it lifts what the rule's other keys demand"))
	}
	for i, kind := range rule.Types {
		if !slices.Contains(builtIn(), kind) {
			p.fail(fmt.Sprintf("types[%d]", i), "name it in exec", fmt.Errorf("%s is not built in, so that it would have to be exec'd", kind))
		}
	}
	if len(rule.Types)+len(rule.Exec) == 0 {
		p.fail("types", `name plugins, or forbid networks with "networks": 0`, errors.New("the rule allows no plugin at all"))
	}
	if _, ok := p.keys["hostPorts"]; ok && rule.HostPorts.Loopback && len(rule.HostPorts.Ports) == 0 {
		p.fail("hostPorts.loopback", "name ports, or remove it", errors.New("the rule allows no port"))
	}
}

func (p *parser) hostPorts(raw json.RawMessage) (HostPorts, error) {
	keys, err := strictjson.Object(raw)
	if err != nil {
		return HostPorts{}, err
	}
	ports := HostPorts{Ports: Default().HostPorts.Ports}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		switch key {
		case "ports":
			ports.Ports, err = list(span(maxPort))(keys[key])
		case "loopback":
			ports.Loopback, err = strictjson.Bool(keys[key])
		default:
			err = errors.New("is unknown")
		}
		if err != nil {
			return HostPorts{}, fmt.Errorf("%s: %w", strictjson.Label(key), err)
		}
	}
	return ports, nil
}

// list decodes a list; an empty one is not nil.
func list[T any](decode func(json.RawMessage) (T, error)) func(json.RawMessage) ([]T, error) {
	return func(raw json.RawMessage) ([]T, error) {
		elements, err := strictjson.List(raw)
		if err != nil {
			return nil, err
		}
		values := make([]T, 0, len(elements))
		for i, element := range elements {
			v, err := decode(element)
			if err != nil {
				return nil, fmt.Errorf("element %d: %w", i, err)
			}
			values = append(values, v)
		}
		return values, nil
	}
}

// pattern decodes a name in which "*" stands for any text.
func pattern(raw json.RawMessage) (string, error) {
	text, err := strictjson.String(raw)
	if err == nil && (text == "" || text != strings.TrimSpace(text)) {
		err = fmt.Errorf("%s is empty, or has blanks around it", strictjson.Quote(text))
	}
	return text, err
}

func namespace(raw json.RawMessage) (string, error) {
	text, err := strictjson.String(raw)
	// A star stands for a letter as well as for none.
	if err == nil && len(validation.IsDNS1123Label(strings.ReplaceAll(text, "*", "a"))) > 0 {
		err = fmt.Errorf("%s is no name of a namespace, nor a pattern of names", strictjson.Quote(text))
	}
	return text, err
}

func pluginType(raw json.RawMessage) (string, error) {
	text, err := strictjson.String(raw)
	if err != nil {
		return "", err
	}
	if netconf.IsMeta(text) {
		return "", fmt.Errorf("%s would call itself: it cannot be a network of its own", strictjson.Quote(text))
	}
	return text, netconf.CheckType(text)
}

func prefix(raw json.RawMessage) (netip.Prefix, error) {
	text, err := strictjson.String(raw)
	if err != nil {
		return netip.Prefix{}, err
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || p != p.Masked() || p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%s is no prefix without host bits", strictjson.Quote(text))
	}
	return p, nil
}

// maxNumber bounds the bounds.
const maxNumber = 1 << 24

func number(raw json.RawMessage) (int, error) {
	n, err := strconv.ParseUint(string(raw), 10, 32)
	if err != nil || n > maxNumber {
		return 0, fmt.Errorf("%s is no number from 0 to %d", strictjson.Quote(string(raw)), maxNumber)
	}
	return int(n), nil
}

// bad is an error in a rule.
func bad(field, fix string, err error) *failure.Error {
	return &failure.Error{Reason: failure.InvalidConfig, Field: field, Err: err, Fix: fix}
}

// String is the rule as it is written: the keys that differ from the tenant's default.
func (r *Rule) String() string {
	var parts []string
	def := Default()
	for _, key := range Keys() {
		if have := r.value(key); !reflect.DeepEqual(have, def.value(key)) {
			parts = append(parts, Line(key, have))
		}
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

// MarshalJSON is String.
func (r Rule) MarshalJSON() ([]byte, error) { return []byte(r.String()), nil }

// Line is a key of a rule with its value, as it is written.
func Line(key string, value any) string { return fmt.Sprintf("%q: %s", key, strictjson.Marshal(value)) }

// value is that of a key.
func (r *Rule) value(key string) any {
	return map[string]any{
		"namespaces": r.Namespaces, "all": r.All, "types": r.Types, "exec": r.Exec, "masters": r.Masters, "vlans": r.VLANs,
		"bridges": r.Bridges, "prefixes": r.Prefixes, "sysctls": r.Sysctls, "onDisk": r.OnDisk, "defaultNetworks": r.DefaultNetworks,
		"networks": r.Networks, "ranges": r.Ranges,
		"hostPorts": map[string]any{"ports": r.HostPorts.Ports, "loopback": r.HostPorts.Loopback},
	}[key]
}
