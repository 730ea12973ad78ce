package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

// broken is a pod that does not start, and what its error says can be done about it.
type broken struct {
	reason string
	// set makes the objects and the pod.
	set func(*rig) *pod
	// remedy are the words of the error that mend follows; it may return another pod.
	remedy string
	mend   func(*rig, *pod) *pod
}

// annotate changes what a pod asks for.
func annotate(networks string) func(*rig, *pod) *pod {
	return func(r *rig, p *pod) *pod {
		r.object("v1", "Pod", p.namespace+"/"+p.name, map[string]any{},
			[]string{nadv1.NetworksAnnotation, networks})
		return p
	}
}

// redefine changes the NAD default/a.
func redefine(config func(*rig) string) func(*rig, *pod) *pod {
	return func(r *rig, p *pod) *pod {
		r.nad("a", config(r))
		return p
	}
}

// asking is a pod that asks for networks of NADs, given as names and configurations in turn.
func asking(networks string, nads ...string) func(*rig) *pod {
	return func(r *rig) *pod {
		for i := 0; i < len(nads); i += 2 {
			r.nad(nads[i], strings.ReplaceAll(nads[i+1], "DIR", r.path("leases")))
		}
		return r.pod("p", networks)
	}
}

const (
	staticMacvlan = `{"cniVersion":"1.0.0","type":"macvlan","master":"nic0","ipam":{"type":"static"}}`
	withDefault   = `{"cniVersion":"1.0.0","plugins":[{"type":"macvlan","master":"nic0",` +
		network4 + `}]}`
)

func narrow(r *rig) string {
	return strings.Replace(r.macvlan(11, ""), `"subnet"`,
		`"rangeStart":"10.11.0.5","rangeEnd":"10.11.0.5","subnet"`, 1)
}

// brokenByAnnotation are pods whose own annotation is to be mended.
func brokenByAnnotation() map[string]broken {
	plain := func(r *rig) string { return r.macvlan(11, "") }
	on := func(networks string) func(*rig) *pod {
		return func(r *rig) *pod { r.nad("a", plain(r)); return r.pod("p", networks) }
	}
	return map[string]broken{
		"comma": {
			"InvalidAnnotation", on(`[{"name":"a",}]`), "remove the comma",
			annotate(`[{"name":"a"}]`),
		},
		"cut off": {
			"InvalidAnnotation", on(`[{"name":"a"`), "complete it",
			annotate(`[{"name":"a"}]`),
		},
		"no list": {
			"InvalidAnnotation", on(`{"name":"a"}`), "wrap it in a list: [{...}]",
			annotate(`[{"name":"a"}]`),
		},
		"bad MAC": {
			"InvalidAnnotation", on(`[{"name":"a","mac":"02:00"}]`),
			"give six bytes: 02:23:45:67:89:01", annotate(`[{"name":"a","mac":"02:23:45:67:89:01"}]`),
		},
		"group MAC": {
			"PluginFailed", on(`[{"name":"a","mac":"01:00:00:00:00:01"}]`),
			"02:00:00:00:00:01", annotate(`[{"name":"a","mac":"02:00:00:00:00:01"}]`),
		},
		"name taken": {"InterfaceConflict", on("a@eth0"), "another name", annotate("a@other")},
		"name twice": {
			"InvalidAnnotation", on("a@x,a@x"), "an interface of its own",
			annotate("a@x,a@y"),
		},
		"no capability": {
			"MissingCapability",
			on(`[{"name":"a","bandwidth":{"ingressRate":1000000}}]`),
			"remove bandwidth from the pod's annotation", annotate("a"),
		},
		"outside": {
			"PluginFailed", on(`[{"name":"a","ips":["10.12.0.7"]}]`),
			"ask for an address of 10.11.0.1-10.11.0.254", annotate(`[{"name":"a","ips":["10.11.0.254"]}]`),
		},
		"gateway": {
			"PluginFailed", on(`[{"name":"a","ips":["10.11.0.1"]}]`),
			"ask for another address", annotate(`[{"name":"a","ips":["10.11.0.2"]}]`),
		},
		"gateway elsewhere": {
			"DefaultRouteFailed", on(`[{"name":"a","default-route":["10.12.0.1"]}]`),
			"name a gateway in a subnet of the interface",
			annotate(`[{"name":"a","default-route":["10.11.0.1"]}]`),
		},
		"two defaults": {
			"InvalidAnnotation", on(`[{"name":"a","default-route":["10.11.0.1"]},{"name":"a",` +
				`"default-route":["10.11.0.1"]}]`), "keep it on one of them",
			annotate(`[{"name":"a","default-route":["10.11.0.1"]},{"name":"a"}]`),
		},
		"no prefix length": {
			"PluginFailed",
			asking(`[{"name":"a","ips":["10.1.1.1"]}]`, "a", staticMacvlan), "as in 10.1.1.1/24",
			annotate(`[{"name":"a","ips":["10.1.1.1/24"]}]`),
		},
		"no address": {
			"PluginFailed", asking("a", "a", staticMacvlan),
			`let the pod ask for one with "ips"`, annotate(`[{"name":"a","ips":["10.1.1.1/24"]}]`),
		},
		"no gateway": {
			"DefaultRouteFailed", asking(`[{"name":"a","ips":["192.0.2.7/24"],"default-route":[]}]`, "a",
				staticMacvlan), `name one: "default-route": ["192.0.2.1"]`,
			annotate(`[{"name":"a","ips":["192.0.2.7/24"],"default-route":["192.0.2.1"]}]`),
		},
		"not honoured": {
			"MissingCapability",
			asking(`[{"name":"a","ips":["10.9.0.10/24"]}]`, "a", `{"cniVersion":"1.0.0","type":"ignorant"}`),
			"remove ips", annotate("a"),
		},
		"held": {
			"PluginFailed", func(r *rig) *pod {
				r.nad("a", plain(r))
				r.add(r.pod("holder", `[{"name":"a","ips":["10.11.0.7"]}]`))
				return r.pod("p", `[{"name":"a","ips":["10.11.0.7"]}]`)
			}, "ask for another one", annotate(`[{"name":"a","ips":["10.11.0.8"]}]`),
		},
	}
}

