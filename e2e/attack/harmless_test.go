package attack_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestM26HarmlessNetwork: what a tenant may have it gets, and when its pods are gone nothing is
// left of it.
func TestM26HarmlessNetwork(t *testing.T) {
	t.Parallel()
	n := newNode(t, released(t))
	n.own["policyDefault"] = "enforce"
	n.tenant("team")
	first := n.pod("rest/first", "") // what the default network has made stays
	n.begins(first)
	before := n.host.Snapshot()
	n.nad("team/x", `{"cniVersion":"1.0.0","plugins":[`+strings.Replace(harmless, "NAME", "br-team", 1)+`,{"type":"sbr"},
		{"type":"tuning","dataDir":"DIR/data","sysctl":{"net.ipv4.conf.IFNAME.arp_filter":"1"}},{"type":"portmap","capabilities":{"portMappings":true}}]}`)
	a, b := n.pod("team/a", `[{"name":"x","portMappings":[{"hostPort":8080,"containerPort":80,`+
		`"protocol":"tcp"}]}]`), n.pod("team/b", "x")
	for _, p := range []*pod{a, b} {
		n.begins(p)
		if addrs := p.Addrs(); !strings.Contains(addrs, "10.77.0.") {
			t.Errorf("pod %s has addresses %s", p.name, addrs)
		}
		n.must(n.call("CHECK", p))
	}
	for _, p := range []*pod{a, b} {
		n.must(n.call("DEL", p))
		if p.HasLink("net1") {
			t.Errorf("pod %s has its interface", p.name)
		}
	}
	if diff := cmp.Diff(before, n.host.Snapshot()); diff != "" {
		t.Errorf("left on the node:\n%s", diff)
	}
	if left := n.entries("state/sandboxes"); left != 1 {
		t.Errorf("%d sandboxes are remembered, want that of the first pod", left)
	}
}
