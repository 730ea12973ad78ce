package policy_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/netconf"
	"github.com/braid-cni/braid/pkg/policy"
	"github.com/braid-cni/braid/pkg/selection"
)

// rule is one that is written as in a configuration.
func rule(t testing.TB, text string) *policy.Rule {
	t.Helper()
	rules, err := policy.Parse("policy", json.RawMessage("["+text+"]"))
	if err != nil {
		t.Fatal(err)
	}
	return &rules[0]
}

// network is an attachment to the network of a configuration, whose plugins run in-process where
// they are built in.
func network(t testing.TB, conf string) *policy.Network {
	t.Helper()
	list, err := netconf.Parse([]byte(conf))
	if err != nil {
		t.Fatalf("%s: %v", conf, err)
	}
	n := &policy.Network{Conf: list.Bytes(), IfName: "net1"}
	for i, kind := range list.Types() {
		n.Runs = append(n.Runs, policy.Run{
			Index: i, Execd: !slices.Contains(policy.Default().Types, kind),
		})
		if list.HasIPAM(i) && slices.Contains([]string{"bridge", "macvlan", "ipvlan"}, kind) {
			var ipam struct{ Type string }
			json.Unmarshal(list.Plugin(i)["ipam"], &ipam) //nolint:errcheck // "" is none
			n.Runs = append(n.Runs, policy.Run{
				Index: i, IPAM: true, Execd: !slices.Contains(policy.Default().Types, ipam.Type),
			})
		}
	}
	return n
}

// said are violations as "key field".
func said(found []policy.Violation) string {
	text := make([]string, 0, len(found))
	for _, v := range found {
		text = append(text, v.Key+" "+v.Field)
	}
	return strings.Join(text, ", ")
}

// What a tenant may do, and what not. Known attacks have their names.
func TestTenantsDefault(t *testing.T) {
	judged(t, map[string]judgement{
		"harmless bridge": {`{"type":"bridge","bridge":"br-a","isGateway":true,` +
			`"ipam":{"type":"host-local","subnet":"10.9.1.0/24"}}`, ""},
		"chain of all": {`{"plugins":[{"type":"bridge","ipam":{"type":"static",` +
			`"addresses":[{"address":"10.9.1.2/24"}]}},{"type":"tuning",` +
			`"sysctl":{"net.ipv4.conf.IFNAME.arp_filter":"1"}},{"type":"portmap",` +
			`"capabilities":{"portMappings":true}},{"type":"sbr"}]}`, ""},
		"M26 host-device": {
			`{"type":"host-device","device":"ens192"}`,
			"exec plugins[0].type, masters plugins[0].device",
		},
		"M26 device by its address": {
			`{"type":"host-device","pciBusID":"0000:02:00.0"}`,
			"exec plugins[0].type, masters plugins[0].master",
		},
		"M26 in another plugin": {
			`{"type":"bridge","ipam":{"type":"dhcp"}}`,
			"exec plugins[0].ipam.type",
		},
		"M26 delegate": {
			`{"type":"sriov","delegate":{"type":"host-device","device":"ens192"}}`,
			"exec plugins[0].type, exec plugins[0].delegate.type, masters plugins[0].delegate.device",
		},
		"delegates": {
			`{"type":"flannel","delegates":[{"type":"bridge"}]}`,
			"exec plugins[0].type, exec plugins[0].delegates[0].type, spoofing " +
				"plugins[0].delegates[0].macspoofchk",
		},
		"uplink": {`{"type":"macvlan","master":"ens192"}`, "masters plugins[0].master"},
		"uplink in another case": {
			`{"type":"macvlan","Ma\u017fter":"ens192"}`,
			`masters plugins[0].Maſter`,
		},
		"uplink by default": {`{"type":"ipvlan"}`, "masters plugins[0].master"},
		"master of the pod": {
			`{"type":"macvlan","master":"eth0","linkInContainer":true,"vlan":7}`,
			"",
		},
	})
}

