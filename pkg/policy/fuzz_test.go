package policy_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/braid-cni/braid/pkg/netconf"
	"github.com/braid-cni/braid/pkg/policy"
)

// FuzzJudge: what no violation is found of names no type that the rule does not allow, and no
// master, whatever the rule; and a rule that is amended as the violations say allows the network.
func FuzzJudge(f *testing.F) {
	rules := []string{
		`{"namespaces":["a"]}`, `{"namespaces":["a"],"types":["bridge"],"exec":["vlan"]}`,
		`{"namespaces":["a"],"masters":["e*","*0"],"vlans":[1,"5-9"]}`,
		`{"namespaces":["a"],"prefixes":["10.0.0.0/8"],"bridges":["b*"],"ranges":1,"sysctls":["net.*"]}`,
		`{"namespaces":["a"],"all":true}`,
	}
	for _, conf := range []string{
		`{"type":"macvlan","master":"eth0","vlan":5,"ipam":{"type":"host-local","subnet":"10.0.0.0/8"}}`,
		`{"plugins":[{"type":"bridge","vlanTrunk":[{"minID":1,"maxID":9}]},{"type":"tuning",` +
			`"sysctl":{"net.core.x":"1"}}]}`,
		`{"type":"x","delegate":{"type":"y","ipam":{"type":"z"}},"delegates":[{"TYPE":"w",` +
			`"master":"e"}]}`,
		`{"type":"portmap","runtimeConfig":{"portMappings":[{"hostPort":1,"hostIP":"::1"}],` +
			`"ips":["10.0.0.1"]},"args":{"cni":{"ips":["1.1.1.1"]}}}`,
	} {
		for _, r := range rules {
			f.Add(conf, r, "net1", uint8(0))
		}
	}
	f.Fuzz(func(t *testing.T, conf, text, ifName string, runs uint8) {
		parsed, err := policy.Parse("policy", json.RawMessage("["+text+"]"))
		list, lerr := netconf.Parse([]byte(conf))
		if err != nil || lerr != nil || !json.Valid([]byte(text)) || len(parsed) != 1 {
			return
		}
		n := &policy.Network{Conf: list.Bytes(), IfName: ifName}
		for i := range list.Len() {
			n.Runs = append(n.Runs, policy.Run{Index: i, Execd: runs>>(i%8)&1 != 0})
		}
		found := policy.Judge(&parsed[0], n)
		if again := policy.Judge(policy.Amend(&parsed[0], found...), n); len(again) > 0 {
			t.Fatalf("amended for %s, the rule does not allow %s", said(found), said(again))
		}
		if len(found) > 0 || parsed[0].All {
			return
		}
		var tree any
		if err := json.Unmarshal(n.Conf, &tree); err != nil {
			t.Fatal(err)
		}
		walk(tree, func(key, value string) {
			switch {
			case !strings.EqualFold(key, "type") && !strings.EqualFold(key, "master"):
			case strings.EqualFold(key, "type") && value != "" && !slices.Contains(parsed[0].Types, value) &&
				!slices.Contains(parsed[0].Exec, value):
				t.Fatalf("rule %s lets %q run", text, value)
			}
		})
	})
}

// walk visits the texts of the objects in which a plugin is configured.
func walk(value any, visit func(key, value string)) {
	object, ok := value.(map[string]any)
	if !ok {
		return
	}
	for key, v := range object {
		if s, ok := v.(string); ok {
			visit(key, s)
		}
		for _, inner := range []string{"plugins", "delegates", "delegate", "ipam"} {
			if !strings.EqualFold(key, inner) {
				continue
			}
			walk(v, visit)
			if list, ok := v.([]any); ok {
				for _, element := range list {
					walk(element, visit)
				}
			}
		}
	}
}
