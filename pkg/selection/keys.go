package selection

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/braid-cni/braid/pkg/strictjson"
)

// deprecatedInterface is the older name of the key "interface", which Multus reads as well.
const deprecatedInterface = "interfaceRequest"

// elementKeys returns those that an element of the JSON form may have (NPWG v1.3 s.4.1.2.1).
func elementKeys() []string {
	return []string{
		"name", "namespace", "ips", "mac", "infiniband-guid", "interface", "cni-args", "portMappings",
		"bandwidth", "default-route", "ipam-claim-reference", deprecatedInterface,
	}
}

// strays maps keys that people write, although neither the specification nor Multus has them, to
// what they probably want.
func strays() map[string]string {
	const (
		route = `write "default-route": ["192.0.2.1"] if the pod's default route shall go there; ` +
			`the gateway of a route or of an address is set in the network's "ipam"`
		device = "remove it: the kubelet chooses the device, of the resource that the NAD's annotation " +
			"k8s.v1.cni.cncf.io/resourceName names"
	)
	return map[string]string{
		"gateway": route, "gateways": route, "deviceID": device,
		"ipRequest": `write "ips"`, "macRequest": `write "mac"`,
	}
}

// checkKeys warns of keys that are neither the specification's nor, with a period in them, a
// vendor's. The specification reserves them for its future; Multus ignores them.
func (e *element) checkKeys() error {
	vendors := maps.Clone(e.keys)
	maps.DeleteFunc(vendors, func(key string, _ json.RawMessage) bool {
		return strings.Contains(key, ".")
	})
	return e.checkUnknown("", vendors, elementKeys())
}

// checkUnknown warns of keys that are not known. One that looks like a slip of a known key is an
// error: what its writer asked for would not be done. The path is empty or ends in a period.
func (e *element) checkUnknown(path string, keys map[string]json.RawMessage, known []string) error {
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		at := path + strictjson.Label(key)
		fix, stray := strays()[key]
		switch meant := strictjson.Near(key, known); {
		case slices.Contains(known, key):
		case path == "" && stray:
			e.ignored(at, fix, "the key %s is ignored: an annotation has no such key", strictjson.Quote(key))
		case meant != "":
			return e.invalid(at, "write "+meant, "unknown key %s", strictjson.Quote(key))
		default:
			e.ignored(at, "remove it, or use one of "+strings.Join(known, ", "),
				"the key %s is ignored: it is not known", strictjson.Quote(key))
		}
	}
	return nil
}
