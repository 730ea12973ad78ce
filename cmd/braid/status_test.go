package main

import (
	"os"
	"strings"
	"testing"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

// annotated makes a pod whose manifest has a network-status.
func (r *rig) annotated(name, networks, text string) *pod {
	r.t.Helper()
	return r.pod(name, networks, nadv1.StatusAnnotation, text)
}

// statusText is the pod's network-status as it is written.
func (r *rig) statusText(p *pod) string {
	r.t.Helper()
	data, err := os.ReadFile(r.path("manifests", p.namespace+"_"+p.name+".network-status.json"))
	if err != nil {
		r.t.Fatal(err)
	}
	return string(data)
}

// TestR15NewSandbox: a pod's new sandbox has fewer networks, and another pod has a copy of its
// annotations. Each has what it has.
func TestR15NewSandbox(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.nad("a", r.macvlan(11, ""))
	r.nad("b", r.macvlan(12, ""))
	const other = `{"name":"x/dynamic","interface":"dyn0","dns":{}}`
	p := r.annotated("p", "a,b,b@data", "["+other+"]")
	r.add(p)
	text := r.statusText(p)
	r.must("DEL", p)

	q := r.annotated("q", "", text)
	again := r.pod("p", "a")
	r.add(q)
	r.add(again)
	same(t, "networks of the new sandbox", r.networks(again)[:2],
		[]string{"pods eth0 10.1.0.4", "default/a net1 10.11.0.3"})
	same(t, "networks of the copy", r.networks(q)[:1], []string{"pods eth0 10.1.0.3"})
	for _, p := range []*pod{again, q} {
		text := r.statusText(p)
		if !strings.Contains(text, other) || strings.Contains(text, "data") ||
			strings.Contains(text, "net2") || strings.Contains(text, "10.12.") {
			t.Errorf("pod %s: %s", p.name, text)
		}
		r.must("DEL", p)
	}
	r.clean(q, again)
}

// TestR37AuxiliaryChain: one that makes no interface has no entry.
func TestR37AuxiliaryChain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	auxiliary(r)
	r.nad("a", r.macvlan(11, ""))
	p, alone := r.pod("p", "a"), r.pod("alone", "")
	r.add(p)
	same(t, "networks", r.networks(p), []string{"pods eth0 10.1.0.2", "default/a net1 10.11.0.2"})
	for _, e := range r.events(p) {
		if strings.Contains(e.Message, "extras") {
			t.Errorf("event %v", e)
		}
	}
	r.add(alone)
	if _, err := os.Stat(r.path("manifests", "default_alone.network-status.json")); err == nil {
		t.Error("a pod with the default network alone has a network-status")
	}
	r.must("DEL", p)
	r.must("DEL", alone)
	r.clean(p, alone)
}
