package main

import (
	"os"
	"strings"
	"testing"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

// annotated makes a pod whose manifest has a network-status.
func (h *host) annotated(name, networks, text string) *pod {
	h.t.Helper()
	return h.pod(name, networks, nadv1.StatusAnnotation, text)
}

// statusText is the pod's network-status as it is written.
func (h *host) statusText(p *pod) string {
	h.t.Helper()
	data, err := os.ReadFile(h.path("manifests", p.namespace+"_"+p.name+".network-status.json"))
	if err != nil {
		h.t.Fatal(err)
	}
	return string(data)
}

// TestR15NewSandbox: a pod's new sandbox has fewer networks, and another pod has a copy of its
// annotations. Each has what it has.
func TestR15NewSandbox(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", h.macvlan(11, ""))
	h.nad("b", h.macvlan(12, ""))
	const other = `{"name":"x/dynamic","interface":"dyn0","dns":{}}`
	p := h.annotated("p", "a,b,b@data", "["+other+"]")
	h.add(p)
	text := h.statusText(p)
	h.must("DEL", p)

	q := h.annotated("q", "", text)
	again := h.pod("p", "a")
	h.add(q)
	h.add(again)
	same(t, "networks of the new sandbox", h.networks(again)[:2],
		[]string{"pods eth0 10.1.0.4", "default/a net1 10.11.0.3"})
	same(t, "networks of the copy", h.networks(q)[:1], []string{"pods eth0 10.1.0.3"})
	for _, p := range []*pod{again, q} {
		text := h.statusText(p)
		if !strings.Contains(text, other) || strings.Contains(text, "data") ||
			strings.Contains(text, "net2") || strings.Contains(text, "10.12.") {
			t.Errorf("pod %s: %s", p.name, text)
		}
		h.must("DEL", p)
	}
	h.clean(q, again)
}

// TestR37AuxiliaryChain: one that makes no interface has no entry.
func TestR37AuxiliaryChain(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	auxiliary(h)
	h.nad("a", h.macvlan(11, ""))
	p, alone := h.pod("p", "a"), h.pod("alone", "")
	h.add(p)
	same(t, "networks", h.networks(p), []string{"pods eth0 10.1.0.2", "default/a net1 10.11.0.2"})
	for _, e := range h.events(p) {
		if strings.Contains(e.Message, "extras") {
			t.Errorf("event %v", e)
		}
	}
	h.add(alone)
	if _, err := os.Stat(h.path("manifests", "default_alone.network-status.json")); err == nil {
		t.Error("a pod with the default network alone has a network-status")
	}
	h.must("DEL", p)
	h.must("DEL", alone)
	h.clean(p, alone)
}
