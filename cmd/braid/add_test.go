package main

import (
	"slices"
	"strings"
	"testing"
)

// TestS38DefaultFirst: every pod gets the default network, first; its secondary networks follow in
// their order.
func TestS38DefaultFirst(t *testing.T) {
	r := newRig(t)
	r.nad("a", r.macvlan(11, ""))
	r.nad("b", r.macvlan(12, ""))
	p := r.pod("p", "b,a")
	result := r.add(p)
	r.has(p, "eth0", "net1", "net2")
	if len(result.IPs) != 1 || !strings.HasPrefix(result.IPs[0].Address.String(), "10.1.") {
		t.Errorf("the result is not the default network's: %v", result)
	}
	var names []string
	for _, s := range r.status(p) {
		names = append(names, s.Name+" "+s.Interface+" "+strings.Join(s.IPs, ","))
	}
	want := []string{"pods eth0 10.1.0.2", "default/b net1 10.12.0.2", "default/a net2 10.11.0.2"}
	if !slices.Equal(names, want) {
		t.Errorf("network-status %q, want %q", names, want)
	}
	r.must("CHECK", p)
	r.must("DEL", p)
	r.clean(p)
	r.must("DEL", p)
	r.clean(p)
}
