package netconf

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// respell renames keys of an object to the case of the known ones. encoding/json ignores the case,
// so libcni and the plugins would read keys that are not checked here. Two keys that differ by case
// alone are an error: which one counts would depend on their order.
func respell(
	path string, object map[string]json.RawMessage, known []string,
) (warnings []*failure.Error, err error) {
	if err := twins(path, object, known); err != nil {
		return nil, err
	}
	read := map[string]string{} // the known key, by how it is written
	for key := range object {
		if i := slices.IndexFunc(known, func(k string) bool {
			return k != key && strings.EqualFold(k, key)
		}); i >= 0 {
			read[key] = known[i]
		}
	}
	for _, key := range slices.Sorted(maps.Keys(read)) {
		object[read[key]] = object[key]
		delete(object, key)
		warning := invalid(path+strictjson.Label(key), "write "+read[key], "the key is read as %s",
			read[key])
		warning.Reason = failure.MiscasedKey
		warnings = append(warnings, warning)
	}
	return warnings, nil
}

// twins returns an error if two keys of an object are the same but for their case.
func twins(path string, object map[string]json.RawMessage, known []string) error {
	for _, k := range known {
		var same []string
		for key := range object {
			if strings.EqualFold(key, k) {
				same = append(same, key)
			}
		}
		if len(same) > 1 {
			slices.Sort(same)
			return invalid(path+strictjson.Label(same[0]), fmt.Sprintf("keep one of the two, as %q", k),
				"%s and %s differ by case alone", strictjson.Quote(same[0]), strictjson.Quote(same[1]))
		}
	}
	return nil
}
