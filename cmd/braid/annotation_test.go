package main

import (
	"fmt"
	"maps"
	"strings"
	"testing"
)

// warnings are the pod's Warning events.
func (h *host) warnings(p *pod) []podEvent {
	h.t.Helper()
	var warnings []podEvent
	for _, e := range h.events(p) {
		if e.Type == "Warning" {
			warnings = append(warnings, e)
		}
	}
	return warnings
}

// warned fails the test unless the pod has exactly these warnings, each "Reason: word word ..."
// with words of its message, in any order.
func (h *host) warned(p *pod, want ...string) {
	h.t.Helper()
	warnings := h.warnings(p)
	if len(warnings) != len(want) {
		h.t.Errorf("pod %s has warnings %+v, want %q", p.name, warnings, want)
		return
	}
	for _, w := range want {
		reason, words, _ := strings.Cut(w, ": ")
		found := false
		for _, e := range warnings {
			all := e.Reason == reason
			for word := range strings.FieldsSeq(words) {
				all = all && strings.Contains(e.Message, word)
			}
			found = found || all
		}
		if !found {
			h.t.Errorf("pod %s has warnings %+v, and none is %q", p.name, warnings, w)
		}
	}
}

// What Multus ignores in the annotation is ignored, and the pod told.
func TestR1StraysInTheAnnotation(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", h.macvlan(11, ""))
	p := h.pod("p", `[{"name":"a","gateway":["10.11.0.1"],"deviceID":"0000:00:01.0",`+
		`"cni-args":null},{"name":"a","gateways":["10.11.0.1"],"comment":{"any":1}}]`)
	h.add(p)
	h.has(p, "eth0", "net1", "net2")
	same(t, "networks", h.networks(p),
		[]string{"pods eth0 10.1.0.2", "default/a net1 10.11.0.2", "default/a net2 10.11.0.3"})
	h.warned(p,
		`IgnoredKey: default/a net1 k8s.v1.cni.cncf.io/networks[0].gateway "gateway" default-route`,
		`IgnoredKey: default/a net1 k8s.v1.cni.cncf.io/networks[0].deviceID "deviceID" resourceName`,
		`IgnoredKey: default/a net2 k8s.v1.cni.cncf.io/networks[1].gateways "gateways" default-route`,
		`IgnoredKey: default/a net2 k8s.v1.cni.cncf.io/networks[1].comment "comment"`)
	log := h.log()
	if !strings.Contains(log, "level=WARN") || !strings.Contains(log, "reason=IgnoredKey") {
		t.Errorf("the log has no warning: %s", log)
	}
	h.must("CHECK", p)
	h.must("DEL", p)
	h.clean(p)
}

func TestR1InterfaceRequest(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", h.macvlan(11, ""))
	p := h.pod("p", `[{"name":"a","interfaceRequest":"eth1"},{"name":"a","interfaceRequest":"eth2",`+
		`"interface":"eth2"}]`)
	h.add(p)
	h.has(p, "eth0", "eth1", "eth2")
	h.warned(p)
	h.must("DEL", p)
	q := h.pod("q", `[{"name":"a","interfaceRequest":"eth1","interface":"eth2"}]`)
	h.fails("ADD", q, 7, "interfaceRequest", "eth1", "eth2")
	h.must("DEL", q)
	h.clean(p, q)
}

// A slip of a known key is refused whatever "unknownKeys" says, other unknown keys with "refuse"
// only.
func TestR1UnknownKeys(t *testing.T) {
	t.Parallel()
	for policy, refused := range map[string]bool{"": false, "warn": false, "refuse": true} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			if policy != "" {
				h.conf["braid"].(map[string]any)["unknownKeys"] = policy
			}
			h.nad("a", h.macvlan(11, ""))
			p := h.pod("p", `[{"name":"a","gateway":["10.11.0.1"]}]`)
			if refused {
				h.fails("ADD", p, 7, "networks[0].gateway", "default-route")
				same(t, "event", h.lastEvent(p).Reason, "InvalidAnnotation")
			} else {
				h.add(p)
			}
			h.must("DEL", p)
			for key, meant := range map[string]string{
				"Mac": "mac", "ip": "ips", "interfaces": "interface", "default-routes": "default-route",
				"bandwidths": "bandwidth",
			} {
				slip := h.pod("slip", fmt.Sprintf(`[{"name":"a",%q:null}]`, key))
				h.fails("ADD", slip, 7, key, "write "+meant)
				h.must("DEL", slip)
			}
			h.clean(p)
		})
	}
	h := newHost(t)
	h.conf["braid"] = with(maps.Clone(h.conf["braid"].(map[string]any)), "unknownKeys", "ask")
	h.fails("ADD", h.pod("p", ""), 7, "braid.unknownKeys", "warn", "refuse")
}

// The bandwidth plugin of the reference refuses a rate without a burst, so one is derived.
func TestR8BurstIsDerived(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.fake("one", "")
	h.nad("a", `{"cniVersion":"1.0.0","type":"one","capabilities":{"bandwidth":true}}`)
	p := h.pod("p", `[{"name":"a","bandwidth":{"ingressRate":100000000,"egressRate":1000}}]`)
	h.add(p)
	same(t, "runtimeConfig", encode(t, h.stdin("one", "ADD", p, "net1")["runtimeConfig"]),
		`{"bandwidth":{"egressBurst":524288,"egressRate":1000,"ingressBurst":10000000,`+
			`"ingressRate":100000000}}`)
	h.must("DEL", p)
	h.clean(p)
}

// The plugin of the reference takes what was derived.
func TestR8ReferenceTakesTheBurst(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", fmt.Sprintf(`{"cniVersion":"1.0.0","plugins":[{"type":"bridge","bridge":"br1","ipam":{"type":"host-local","dataDir":%q,"subnet":"10.12.0.0/24"}},
		{"type":"bandwidth","capabilities":{"bandwidth":true}}]}`, h.path("leases")))
	p := h.pod("p", `[{"name":"a","bandwidth":{"ingressRate":10000000}}]`)
	h.add(p)
	h.must("DEL", p)
}
