package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/netconf"
	"github.com/braid-cni/braid/pkg/strictjson"
)

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

// parseRule reads a rule. What it does not name is as in Default.
func parseRule(field string, raw json.RawMessage) (*Rule, error) {
	given, err := strictjson.Object(raw)
	if err != nil {
		return nil, bad(field, `give an object, as {"namespaces": ["team-a"]}`, err)
	}
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if !slices.Contains(Keys(), name) {
			return nil, bad(field+"."+strictjson.Label(name), "use "+strings.Join(Keys(), ", "),
				errors.New("a rule has no such key"))
		}
	}
	rule := Default()
	for _, k := range keys() {
		raw, ok := given[k.name]
		if !ok {
			continue
		}
		if err := k.parse(&rule, raw); err != nil {
			return nil, bad(field+"."+k.name, k.allowed, err)
		}
	}
	return &rule, rule.contradiction(field, given)
}

// contradiction returns an error if a rule is for nobody, or has keys that leave each other without
// effect.
func (r *Rule) contradiction(field string, given map[string]json.RawMessage) error {
	if len(r.Namespaces) == 0 {
		return bad(field+".namespaces", allowedNamespaces, errors.New("the rule names no namespace"))
	}
	if r.All && len(given) > len([]string{"namespaces", "all"}) {
		return bad(field+".all", "keep it and namespaces alone, or remove it",
			errors.New("it lifts what the rule's other keys demand"))
	}
	foreign := func(kind string) bool { return !slices.Contains(builtIn(), kind) }
	if i := slices.IndexFunc(r.Types, foreign); i >= 0 {
		return bad(fmt.Sprintf("%s.types[%d]", field, i), "name it in exec",
			fmt.Errorf("%s is not built in, so that it would have to be exec'd", r.Types[i]))
	}
	if len(r.Types)+len(r.Exec) == 0 {
		return bad(field+".types", `name plugins, or forbid networks with "networks": 0`,
			errors.New("the rule allows no plugin at all"))
	}
	if r.HostPorts.Loopback && len(r.HostPorts.Ports) == 0 {
		return bad(field+".hostPorts.loopback", "name ports, or remove it",
			errors.New("the rule allows no port"))
	}
	return nil
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

// namespace decodes the name of a namespace, or a pattern of names.
func namespace(raw json.RawMessage) (string, error) {
	text, err := strictjson.String(raw)
	// A star stands for a letter as well as for none.
	if err == nil && len(validation.IsDNS1123Label(strings.ReplaceAll(text, "*", "a"))) > 0 {
		err = fmt.Errorf("%s is no name of a namespace, nor a pattern of names", strictjson.Quote(text))
	}
	return text, err
}

// pluginType decodes a type that a rule may allow: not one that would call Braid again.
func pluginType(raw json.RawMessage) (string, error) {
	text, err := strictjson.String(raw)
	if err != nil {
		return "", err
	}
	if netconf.IsMeta(text) {
		return "", fmt.Errorf("%s would call itself: it cannot be a network of its own",
			strictjson.Quote(text))
	}
	return text, netconf.CheckType(text)
}

// prefix decodes a prefix without host bits.
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

// number decodes a limit: an integer from 0 to maxNumber.
func number(raw json.RawMessage) (int, error) {
	n, err := strconv.ParseUint(string(raw), 10, 32)
	if err != nil || n > maxNumber {
		return 0, fmt.Errorf("%s is no number from 0 to %d", strictjson.Quote(string(raw)), maxNumber)
	}
	return int(n), nil
}

// bad returns an error in a rule.
func bad(field, fix string, err error) *failure.Error {
	return &failure.Error{Reason: failure.InvalidConfig, Field: field, Err: err, Fix: fix}
}