// What a tenant may not say of VLANs, spoofing, sysctls, ports and ranges.
func TestTenantsKeys(t *testing.T) {
	judged(t, map[string]judgement{
		"VLAN": {`{"type":"bridge","vlan":100}`, "vlans plugins[0].vlan"},
		"trunk": {
			`{"type":"bridge","vlanTrunk":[{"minID":2,"maxID":4000},{"id":7}]}`,
			"vlans plugins[0].vlanTrunk[0], vlans plugins[0].vlanTrunk[1].id",
		},
		"spoofed MAC": {
			`{"type":"bridge","macspoofchk":false}`,
			"spoofing plugins[0].macspoofchk",
		},
		"spoofed MAC, spelt": {
			`{"type":"bridge","MacSpoofChk":false}`,
			"spoofing plugins[0].MacSpoofChk",
		},
		"spoof check": {`{"plugins":[{"type":"bridge","macspoofchk":true},{"type":"bridge",` +
			`"macspoofchk":null},{"type":"macvlan","linkInContainer":true}]}`, ""},
		"M32 sysctl": {
			`{"type":"tuning","sysctl":{"net.ipv4.ip_forward":"1","net.ipv4.conf.all.forwarding":"1"}}`,
			"sysctls plugins[0].sysctl.net.ipv4.ip_forward, sysctls " +
				"plugins[0].sysctl.net.ipv4.conf.all.forwarding",
		},
		"M32 sysctl of a pod": {
			`{"type":"tuning","args":{"cni":{"sysctl":{"net/ipv4/ip_forward":"1"}}}}`,
			"sysctls plugins[0].args.cni.sysctl.net/ipv4/ip_forward",
		},
		"sysctl by a detour": {
			`{"type":"tuning","sysctl":{"net/ipv4/conf/IFNAME/../all/forwarding":"1"}}`,
			"sysctls plugins[0].sysctl.net/ipv4/conf/IFNAME/../all/forwarding",
		},
		"own sysctl": {`{"type":"tuning","sysctl":{"net.ipv6.conf.net1.accept_ra":"0",` +
			`"net/ipv4/conf/IFNAME/rp_filter":"2"}}`, ""},
		"M29 port of the runtime's": {
			`{"type":"portmap","runtimeConfig":{"portMappings":[{"hostPort":22,"containerPort":22,` +
				`"hostIP":"127.0.0.1"}]}}`,
			"hostPorts plugins[0].runtimeConfig.portMappings[0].hostPort, hostPorts " +
				"plugins[0].runtimeConfig.portMappings[0].hostIP",
		},
		"M30 attachments of the runtime's": {
			`{"type":"bridge","cni.dev/valid-attachments":[]}`,
			" plugins[0].cni.dev/valid-attachments",
		},
		"prevResult": {`{"type":"portmap",` +
			`"prevResult":{"ips":[{"address":"10.0.0.1/8"}]}}`, " plugins[0].prevResult"},
		"M30 ranges": {
			`{"type":"bridge","ipam":{"type":"whereabouts","ipRanges":[{"range":"10.0.0.0/24"},` +
				`{"range":"10.0.1.0/24"},{"range":"10.0.2.0/24"},{"range":"10.0.3.0/24"},` +
				`{"range":"10.0.4.0/24"}]}}`,
			"ranges ipam",
		},
	})
}

// judgement is a NAD and what the default for tenants says of it.
type judgement struct{ conf, want string }

// judged fails unless each is judged so, and allowed once the rule is amended.
func judged(t *testing.T, cases map[string]judgement) {
	t.Helper()
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			tenants := policy.Default()
			n := network(t, test.conf)
			found := policy.Judge(&tenants, n)
			if got := said(found); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			if rest := policy.Judge(policy.Amend(&tenants, found...), n); len(rest) > 0 {
				t.Errorf("the amended rule does not allow %s", said(rest))
			}
		})
	}
}

// A type is our implementation: what is exec'd, or would not be known, is refused.
func TestNothingIsExecd(t *testing.T) {
	tenants := policy.Default()
	n := network(t, `{"type":"portmap","backend":"iptables"}`)
	n.Runs[0].Execd = true
	if got, want := said(policy.Judge(&tenants, n)), "exec plugins[0].type"; got != want {
		t.Errorf("a binary: got %q, want %q", got, want)
	}
	n = network(t, `{"type":"bridge","noSuchKey":1,"ipam":{"type":"static","neither":1}}`)
	n.Runs[0].Unknown, n.Runs[1].Unknown = "noSuchKey", "ipam.neither"
	got := said(policy.Judge(&tenants, n))
	want := "exec plugins[0].noSuchKey, exec plugins[0].ipam.neither"
	if got != want {
		t.Errorf("unknown keys: got %q, want %q", got, want)
	}
	// What a binary calls is a binary, too.
	n = network(t, `{"type":"bridge","ipam":{"type":"static"}}`)
	n.Runs = []policy.Run{{Execd: true}}
	got = said(policy.Judge(rule(t, `{"namespaces":["a"],"exec":["bridge"]}`), n))
	want = "spoofing plugins[0].macspoofchk, exec plugins[0].ipam.type"
	if got != want {
		t.Errorf("called by a binary: got %q, want %q", got, want)
	}
	n.Runs = nil
	got = said(policy.Judge(&tenants, n))
	want = "exec plugins[0].type, spoofing plugins[0].macspoofchk, exec plugins[0].ipam.type"
	if got != want {
		t.Errorf("nobody looked: got %q, want %q", got, want)
	}
}

