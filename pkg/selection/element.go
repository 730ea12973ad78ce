package selection

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/braid-cni/braid/pkg/conf/strictjson"
	"github.com/braid-cni/braid/pkg/failure"
)

// element decodes one object of the JSON form.
type element struct {
	field string
	keys  map[string]json.RawMessage
	Selection
}

func parseElement(field string, raw json.RawMessage, podNamespace string) (Selection, error) {
	keys, err := strictjson.Object(raw)
	if err != nil {
		return Selection{}, invalid(field, `write {"name": "..."}`, "%s %w", strictjson.Quote(string(raw)), err)
	}
	e := element{field: field, keys: keys, Selection: Selection{Namespace: podNamespace}}
	for _, parse := range []func() error{
		e.checkKeys, e.parseName, e.parseNamespace, e.parseIPs, e.parseMAC, e.parseGUID, e.parseInterface, e.parseCNIArgs,
		e.parsePortMappings, e.parseBandwidth, e.parseDefaultRoute, e.parseIPAMClaim,
	} {
		if err := parse(); err != nil {
			return Selection{}, err
		}
	}
	return e.Selection, nil
}

// checkKeys refuses keys that the specification reserves for its future: those without a period.
func (e *element) checkKeys() error {
	known := []string{
		"name", "namespace", "ips", "mac", "infiniband-guid", "interface", "cni-args", "portMappings", "bandwidth",
		"default-route", "ipam-claim-reference",
	}
	for _, key := range slices.Sorted(maps.Keys(e.keys)) {
		if !strings.Contains(key, ".") {
			if err := checkKey(e.field, key, known); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkKey refuses a key that is not among the known ones.
func checkKey(field, key string, known []string) error {
	if slices.Contains(known, key) {
		return nil
	}
	fix := "use one of " + strings.Join(known, ", ")
	if i := slices.IndexFunc(known, func(k string) bool { return strings.EqualFold(k, key) }); i >= 0 {
		fix = "write " + known[i]
	}
	return invalid(field+"."+strictjson.Label(key), fix, "unknown key %s", strictjson.Quote(key))
}

// value gives what a key holds; false where it is absent or null.
func (e *element) value(key string) (json.RawMessage, bool) {
	raw := e.keys[key]
	return raw, !strictjson.Null(raw)
}

// text gives the string that a key holds; false where it is absent or null.
func (e *element) text(key, fix string) (string, bool, error) {
	raw, ok := e.value(key)
	if !ok {
		return "", false, nil
	}
	text, err := strictjson.String(raw)
	if err != nil {
		return "", false, e.invalid(key, fix, "%s %w", strictjson.Quote(string(raw)), err)
	}
	return text, true, nil
}

// list gives the elements of the list that a key holds; false where it is absent or null.
func (e *element) list(key, fix string) ([]json.RawMessage, bool, error) {
	raw, ok := e.value(key)
	if !ok {
		return nil, false, nil
	}
	values, err := strictjson.List(raw)
	if err != nil {
		return nil, false, e.invalid(key, fix, "%s %w", strictjson.Quote(string(raw)), err)
	}
	return values, true, nil
}

// invalid is an error at a key of this element, which it names by its NAD once that is known.
func (e *element) invalid(key, fix, format string, args ...any) *failure.Error {
	err := invalid(e.field+"."+key, fix, format, args...)
	if e.Name != "" {
		err.NAD = e.Namespace + "/" + e.Name
	}
	return err
}