// brokenByNetwork are pods for which a network, or the node, is to be mended.
func brokenByNetwork() map[string]broken {
	plain := func(r *rig) string { return r.macvlan(11, "") }
	refusing := func(r *rig) *pod {
		r.setBraid("secondaryDefaultRoute", "refuse")
		return asking("a", "a", withDefault)(r)
	}
	return map[string]broken{
		"no NAD": {"NADNotFound", asking("a"), "create it", redefine(plain)},
		"another's": {
			"NADForbidden",
			func(r *rig) *pod {
				r.nad("team/a", plain(r))
				return r.pod("web/p", "team/a")
			}, "create the NAD in namespace web", func(r *rig, p *pod) *pod {
				r.nad("web/a", plain(r))
				return annotate("a")(r, p)
			},
		},
		"another's, ours": {
			"NADForbidden",
			func(r *rig) *pod {
				r.nad("team/a", plain(r))
				return r.pod("web/p", "team/a")
			}, "add team to globalNamespaces", func(r *rig, p *pod) *pod {
				r.conf["globalNamespaces"] = "default,team"
				return p
			},
		},
		"comma": {
			"NADInvalid", asking("a", "a", `{"type":"macvlan","master":"nic0",}`),
			"remove the comma", redefine(func(*rig) string {
				return `{"type":"macvlan","master":"nic0"}`
			}),
		},
		"comment": {
			"NADInvalid", asking("a", "a", "{\"type\":\"macvlan\", # here\n\"master\":\"nic0\"}"),
			"JSON has no comments", redefine(func(*rig) string {
				return `{"type":"macvlan","master":"nic0"}`
			}),
		},
		"no type": {
			"NADInvalid", asking("a", "a", `{"cniVersion":"1.0.0"}`), `which has "type"`,
			redefine(plain),
		},
		"empty": {
			"NetworkNotFound", asking("a", "a", ""), "put a CNI configuration there",
			func(r *rig, p *pod) *pod {
				r.write("net.d/a.conf", `{"cniVersion":"1.0.0","name":"a","type":"macvlan","master":"nic0"}`)
				return p
			},
		},
		"no plugin": {
			"PluginNotFound", asking("a", "a", `{"cniVersion":"1.0.0","type":"ignorant2"}`),
			"install the plugin in ", func(r *rig, p *pod) *pod {
				r.script("ignorant2", ignorant)
				return p
			},
		},
		"misspelt plugin": {
			"PluginNotFound", asking("a", "a", `{"cniVersion":"1.0.0","type":"macvlam"}`),
			"correct the type", redefine(plain),
		},
		"no capability": {
			"MissingCapability",
			asking(`[{"name":"a","portMappings":[{"hostPort":8080,"containerPort":80}]}]`, "a",
				staticMacvlan), `add "capabilities": {"portMappings": true} to a plugin that ` +
				`supports it`, redefine(func(r *rig) string {
				return `{"cniVersion":"1.0.0","plugins":[` + plain(r) +
					`,{"type":"portmap","capabilities":{"portMappings":true}}]}`
			}),
		},
		"no IPAM": {
			"MissingCapability",
			asking(`[{"name":"a","ips":["10.9.9.9/24"]}]`, "a",
				`{"cniVersion":"1.0.0","type":"macvlan","master":"nic0"}`), `add an "ipam" that supports it, ` +
				`such as {"type": "static"}, and "capabilities": {"ips": true} ` +
				`beside it`, redefine(func(*rig) string {
				return `{"cniVersion":"1.0.0","type":"macvlan","master":"nic0","ipam":{"type":"static"},` +
					`"capabilities":{"ips":true}}`
			}),
		},
		"no master": {
			"PluginFailed",
			asking("a", "a", `{"cniVersion":"1.0.0","type":"macvlan","master":"nic7"}`), `see that this ` +
				`node has the master interface "nic7"`, func(r *rig, p *pod) *pod {
				r.node.Veth("nic7", r.node, "wire7")
				return p
			},
		},
		"no master, exec'd": {"PluginFailed", func(r *rig) *pod {
			r.execs("macvlan")
			return asking("a", "a", `{"cniVersion":"1.0.0","type":"macvlan","master":"nic7","ipam":{}}`)(r)
		}, `see that this node has the master interface "nic7"`, func(r *rig, p *pod) *pod {
			r.node.Veth("nic7", r.node, "wire7")
			return p
		}},
		"no master named": {
			"PluginFailed", asking("a", "a", `{"cniVersion":"1.0.0","type":"macvlan"}`),
			"name the master interface", redefine(plain),
		},
		"MTU": {
			"PluginFailed",
			asking("a", "a", `{"cniVersion":"1.0.0","type":"macvlan","master":"nic0","mtu":9000}`),
			"correct the network's configuration", redefine(plain),
		},
		"full": {"PluginFailed", func(r *rig) *pod {
			r.nad("a", narrow(r))
			r.add(r.pod("holder", "a"))
			return r.pod("p", "a")
		}, "enlarge its range", redefine(plain)},
		"full, one goes": {"PluginFailed", func(r *rig) *pod {
			r.nad("a", narrow(r))
			r.add(r.pod("holder", "a"))
			return r.pod("p", "a")
		}, "delete pods of this network on this node", func(r *rig, p *pod) *pod {
			r.must("DEL", &pod{p.Namespace, "id-holder", "default", "holder"})
			return p
		}},
		"default route": {"DefaultRouteRefused", refusing, "remove it", redefine(func(r *rig) string {
			return strings.ReplaceAll(strings.Replace(withDefault, `,{"dst":"0.0.0.0/0"}`, "", 1), "DIR",
				r.path("leases"))
		})},
		"default route, asked for": {
			"DefaultRouteRefused", refusing,
			`let the pod ask with "default-route": [] for this network`,
			annotate(`[{"name":"a","default-route":[]}]`),
		},
		"default route, gateway of sbr": {"DefaultRouteRefused", func(r *rig) *pod {
			r.setBraid("secondaryDefaultRoute", "refuse")
			return asking(`[{"name":"a","ips":["10.11.0.7/24"]}]`, "a",
				`{"cniVersion":"1.0.0","plugins":[{"type":"macvlan","master":"nic0","ipam":{"type":"static",`+
					`"routes":[{"dst":"0.0.0.0/0","gw":"10.11.0.1"}]}}]}`)(r)
		}, `name it in "gateways" of sbr`, redefine(func(*rig) string {
			return `{"cniVersion":"1.0.0","plugins":[{"type":"macvlan","master":"nic0",` +
				`"ipam":{"type":"static"}},{"type":"sbr","gateways":["10.11.0.1"]}]}`
		})},
		"no default network": {"NetworkNotFound", func(r *rig) *pod {
			delete(r.conf, "delegates")
			r.conf["clusterNetwork"] = "cluster"
			return r.pod("p", "")
		}, "put a CNI configuration there", func(r *rig, p *pod) *pod {
			r.write("net.d/10-cluster.conf", `{"cniVersion":"1.0.0","name":"cluster","type":"bridge"}`)
			return p
		}},
		"broken auxiliary chain": {"InvalidConfig", func(r *rig) *pod {
			r.write("net.d/10-x.conf", `{"cniVersion":"1.0.0","name":"pods","type":"bridge"}`)
			if err := os.Mkdir(r.path("net.d/aux"), 0o700); err != nil {
				r.t.Fatal(err)
			}
			r.write("net.d/aux/a.conf", `{"type":"tuning",}`)
			delete(r.conf, "delegates")
			r.conf["clusterNetwork"], r.conf["auxiliaryCNIChainName"] = r.path("net.d/10-x.conf"), "aux"
			return r.pod("p", "")
		}, "remove the comma", func(r *rig, p *pod) *pod {
			r.write("net.d/aux/a.conf", `{"type":"tuning"}`)
			return p
		}},
		"wrong policy": {
			"",
			func(r *rig) *pod {
				r.setBraid("secondaryDefaultRoute", "hold")
				return r.pod("p", "")
			}, `give "keep", "take" or "refuse"`, func(r *rig, p *pod) *pod {
				r.setBraid("secondaryDefaultRoute", "take")
				return p
			},
		},
		"not ready": {"NotReady", func(r *rig) *pod {
			r.conf["readinessindicatorfile"] = r.path("ready")
			return r.pod("p", "")
		}, "default network's own pod", func(r *rig, p *pod) *pod { r.write("ready", ""); return p }},
	}
}

