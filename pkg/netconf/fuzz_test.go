package netconf

import (
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// FuzzParse: nothing panics; what is accepted survives a round trip with every key, whatever
// its case, and value; libcni takes it.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		`{"type":"a"}`, `{"name":"n","cniVersion":"1.0.0","type":"macvlan","ipam":{"type":"static"},` +
			`"n":12345678901234567890}`,
		`{"name":"n","cniVersions":["1.0.0","1.1.0"],"disableCheck":"true","x":{"y":[1e999]},` +
			`"plugins":[{"type":"a","capabilities":{"ips":true}},{"type":"b","args":{"cni":{}}}]}`,
		`{"type":"flannel","delegate":{"type":"bridge","ipam":{"type":"host-local"}},` +
			`"dns":{"search":["a"]}}`, "{\n# c\n}", `{"plugins":[]}`,
		`{"type":"a","\u003c&\ud800":"\ud800<&>"}`,
		`{"type":"multus","delegates":[{"plugins":[{"type":"../a"}]}]}`,
		`{"NAME":"n","Plugins":[{"Type":"a","IPAM":{"Type":"b"},"Delegates":[{"TYPE":"braid"}]}]}`,
		`{"type":"a","Type":"b"}`, `{"TYPE":"a","cniVerſion":"1.0.0"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		list, err := Parse(raw)
		if err != nil {
			if e, ok := errors.AsType[*failure.Error](err); !ok || e.Reason != failure.NADInvalid {
				t.Fatalf("Parse(%q): %#v", raw, err)
			}
			return
		}
		again, err := Parse(list.Bytes())
		if err != nil {
			t.Fatalf("Parse(%q) writes %s: %v", raw, list.Bytes(), err)
		}
		if string(again.Bytes()) != string(list.Bytes()) {
			t.Fatalf("Parse(%q)\nfirst  %s\nsecond %s", raw, list.Bytes(), again.Bytes())
		}
		checkKept(t, raw, list)
		list.SetName("n")
		list.SetCNIVersion("1.0.0")
		if _, err := Libcni(list.Bytes()); err != nil {
			t.Fatalf("Libcni(%s): %v", list.Bytes(), err)
		}
	})
}

// checkKept looks every key of the source up in the list.
func checkKept(t *testing.T, raw []byte, list *List) {
	t.Helper()
	var source map[string]json.RawMessage
	if err := json.Unmarshal(raw, &source); err != nil {
		t.Fatalf("decode %q: %v", raw, err)
	}
	var plugins []map[string]json.RawMessage
	if json.Unmarshal(strictjson.Lookup(source, "plugins"), &plugins) == nil {
		maps.DeleteFunc(source, func(key string, _ json.RawMessage) bool {
			return strings.EqualFold(key, "plugins")
		})
		for i, plugin := range plugins {
			for key, value := range plugin {
				if got := strictjson.Lookup(list.Plugin(i), key); string(got) != string(value) {
					t.Fatalf("Parse(%q): plugin %d: %q is %s", raw, i, key, got)
				}
			}
		}
	}
	for key, value := range source {
		inTop, inPlugin := strictjson.Lookup(list.top, key), strictjson.Lookup(list.plugins[0], key)
		if string(inTop) != string(value) && string(inPlugin) != string(value) {
			t.Fatalf("Parse(%q): %q is %s in the list and %s in the plugin", raw, key, inTop, inPlugin)
		}
	}
}
