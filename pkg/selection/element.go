package selection

import (
	"encoding/json"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// element decodes one object of the JSON form.
type element struct {
	// field is the element's place in the annotation.
	field string
	keys  map[string]json.RawMessage
	Selection
}

// parseElement reads an element of the JSON form. field is its place in the annotation, for errors.
func parseElement(field string, raw json.RawMessage, podNamespace string) (Selection, error) {
	keys, err := strictjson.Object(raw)
	if err != nil {
		return Selection{}, invalid(field, `write {"name": "..."}`, "%s %w",
			strictjson.Quote(string(raw)), err)
	}
	e := element{field: field, keys: keys, Selection: Selection{Namespace: podNamespace}}
	for _, parse := range []func() error{
		e.checkKeys, e.parseName, e.parseNamespace, e.parseIPs, e.parseMAC, e.parseGUID, e.parseInterface,
		e.parseCNIArgs, e.parsePortMappings, e.parseBandwidth, e.parseDefaultRoute, e.parseIPAMClaim,
	} {
		if err := parse(); err != nil {
			return Selection{}, err
		}
	}
	for _, warning := range e.Warnings {
		warning.NAD = e.Namespace + "/" + e.Name
	}
	return e.Selection, nil
}

// value returns what a key holds; false where it is absent or null.
func (e *element) value(key string) (json.RawMessage, bool) {
	raw := e.keys[key]
	return raw, !strictjson.Null(raw)
}

// text returns the string that a key holds; false where it is absent or null.
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

// list returns the elements of the list that a key holds; false where it is absent or null.
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

// invalid returns an error at a key of this element, which it names by its NAD once that is known.
func (e *element) invalid(key, fix, format string, args ...any) *failure.Error {
	err := invalid(e.field+"."+key, fix, format, args...)
	if e.Name != "" {
		err.NAD = e.Namespace + "/" + e.Name
	}
	return err
}

// maxWarnings bounds those of one element: each becomes an event.
const maxWarnings = 8

// ignored adds the warning that a key has no effect.
func (e *element) ignored(key, fix, format string, args ...any) {
	if len(e.Warnings) == maxWarnings {
		return
	}
	if len(e.Warnings) == maxWarnings-1 {
		fix += "; there may be more such keys"
	}
	warning := e.invalid(key, fix, format, args...)
	warning.Reason = failure.IgnoredKey
	e.Warnings = append(e.Warnings, warning)
}
