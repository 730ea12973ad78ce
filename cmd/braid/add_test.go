package main

import (
	"slices"
	"strings"
	"testing"
)

// TestS38DefaultFirst: every pod gets the default network, first; its secondary networks follow in
// their order.
func TestS38DefaultFirst(t *testing.T) {
	h := newHost(t)
	h.nad("a", h.macvlan(11, ""))
	h.nad("b", h.macvlan(12, ""))
	p := h.pod("p", "b,a")
	result := h.add(p)
	h.has(p, "eth0", "net1", "net2")
	if len(result.IPs) != 1 || !strings.HasPrefix(result.IPs[0].Address.String(), "10.1.") {
		t.Errorf("the result is not the default network's: %v", result)
	}
	var names []string
	for _, s := range h.status(p) {
		names = append(names, s.Name+" "+s.Interface+" "+strings.Join(s.IPs, ","))
	}
	want := []string{"pods eth0 10.1.0.2", "default/b net1 10.12.0.2", "default/a net2 10.11.0.2"}
	if !slices.Equal(names, want) {
		t.Errorf("network-status %q, want %q", names, want)
	}
	h.must("CHECK", p)
	h.must("DEL", p)
	h.clean(p)
	h.must("DEL", p)
	h.clean(p)
}
