package bridge_test

import (
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/plugin/plugintest"
	"github.com/braid-cni/braid/plugins/bridge"
)

// tenant is a node whose attachments have limits.
func tenant(t *testing.T, namespace string) *plugintest.Node {
	t.Helper()
	n := plugintest.New(t, plugintest.Plugins{
		"bridge": plugin.New(bridge.Plugin{Dir: t.TempDir()}), "fixed": plugin.NewIPAM(fixed{}),
	})
	n.Limits = &attachment.Limits{Namespace: namespace}
	return n
}

// as is the same node for NADs of another namespace.
func as(n *plugintest.Node, namespace string) *plugintest.Node {
	other := *n
	other.Limits = &attachment.Limits{Namespace: namespace}
	return &other
}

// nodeState is all that attachments change of a node.
func nodeState(t *testing.T, n *plugintest.Node) string {
	t.Helper()
	return n.Host.Snapshot() + rules(t, n.Host)
}

// Whatever step fails, nothing is left of a tenant's bridge, its addresses and rules.
func TestM27TenantsBridgeIsUndone(t *testing.T) {
	n := tenant(t, "team")
	p := n.Pod("c")
	p.FailEachStep(t, everything(), func() string { return nodeState(t, n) + p.Snapshot() })
}

// What an ADD gave a bridge that another attachment is on stays, as that may be using it.
func TestM27UndoLeavesTheGatewayOfOthers(t *testing.T) {
	n := tenant(t, "team")
	first, second := n.Pod("c"), n.Pod("+5")
	mustAdd(t, first, everything())
	awaitRoutes(t, n.Host, "fd00::")
	second.FailEachStep(t, everything(), func() string { return nodeState(t, n) })
	if err := first.Check(everything()); err != nil {
		t.Error(err)
	}
}

// The pod's namespace is gone before the DEL: the port is still there for a while.
func TestM27BridgeGoesThoughThePortIsThere(t *testing.T) {
	n := tenant(t, "team")
	before := n.Host.Links()
	for range 5 {
		p := n.Pod("c")
		mustAdd(t, p, everything())
		p.Unmount()
		if err := p.Del(everything()); err != nil {
			t.Fatal(err)
		}
		if after := n.Host.Links(); after != before {
			t.Errorf("left: %s", after)
		}
	}
}

// ADDs and DELs at once never take the bridge from each other, and the last one takes it along.
func TestM27TenantsBridgeRace(t *testing.T) {
	n := tenant(t, "team")
	before := n.Host.Links()
	var group sync.WaitGroup
	for i := range 4 {
		p := n.Pod(fmt.Sprintf("+%d", i))
		group.Go(func() {
			c := everything()
			for round := range 40 {
				if _, err := p.Add(c); err != nil {
					t.Errorf("round %d: ADD: %v", round, err)
					return
				}
				if err := p.Check(c); err != nil {
					t.Errorf("round %d: CHECK: %v", round, err)
				}
				if err := p.Del(c); err != nil {
					t.Errorf("round %d: DEL: %v", round, err)
				}
			}
		})
	}
	group.Wait()
	if after := n.Host.Links(); after != before {
		t.Errorf("left: %s", after)
	}
}

// Of tenants whose prefixes overlap only one gets its gateway, however close together they ask.
func TestM27OverlapRace(t *testing.T) {
	n := tenant(t, "a")
	nodes := []*plugintest.Node{n, as(n, "b"), as(n, "c")}
	for round := range 20 {
		var group sync.WaitGroup
		pods, confs, added := make([]*plugintest.Pod, len(nodes)), make([]conf, len(nodes)), make([]bool,
			len(nodes))
		for i, node := range nodes {
			pods[i] = node.Pod(fmt.Sprintf("c%d", i))
			confs[i] = everything().With(conf{
				"bridge": fmt.Sprintf("br%d", i),
				"ipam":   ipam(fmt.Sprintf("10.1.0.%d/24 via 10.1.0.%d", i+2, i+100)),
			})
			group.Go(func() { _, err := pods[i].Add(confs[i]); added[i] = err == nil })
		}
		group.Wait()
		count := 0
		for i, p := range pods {
			if added[i] {
				count++
			}
			if err := p.Del(confs[i]); err != nil {
				t.Error(err)
			}
		}
		if count != 1 || strings.Contains(n.Host.Addrs(), "10.1.0.") {
			t.Fatalf("round %d: %d attachments were made; left: %s", round, count, n.Host.Addrs())
		}
	}
}