// rules are judged with a configuration; want is what they do not allow of it.
var rules = map[string]struct{ rule, conf, want string }{
	"masters": {
		`"masters":["ens2*"]`,
		`{"plugins":[{"type":"macvlan","master":"ens224"},{"type":"macvlan","master":"ens1"},` +
			`{"type":"macvlan"}]}`, "masters plugins[1].master, masters plugins[2].master",
	},
	"any master": {`"masters":["*"]`, `{"type":"macvlan"}`, ""},
	"M26 passthru by a pattern": {
		`"masters":["ens2*"]`, `{"plugins":[{"type":"macvlan","master":"ens224","mode":"passthru"},` +
			`{"type":"macvlan","master":"ens225","mode":"bridge"}]}`,
		"masters plugins[0].master",
	},
	"M26 passthru of a link by name": {
		`"masters":["ens2*","ens224"]`,
		`{"type":"macvlan","master":"ens224","mode":"passthru"}`, "",
	},
	"M26 passthru of another": {
		`"masters":["ens224"]`,
		`{"type":"macvlan","master":"ens225","mode":"passthru"}`, "masters plugins[0].master",
	},
	"M26 passthru of a binary": {
		`"masters":["ens2*"],"exec":["macvtap"]`,
		`{"type":"macvtap","master":"ens224","MODE":"passthru"}`, "masters plugins[0].master",
	},
	"spoofing": {
		`"spoofing":true`,
		`{"type":"bridge","macspoofchk":false}`, "",
	},
	"VLANs": {
		`"masters":["*"],"vlans":["100-199","200"]`,
		`{"plugins":[{"type":"macvlan","vlan":200},{"type":"bridge","vlanTrunk":[{"minID":150,` +
			`"maxID":200}]},{"type":"bridge","vlan":201}]}`, "vlans plugins[2].vlan",
	},
	"bridges": {
		`"bridges":["br-*"]`,
		`{"plugins":[{"type":"bridge","bridge":"br-a"},{"type":"bridge","bridge":"cni0"}]}`,
		"bridges plugins[1].bridge",
	},
	"types": {
		`"types":["bridge","host-local"]`,
		`{"plugins":[{"type":"bridge","ipam":{"type":"static"}},{"type":"tuning"}]}`,
		"types plugins[0].ipam.type, types plugins[1].type",
	},
	"exec": {
		`"exec":["dhcp","vlan"],"masters":["ens1"],"vlans":[5]`,
		`{"type":"vlan","master":"ens1","vlanId":5,"ipam":{"type":"dhcp"}}`, "",
	},
	"exec is no pardon": {
		`"exec":["vlan"]`,
		`{"type":"vlan","master":"ens1","vlanId":5}`,
		"masters plugins[0].master, vlans plugins[0].vlanId",
	},
	"all": {`"all":true`, `{"type":"host-device","device":"ens192"}`, ""},
	"prefixes": {
		`"prefixes":["10.9.0.0/16","fd00::/8"]`,
		`{"plugins":[{"type":"bridge","ipam":{"type":"host-local","ranges":[[{"subnet":"10.9.3.0/24","gateway":"10.9.3.1"}],[{"subnet":"10.8.0.0/15"}]]}},
			{"type":"bridge","ipam":{"type":"static","addresses":[{"address":"fd00::1/64","gateway":"fe00::1"}]}},
			{"type":"bridge","ipam":{"type":"whereabouts","range":"10.9.0.5-10.10.0.9/8"}}]}`,
		"prefixes plugins[0].ipam.ranges[1][0].subnet, prefixes plugins[1].ipam.addresses[0].gateway, " +
			"prefixes plugins[2].ipam.range",
	},
	"sysctls": {
		`"sysctls":["net.core.*","net.ipv4.conf.IFNAME.arp_*"]`,
		`{"type":"tuning","sysctl":{"net.core.somaxconn":"1","net.ipv4.conf.IFNAME.arp_filter":"1",` +
			`"net.ipv4.conf.IFNAME.forwarding":"1"}}`,
		"sysctls plugins[0].sysctl.net.ipv4.conf.IFNAME.forwarding",
	},
	"ranges": {
		`"ranges":1`,
		`{"type":"bridge","ipam":{"type":"host-local","subnet":"10.9.3.0/24",` +
			`"ranges":[[{"subnet":"10.9.4.0/24"}]]}}`, "ranges ipam",
	},
}

func TestRules(t *testing.T) {
	for name, test := range rules {
		t.Run(name, func(t *testing.T) {
			n := network(t, test.conf)
			r := rule(t, `{"namespaces":["a"],`+test.rule+`}`)
			found := policy.Judge(r, n)
			if got := said(found); got != test.want {
				t.Errorf("got  %s\nwant %s", got, test.want)
			}
			if rest := policy.Judge(policy.Amend(r, found...), n); len(rest) > 0 {
				t.Errorf("the amended rule does not allow %s", said(rest))
			}
		})
	}
}

