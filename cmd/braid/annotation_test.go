package main

import (
	"fmt"
	"maps"
	"strings"
	"testing"
)

// warnings are the pod's Warning events.
func (r *rig) warnings(p *pod) []podEvent {
	r.t.Helper()
	var warnings []podEvent
	for _, e := range r.events(p) {
		if e.Type == "Warning" {
			warnings = append(warnings, e)
		}
	}
	return warnings
}

// warned fails the test unless the pod has exactly these warnings, each "Reason: word word ..."
// with words of its message, in any order.
func (r *rig) warned(p *pod, want ...string) {
	r.t.Helper()
	warnings := r.warnings(p)
	if len(warnings) != len(want) {
		r.t.Errorf("pod %s has warnings %+v, want %q", p.name, warnings, want)
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
			r.t.Errorf("pod %s has warnings %+v, and none is %q", p.name, warnings, w)
		}
	}
}

// What Multus ignores in the annotation is ignored, and the pod told.
func TestR1StraysInTheAnnotation(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.nad("a", r.macvlan(11, ""))
	p := r.pod("p", `[{"name":"a","gateway":["10.11.0.1"],"deviceID":"0000:00:01.0",`+
		`"cni-args":null},{"name":"a","gateways":["10.11.0.1"],"comment":{"any":1}}]`)
	r.add(p)
	r.has(p, "eth0", "net1", "net2")
	same(t, "networks", r.networks(p),
		[]string{"pods eth0 10.1.0.2", "default/a net1 10.11.0.2", "default/a net2 10.11.0.3"})
	r.warned(p,
		`IgnoredKey: default/a net1 k8s.v1.cni.cncf.io/networks[0].gateway "gateway" default-route`,
		`IgnoredKey: default/a net1 k8s.v1.cni.cncf.io/networks[0].deviceID "deviceID" resourceName`,
		`IgnoredKey: default/a net2 k8s.v1.cni.cncf.io/networks[1].gateways "gateways" default-route`,
		`IgnoredKey: default/a net2 k8s.v1.cni.cncf.io/networks[1].comment "comment"`)
	log := r.log()
	if !strings.Contains(log, "level=WARN") || !strings.Contains(log, "reason=IgnoredKey") {
		t.Errorf("the log has no warning: %s", log)
	}
	r.must("CHECK", p)
	r.must("DEL", p)
	r.clean(p)
}

func TestR1InterfaceRequest(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.nad("a", r.macvlan(11, ""))
	p := r.pod("p", `[{"name":"a","interfaceRequest":"eth1"},{"name":"a","interfaceRequest":"eth2",`+
		`"interface":"eth2"}]`)
	r.add(p)
	r.has(p, "eth0", "eth1", "eth2")
	r.warned(p)
	r.must("DEL", p)
	q := r.pod("q", `[{"name":"a","interfaceRequest":"eth1","interface":"eth2"}]`)
	r.fails("ADD", q, 7, "interfaceRequest", "eth1", "eth2")
	r.must("DEL", q)
	r.clean(p, q)
}

// A slip of a known key is refused whatever "unknownKeys" says, other unknown keys with "refuse"
// only.
func TestR1UnknownKeys(t *testing.T) {
	t.Parallel()
	for policy, refused := range map[string]bool{"": false, "warn": false, "refuse": true} {
		t.Run(policy, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			if policy != "" {
				r.conf["braid"].(map[string]any)["unknownKeys"] = policy
			}
			r.nad("a", r.macvlan(11, ""))
			p := r.pod("p", `[{"name":"a","gateway":["10.11.0.1"]}]`)
			if refused {
				r.fails("ADD", p, 7, "networks[0].gateway", "default-route")
				same(t, "event", r.lastEvent(p).Reason, "InvalidAnnotation")
			} else {
				r.add(p)
			}
			r.must("DEL", p)
			for key, meant := range map[string]string{
				"Mac": "mac", "ip": "ips", "interfaces": "interface", "default-routes": "default-route",
				"bandwidths": "bandwidth",
			} {
				slip := r.pod("slip", fmt.Sprintf(`[{"name":"a",%q:null}]`, key))
				r.fails("ADD", slip, 7, key, "write "+meant)
				r.must("DEL", slip)
			}
			r.clean(p)
		})
	}
	r := newRig(t)
	r.conf["braid"] = with(maps.Clone(r.conf["braid"].(map[string]any)), "unknownKeys", "ask")
	r.fails("ADD", r.pod("p", ""), 7, "braid.unknownKeys", "warn", "refuse")
}

// The bandwidth plugin of the reference refuses a rate without a burst, so one is derived.
func TestR8BurstIsDerived(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fake("one", "")
	r.nad("a", `{"cniVersion":"1.0.0","type":"one","capabilities":{"bandwidth":true}}`)
	p := r.pod("p", `[{"name":"a","bandwidth":{"ingressRate":100000000,"egressRate":1000}}]`)
	r.add(p)
	same(t, "runtimeConfig", encode(t, r.stdin("one", "ADD", p, "net1")["runtimeConfig"]),
		`{"bandwidth":{"egressBurst":524288,"egressRate":1000,"ingressBurst":10000000,`+
			`"ingressRate":100000000}}`)
	r.must("DEL", p)
	r.clean(p)
}

// The plugin of the reference takes what was derived.
func TestR8ReferenceTakesTheBurst(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.nad("a", fmt.Sprintf(`{"cniVersion":"1.0.0","plugins":[{"type":"bridge","bridge":"br1","ipam":{"type":"host-local","dataDir":%q,"subnet":"10.12.0.0/24"}},
		{"type":"bandwidth","capabilities":{"bandwidth":true}}]}`, r.path("leases")))
	p := r.pod("p", `[{"name":"a","bandwidth":{"ingressRate":10000000}}]`)
	r.add(p)
	r.must("DEL", p)
}