func mustAdd(t *testing.T, p *plugintest.Pod, c conf) {
	t.Helper()
	if _, err := p.Add(c); err != nil {
		t.Fatal(err)
	}
}

// An operator's rule bounds bridges and addresses.
func TestM28Rule(t *testing.T) {
	n := tenant(t, "team")
	n.Host.Bridge("br-admin")
	rival := as(n, "rival").Pod("rival")
	mustAdd(t, rival, everything().With(conf{"bridge": "br-rival", "ipam": ipam("10.9.0.2/24")}))
	n.Limits.Bridges, n.Limits.OwnBridges = []string{"br-lab*"}, true
	n.Limits.Prefixes = []netip.Prefix{
		netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("8.8.8.0/24"),
	}
	p := n.Pod("c")
	before := nodeState(t, n)
	for name, c := range map[string]conf{
		"the administrator's": {"bridge": "br-admin", "isGateway": false, "ipam": ipam("10.1.0.2/24")},
		"another tenant's":    {"bridge": "br-rival", "isGateway": false, "ipam": ipam("10.1.0.2/24")},
		"another prefix":      {"ipam": ipam("10.2.0.2/24")},
		"a wider prefix":      {"ipam": ipam("10.1.0.2/8")},
		"no gateway":          {"isGateway": false, "ipam": ipam("10.2.0.2/24")},
	} {
		if _, err := p.Add(everything().With(c)); failure.ReasonOf(err) != failure.PolicyRefused {
			t.Errorf("%s: %v", name, err)
		}
		if after := nodeState(t, n); after != before {
			t.Errorf("%s: the node was\n%s\nand is\n%s", name, before, after)
		}
	}
	// A rule may name what is of the internet.
	for _, c := range []conf{
		{"ipam": ipam("10.1.0.2/24")}, {"bridge": "br-lab1", "ipam": ipam("8.8.8.2/25")},
	} {
		c = everything().With(c)
		mustAdd(t, p, c)
		if err := p.Del(c); err != nil {
			t.Fatal(err)
		}
	}
}

// A pod is held to its MAC where a policy is enforced, unless the configuration says otherwise.
func TestM28SpoofCheckIsTheDefault(t *testing.T) {
	n := tenant(t, "team")
	p := n.Pod("c")
	for _, c := range []struct {
		limits *attachment.Limits
		value  any
		checks bool
	}{
		{nil, nil, false},
		{nil, true, true},
		{&attachment.Limits{Namespace: "team"}, nil, false},
		{&attachment.Limits{Namespace: "team", SpoofCheck: true}, nil, true},
		{&attachment.Limits{Namespace: "team", SpoofCheck: true}, true, true},
		{&attachment.Limits{Namespace: "team", SpoofCheck: true}, false, false},
	} {
		n.Limits = c.limits
		config := conf{"type": "bridge", "bridge": "br0", "ipam": ipam("10.1.0.2/24")}
		if c.value != nil {
			config["macspoofchk"] = c.value
		}
		mustAdd(t, p, config)
		if checks := strings.Contains(rules(t, n.Host), "ether saddr != "); checks != c.checks {
			t.Errorf("limits %+v, macspoofchk %v: checks %t\n%s",
				c.limits, c.value, checks, rules(t, n.Host))
		}
		if err := p.Check(config); err != nil {
			t.Error(err)
		}
		if c.checks {
			if _, err := command(t, n.Host, "nft", "flush", "ruleset"); err != nil {
				t.Fatal(err)
			}
			if p.Check(config) == nil {
				t.Errorf("limits %+v, macspoofchk %v: CHECK misses no rules", c.limits, c.value)
			}
		}
		if err := p.Del(config); err != nil {
			t.Fatal(err)
		}
	}
}
