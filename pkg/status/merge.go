package status

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/failure"
)

// Merge returns the new text of the annotation: our entries, then those of others as they were
// written, byte by byte. An entry of the existing text is replaced if its interface or its name is
// one of ours, or if it is the default network's and one of ours is, too. Entries for an earlier
// sandbox, of this pod or of one whose annotations were copied, are dropped. Merge knows them by
// their interface, which has a name that only Braid chooses, or by their text, which is exactly
// what Merge writes.
//
// If the existing text is no JSON list of objects, Merge returns our entries alone, and an error
// (InvalidAnnotation) that says what was lost.
func Merge(existing string, ours []nadv1.NetworkStatus) (string, error) {
	texts, err := formatEach(ours)
	if err != nil {
		return "", err
	}
	theirs, err := entriesOf(existing)
	if err != nil {
		return join(texts), &failure.Error{
			Reason: failure.InvalidAnnotation, Field: nadv1.StatusAnnotation, Err: err,
		}
	}
	mine := newOwner(ours)
	for _, e := range theirs {
		if !mine.owns(e) {
			texts = append(texts, string(e.raw))
		}
	}
	return join(texts), nil
}

// entry is one element of an existing annotation.
type entry struct {
	raw    json.RawMessage
	fields map[string]json.RawMessage
}

// entriesOf reads an annotation; a blank one has no entries.
func entriesOf(text string) ([]entry, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	var raws []json.RawMessage
	if err := json.Unmarshal([]byte(text), &raws); err != nil {
		return nil, fmt.Errorf("replace the existing network-status: %w", err)
	}
	out := make([]entry, len(raws))
	for i, raw := range raws {
		out[i].raw = raw
		if err := json.Unmarshal(raw, &out[i].fields); err != nil || out[i].fields == nil {
			return nil, errors.Join(
				fmt.Errorf("replace the existing network-status: element %d is no object", i), err)
		}
	}
	return out, nil
}

// owner knows which entries are ours.
type owner struct {
	names, interfaces map[string]bool
	hasDefault        bool
}

// newOwner remembers by what entries of others that are replaced are known.
func newOwner(ours []nadv1.NetworkStatus) owner {
	o := owner{names: map[string]bool{}, interfaces: map[string]bool{}}
	for _, e := range ours {
		o.names[e.Name] = true
		o.interfaces[e.Interface] = e.Interface != ""
		o.hasDefault = o.hasDefault || e.Default
	}
	return o
}

// owns reports whether an entry is ours. It ignores fields of a wrong type, as Braid did not write
// them.
func (o owner) owns(e entry) bool {
	var name, iface string
	var isDefault bool
	return json.Unmarshal(e.fields["name"], &name) == nil && o.names[name] ||
		json.Unmarshal(e.fields["interface"], &iface) == nil &&
			(o.interfaces[iface] || generated(iface)) ||
		json.Unmarshal(e.fields["default"], &isDefault) == nil && isDefault && o.hasDefault ||
		ownText(e.raw)
}

// generated reports whether an interface has a name of the form net1.
func generated(iface string) bool {
	number, ok := strings.CutPrefix(iface, "net")
	return ok && number != "" && strings.Trim(number, "0123456789") == ""
}

// ownText reports whether an entry is written as Merge writes it.
func ownText(raw json.RawMessage) bool {
	var e nadv1.NetworkStatus
	if json.Unmarshal(raw, &e) != nil {
		return false
	}
	texts, err := formatEach([]nadv1.NetworkStatus{e})
	return err == nil && texts[0] == string(raw)
}