// TestR23Remedies: who does what the error says has a pod that starts.
func TestR23Remedies(t *testing.T) {
	t.Parallel()
	for group, list := range map[string]map[string]broken{
		"annotation": brokenByAnnotation(), "network": brokenByNetwork(), "meta": brokenByMeta(),
	} {
		for name, b := range list {
			t.Run(fmt.Sprintf("%s/%s", group, name), func(t *testing.T) {
				t.Parallel()
				r := newRig(t)
				r.script("ignorant", ignorant)
				p := b.set(r)
				_, err := r.call("ADD", p)
				if err == nil {
					t.Fatal("the pod starts as it is")
				}
				if !strings.Contains(err.Msg, b.remedy) {
					t.Errorf("the error does not say %q: %v", b.remedy, err)
				}
				if strings.Contains(err.Msg, "master interface") != strings.Contains(name, "master") {
					t.Errorf("the master is not what is wrong: %v", err)
				}
				if b.reason != "" {
					same(t, "reason", r.lastEvent(p).Reason, b.reason)
				}
				p = b.mend(r, p)
				r.add(p)
				r.must("CHECK", p)
				r.must("DEL", p)
			})
		}
	}
}

// A CHECK, and a DEL, have remedies of their own; what is no NAD is not called one.
func TestR23OtherOperations(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.nad("a", r.macvlan(11, ""))
	p := r.pod("p", "a")
	r.add(p)
	if err := p.Netlink().LinkDel(p.Link("net1")); err != nil {
		t.Fatal(err)
	}
	_, err := r.call("CHECK", p)
	if err == nil || !strings.Contains(err.Msg, "delete the pod, so that it is made anew") ||
		strings.Contains(err.Msg, "master interface") {
		t.Errorf("CHECK: %v", err)
	}
	r.node.Veth("br9", r.node, "br9p")
	r.conf["delegates"] = []any{with(r.defaultNetwork(), "bridge", "br9")}
	_, err = r.call("ADD", r.pod("q", ""))
	if err == nil || !strings.Contains(err.Msg, "network pods: interface eth0: plugin bridge") ||
		strings.Contains(err.Msg, "NAD") {
		t.Errorf("ADD: %v", err)
	}
}
