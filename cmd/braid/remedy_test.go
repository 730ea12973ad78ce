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
	set func(*host) *pod
	// remedy are the words of the error that mend follows; it may return another pod.
	remedy string
	mend   func(*host, *pod) *pod
}

// annotate changes what a pod asks for.
func annotate(networks string) func(*host, *pod) *pod {
	return func(h *host, p *pod) *pod {
		h.object("v1", "Pod", p.namespace+"/"+p.name, map[string]any{},
			[]string{nadv1.NetworksAnnotation, networks})
		return p
	}
}

// redefine changes the NAD default/a.
func redefine(config func(*host) string) func(*host, *pod) *pod {
	return func(h *host, p *pod) *pod {
		h.nad("a", config(h))
		return p
	}
}

// asking is a pod that asks for networks of NADs, given as names and configurations in turn.
func asking(networks string, nads ...string) func(*host) *pod {
	return func(h *host) *pod {
		for i := 0; i < len(nads); i += 2 {
			h.nad(nads[i], strings.ReplaceAll(nads[i+1], "DIR", h.path("leases")))
		}
		return h.pod("p", networks)
	}
}

const (
	staticMacvlan = `{"cniVersion":"1.0.0","type":"macvlan","master":"nic0","ipam":{"type":"static"}}`
	withDefault   = `{"cniVersion":"1.0.0","plugins":[{"type":"macvlan","master":"nic0",` +
		network4 + `}]}`
)

func narrow(h *host) string {
	return strings.Replace(h.macvlan(11, ""), `"subnet"`,
		`"rangeStart":"10.11.0.5","rangeEnd":"10.11.0.5","subnet"`, 1)
}

func plain(h *host) string { return h.macvlan(11, "") }

// on is a pod that asks for networks. default/a is a plain one.
func on(networks string) func(*host) *pod {
	return func(h *host) *pod { h.nad("a", plain(h)); return h.pod("p", networks) }
}

// brokenAnnotations do not say what they mean, or ask for what no network has.
func brokenAnnotations() map[string]broken {
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
	}
}

// brokenAddresses are asked for by a pod's annotation, and cannot be had.
func brokenAddresses() map[string]broken {
	return map[string]broken{
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
			"PluginFailed", func(h *host) *pod {
				h.nad("a", plain(h))
				h.add(h.pod("holder", `[{"name":"a","ips":["10.11.0.7"]}]`))
				return h.pod("p", `[{"name":"a","ips":["10.11.0.7"]}]`)
			}, "ask for another one", annotate(`[{"name":"a","ips":["10.11.0.8"]}]`),
		},
	}
}

// brokenNADs are not there, are another's, or cannot be read.
func brokenNADs() map[string]broken {
	return map[string]broken{
		"no NAD": {"NADNotFound", asking("a"), "create it", redefine(plain)},
		"another's": {
			"NADForbidden",
			func(h *host) *pod {
				h.nad("team/a", plain(h))
				return h.pod("web/p", "team/a")
			}, "create the NAD in namespace web", func(h *host, p *pod) *pod {
				h.nad("web/a", plain(h))
				return annotate("a")(h, p)
			},
		},
		"another's, ours": {
			"NADForbidden",
			func(h *host) *pod {
				h.nad("team/a", plain(h))
				return h.pod("web/p", "team/a")
			}, "add team to globalNamespaces", func(h *host, p *pod) *pod {
				h.conf["globalNamespaces"] = "default,team"
				return p
			},
		},
		"comma": {
			"NADInvalid", asking("a", "a", `{"type":"macvlan","master":"nic0",}`),
			"remove the comma", redefine(func(*host) string {
				return `{"type":"macvlan","master":"nic0"}`
			}),
		},
		"comment": {
			"NADInvalid", asking("a", "a", "{\"type\":\"macvlan\", # here\n\"master\":\"nic0\"}"),
			"JSON has no comments", redefine(func(*host) string {
				return `{"type":"macvlan","master":"nic0"}`
			}),
		},
		"no type": {
			"NADInvalid", asking("a", "a", `{"cniVersion":"1.0.0"}`), `which has "type"`,
			redefine(plain),
		},
		"empty": {
			"NetworkNotFound", asking("a", "a", ""), "put a CNI configuration there",
			func(h *host, p *pod) *pod {
				h.write("net.d/a.conf", `{"cniVersion":"1.0.0","name":"a","type":"macvlan","master":"nic0"}`)
				return p
			},
		},
	}
}

