package policy_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/policy"
)

// What a rule leaves out has the tenant's default.
func TestParse(t *testing.T) {
	def := policy.Default()
	def.Namespaces = []string{"team-a"}
	if got := rule(t, `{"namespaces":["team-a"]}`); !reflect.DeepEqual(got, &def) {
		t.Errorf("got %+v, want %+v", got, def)
	}
	for _, text := range []string{
		`{"namespaces": ["team-a"]}`,
		`{"namespaces": ["*"], "all": true}`,
		`{"namespaces": ["a-*","b"], "types": ["bridge"], "exec": ["vlan"], "masters": ["ens*"], ` +
			`"vlans": ["100-199","205"], "bridges": [], "spoofing": true, ` +
			`"prefixes": ["10.9.0.0/16","fd00::/8"], "hostPorts": {"ports":["80","1024-65535"],` +
			`"loopback":true}, "sysctls": ["net.*"], "names": ["team-b.*"], "onDisk": true, ` +
			`"defaultNetworks": true, "networks": 2, "ranges": 1, "addresses": 0}`,
	} {
		if got := rule(t, text).String(); got != text {
			t.Errorf("got  %s\nwant %s", got, text)
		}
	}
}

// A bad rule is refused with the place and what is allowed.
func TestParseRefuses(t *testing.T) {
	for text, want := range map[string]string{
		`{}`:                                    "policy: is an object",
		`[1]`:                                   "policy[0]: is a number",
		`[{}]`:                                  "policy[0].namespaces: the rule names no namespace",
		`[{"namespaces":[]}]`:                   "policy[0].namespaces: the rule names no namespace",
		`[{"namespaces":["A"]}]`:                `policy[0].namespaces: element 0: "A" is no name`,
		`[{"namespaces":["a"],"master":["x"]}]`: "policy[0].master: a rule has no such key; use namespaces, all",
		`[{"namespaces":["a"]},{"namespaces":["b","a"]}]`:                 `policy[1].namespaces: "a" is named by rule 0 already`,
		`[{"namespaces":["a"],"all":true,"masters":["x"]}]`:               "policy[0].all: it lifts",
		`[{"namespaces":["a"],"types":["vlan"]}]`:                         "policy[0].types[0]: vlan is not built in",
		`[{"namespaces":["a"],"types":[]}]`:                               "policy[0].types: the rule allows no plugin",
		`[{"namespaces":["a"],"exec":["multus"]}]`:                        "policy[0].exec: element 0: \"multus\" would call itself",
		`[{"namespaces":["a"],"exec":["../x"]}]`:                          "policy[0].exec: element 0: \"../x\" is no plain file name",
		`[{"namespaces":["a"],"vlans":["200-100"]}]`:                      "policy[0].vlans: element 0: \"200-100\" ends before",
		`[{"namespaces":["a"],"vlans":[4095]}]`:                           "policy[0].vlans: element 0: \"4095\" is no number from 1 to 4094",
		`[{"namespaces":["a"],"prefixes":["10.0.0.1/8"]}]`:                "policy[0].prefixes: element 0: \"10.0.0.1/8\" is no prefix",
		`[{"namespaces":["a"],"hostPorts":{"port":1}}]`:                   "policy[0].hostPorts: port: is unknown",
		`[{"namespaces":["a"],"hostPorts":["1024-2048"]}]`:                "policy[0].hostPorts: is a list, not an object",
		`[{"namespaces":["a"],"networks":-1}]`:                            "policy[0].networks: \"-1\" is no number",
		`[{"namespaces":["a"],"onDisk":"yes"}]`:                           "policy[0].onDisk: is a string",
		`[{"namespaces":["a"],"masters":[""]}]`:                           "policy[0].masters: element 0: \"\" is empty",
		`[{"namespaces":["a"],"masters":null}]`:                           "policy[0].masters: is null",
		`[{"namespaces":["a"],"hostPorts":{"ports":[],"loopback":true}}]`: "policy[0].hostPorts.loopback: the rule allows no port",
	} {
		_, err := policy.Parse("policy", json.RawMessage(text))
		fe, ok := errors.AsType[*failure.Error](err)
		if !ok || fe.Reason != failure.InvalidConfig || fe.Fix == "" {
			t.Errorf("%s: %v", text, err)
		} else if got := fe.Field + ": " + fe.Err.Error() + "; " + fe.Fix; !strings.HasPrefix(got, want) {
			t.Errorf("%s:\n got %s\nwant %s", text, got, want)
		}
	}
}