func TestOnDisk(t *testing.T) {
	n := network(t, `{"type":"host-device","device":"ens1"}`)
	n.OnDisk = true
	tenants := policy.Default()
	if got := said(policy.Judge(&tenants, n)); got != "onDisk spec.config" {
		t.Errorf("got %q", got)
	}
	if got := said(policy.Judge(rule(t, `{"namespaces":["a"],"onDisk":true}`), n)); got != "" {
		t.Errorf("the operator's file: %q", got)
	}
}

func TestPods(t *testing.T) {
	tenants := policy.Default()
	pod := policy.Pod{Networks: 17, Requests: []policy.Request{
		{IfName: "eth0", Shared: true},
		{IfName: "net1", PortMappings: []selection.PortMapping{
			{HostPort: 8080}, {HostPort: 22, HostIP: "::1"},
		}},
		{IfName: "all", CNIArgs: map[string]json.RawMessage{
			"sysctl": json.RawMessage(`{"net.ipv4.conf.all.forwarding":"1"}`),
		}},
	}}
	found := policy.JudgePod(&tenants, &pod)
	var got []string
	var all []policy.Violation
	for _, v := range found {
		got, all = append(got, fmt.Sprintf("%d %s %s", v.Request, v.Key, v.Field)), append(all,
			v.Violation)
	}
	want := []string{
		"-1 networks ", "0 defaultNetworks ", "1 hostPorts portMappings[1].hostPort",
		"1 hostPorts portMappings[1].hostIP",
		"2 sysctls cni-args.sysctl.net.ipv4.conf.all.forwarding",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if rest := policy.JudgePod(policy.Amend(&tenants, all...), &pod); len(rest) > 0 {
		t.Errorf("the amended rule does not allow %v", rest)
	}
}

// The first rule that names a namespace decides; the operator's are named whole.
func TestWhichRuleDecides(t *testing.T) {
	rules, err := policy.Parse("policy",
		json.RawMessage(`[{"namespaces":["team-a"],"all":true},{"namespaces":["team-*","kube-system"]}]`))
	if err != nil {
		t.Fatal(err)
	}
	p := policy.Policy{Rules: rules, Operators: []string{"kube-system", "team-o"}}
	for namespace, want := range map[string]string{
		"team-a": "policy[0] enforce", "team-b": "policy[1] enforce", "kube-system": "policy[1] enforce",
		"team-o": " free", "other": "tenant's default audit",
	} {
		d := p.Of(namespace)
		if got := d.Name + " " + string(d.Effect); got != want {
			t.Errorf("%s: %s, want %s", namespace, got, want)
		}
	}
	p.Enforce = true
	if got := p.Of("other").Effect; got != policy.Enforce {
		t.Errorf("policyDefault enforce: %s", got)
	}
}

// An error has the field, the rule, and the line that would allow it.
func TestErrorSaysTheLine(t *testing.T) {
	n := network(t, `{"type":"macvlan","master":"ens192"}`)
	p := policy.Policy{
		Rules: []policy.Rule{*rule(t, `{"namespaces":["team-a"],"masters":["ens224"]}`)},
	}
	for namespace, want := range map[string]string{
		"team-a": `NAD team-a/x: plugin macvlan: field plugins[0].master: the master is "ens192", ` +
			`and of masters ens224 may be used (policy[0]); ` +
			`change it, or let the operator have in policy[0]: "masters": ["ens224","ens192"]`,
		"team-b": `NAD team-b/x: plugin macvlan: field plugins[0].master: the master is "ens192", ` +
			`and of masters none may be used (tenant's default); ` +
			`change it, or let the operator add to "braid": {"policy": [...]}: {"namespaces": ["team-b"], ` +
			`"masters": ["ens192"]}`,
	} {
		d := p.Of(namespace)
		err := policy.Judge(d.Rule, n)[0].Error(d, namespace+"/x", namespace)
		if err.Error() != want {
			t.Errorf("got  %s\nwant %s", err, want)
		}
		if err.Reason != failure.PolicyRefused || failure.Code(err) != 7 {
			t.Errorf("reason %s, code %d", err.Reason, failure.Code(err))
		}
	}
}

// Amend changes nothing of the rule, not even what its lists have room for.
func TestAmendLeavesTheRule(t *testing.T) {
	r := rule(t, `{"namespaces":["a"],"masters":["ens1"]}`)
	room := append(make([]string, 0, 2), "ens1")
	r.Masters = room
	policy.Amend(r, policy.Judge(r, network(t, `{"type":"macvlan","master":"ens2"}`))...)
	if got := room[:2][1]; got != "" || len(r.Masters) != 1 {
		t.Errorf("the rule has masters %q, and %q behind them", r.Masters, got)
	}
}