// brokenNetworks have a plugin that is not there, or that cannot do what it is to do.
func brokenNetworks() map[string]broken {
	return map[string]broken{
		"no plugin": {
			"PluginNotFound", asking("a", "a", `{"cniVersion":"1.0.0","type":"ignorant2"}`),
			"install the plugin in ", func(h *host, p *pod) *pod {
				h.script("ignorant2", ignorant)
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
				`supports it`, redefine(func(h *host) string {
				return `{"cniVersion":"1.0.0","plugins":[` + plain(h) +
					`,{"type":"portmap","capabilities":{"portMappings":true}}]}`
			}),
		},
		"no IPAM": {
			"MissingCapability",
			asking(`[{"name":"a","ips":["10.9.9.9/24"]}]`, "a",
				`{"cniVersion":"1.0.0","type":"macvlan","master":"nic0"}`), `add an "ipam" that supports it, ` +
				`such as {"type": "static"}, and "capabilities": {"ips": true} ` +
				`beside it`, redefine(func(*host) string {
				return `{"cniVersion":"1.0.0","type":"macvlan","master":"nic0","ipam":{"type":"static"},` +
					`"capabilities":{"ips":true}}`
			}),
		},
		"no master": {
			"PluginFailed",
			asking("a", "a", `{"cniVersion":"1.0.0","type":"macvlan","master":"nic7"}`), `see that this ` +
				`node has the master interface "nic7"`, func(h *host, p *pod) *pod {
				h.node.Veth("nic7", h.node, "wire7")
				return p
			},
		},
		"no master, exec'd": {"PluginFailed", func(h *host) *pod {
			h.execs("macvlan")
			return asking("a", "a", `{"cniVersion":"1.0.0","type":"macvlan","master":"nic7","ipam":{}}`)(h)
		}, `see that this node has the master interface "nic7"`, func(h *host, p *pod) *pod {
			h.node.Veth("nic7", h.node, "wire7")
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
		"full": {"PluginFailed", func(h *host) *pod {
			h.nad("a", narrow(h))
			h.add(h.pod("holder", "a"))
			return h.pod("p", "a")
		}, "enlarge its range", redefine(plain)},
		"full, one goes": {"PluginFailed", func(h *host) *pod {
			h.nad("a", narrow(h))
			h.add(h.pod("holder", "a"))
			return h.pod("p", "a")
		}, "delete pods of this network on this node", func(h *host, p *pod) *pod {
			h.must("DEL", &pod{p.Namespace, "id-holder", "default", "holder"})
			return p
		}},
	}
}

// brokenRoutes are default routes of a network, which Braid is configured to refuse.
func brokenRoutes() map[string]broken {
	refusing := func(h *host) *pod {
		h.setBraid("secondaryDefaultRoute", "refuse")
		return asking("a", "a", withDefault)(h)
	}
	return map[string]broken{
		"default route": {"DefaultRouteRefused", refusing, "remove it", redefine(func(h *host) string {
			return strings.ReplaceAll(strings.Replace(withDefault, `,{"dst":"0.0.0.0/0"}`, "", 1), "DIR",
				h.path("leases"))
		})},
		"default route, asked for": {
			"DefaultRouteRefused", refusing,
			`let the pod ask with "default-route": [] for this network`,
			annotate(`[{"name":"a","default-route":[]}]`),
		},
		"default route, gateway of sbr": {"DefaultRouteRefused", func(h *host) *pod {
			h.setBraid("secondaryDefaultRoute", "refuse")
			return asking(`[{"name":"a","ips":["10.11.0.7/24"]}]`, "a",
				`{"cniVersion":"1.0.0","plugins":[{"type":"macvlan","master":"nic0","ipam":{"type":"static",`+
					`"routes":[{"dst":"0.0.0.0/0","gw":"10.11.0.1"}]}}]}`)(h)
		}, `name it in "gateways" of sbr`, redefine(func(*host) string {
			return `{"cniVersion":"1.0.0","plugins":[{"type":"macvlan","master":"nic0",` +
				`"ipam":{"type":"static"}},{"type":"sbr","gateways":["10.11.0.1"]}]}`
		})},
	}
}

// brokenNodes have a configuration of Braid, or a default network, with a mistake.
func brokenNodes() map[string]broken {
	return map[string]broken{
		"no default network": {"NetworkNotFound", func(h *host) *pod {
			delete(h.conf, "delegates")
			h.conf["clusterNetwork"] = "cluster"
			return h.pod("p", "")
		}, "put a CNI configuration there", func(h *host, p *pod) *pod {
			h.write("net.d/10-cluster.conf", `{"cniVersion":"1.0.0","name":"cluster","type":"bridge"}`)
			return p
		}},
		"broken auxiliary chain": {"InvalidConfig", func(h *host) *pod {
			h.write("net.d/10-x.conf", `{"cniVersion":"1.0.0","name":"pods","type":"bridge"}`)
			if err := os.Mkdir(h.path("net.d/aux"), 0o700); err != nil {
				h.t.Fatal(err)
			}
			h.write("net.d/aux/a.conf", `{"type":"tuning",}`)
			delete(h.conf, "delegates")
			h.conf["clusterNetwork"], h.conf["auxiliaryCNIChainName"] = h.path("net.d/10-x.conf"), "aux"
			return h.pod("p", "")
		}, "remove the comma", func(h *host, p *pod) *pod {
			h.write("net.d/aux/a.conf", `{"type":"tuning"}`)
			return p
		}},
		"wrong policy": {
			"",
			func(h *host) *pod {
				h.setBraid("secondaryDefaultRoute", "hold")
				return h.pod("p", "")
			}, `give "keep", "take" or "refuse"`, func(h *host, p *pod) *pod {
				h.setBraid("secondaryDefaultRoute", "take")
				return p
			},
		},
		"not ready": {"NotReady", func(h *host) *pod {
			h.conf["readinessindicatorfile"] = h.path("ready")
			return h.pod("p", "")
		}, "default network's own pod", func(h *host, p *pod) *pod { h.write("ready", ""); return p }},
	}
}

// TestR23Remedies: who does what the error says has a pod that starts.
func TestR23Remedies(t *testing.T) {
	t.Parallel()
	for group, list := range map[string]map[string]broken{
		"annotation": brokenAnnotations(), "address": brokenAddresses(), "NAD": brokenNADs(),
		"network": brokenNetworks(), "meta": brokenByMeta(), "route": brokenRoutes(),
		"node": brokenNodes(),
	} {
		for name, b := range list {
			t.Run(fmt.Sprintf("%s/%s", group, name), func(t *testing.T) {
				t.Parallel()
				h := newHost(t)
				h.script("ignorant", ignorant)
				p := b.set(h)
				_, err := h.call("ADD", p)
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
					same(t, "reason", h.lastEvent(p).Reason, b.reason)
				}
				p = b.mend(h, p)
				h.add(p)
				h.must("CHECK", p)
				h.must("DEL", p)
			})
		}
	}
}

// A CHECK, and a DEL, have remedies of their own; what is no NAD is not called one.
func TestR23OtherOperations(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", h.macvlan(11, ""))
	p := h.pod("p", "a")
	h.add(p)
	if err := p.Netlink().LinkDel(p.Link("net1")); err != nil {
		t.Fatal(err)
	}
	_, err := h.call("CHECK", p)
	if err == nil || !strings.Contains(err.Msg, "delete the pod, so that it is made anew") ||
		strings.Contains(err.Msg, "master interface") {
		t.Errorf("CHECK: %v", err)
	}
	h.node.Veth("br9", h.node, "br9p")
	h.conf["delegates"] = []any{with(h.defaultNetwork(), "bridge", "br9")}
	_, err = h.call("ADD", h.pod("q", ""))
	if err == nil || !strings.Contains(err.Msg, "network pods: interface eth0: plugin bridge") ||
		strings.Contains(err.Msg, "NAD") {
		t.Errorf("ADD: %v", err)
	}
}
