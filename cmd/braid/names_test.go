package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/cmd/internal/node"
	"github.com/braid-cni/braid/pkg/policy"
)

// tenants makes namespaces that have the tenant's label, whose networks may be on the NIC.
func (h *host) tenants(namespaces ...string) {
	h.t.Helper()
	for _, n := range namespaces {
		h.labelled(n, true)
	}
	h.allow(map[string]any{"namespaces": namespaces, "masters": []string{nic}})
}

// labelled makes a namespace, with the tenant's label or without it, and has time pass in which the
// node may not know of that yet.
func (h *host) labelled(namespace string, tenant bool) {
	h.t.Helper()
	label := ""
	if tenant {
		label = fmt.Sprintf(`,"labels":{%q:""}`, policy.TenantLabel)
	}
	var passed time.Duration
	for _, e := range h.env {
		if text, ok := strings.CutPrefix(e, later+"="); ok {
			passed, _ = time.ParseDuration(text)
		}
	}
	h.env = []string{later + "=" + (passed + 2*node.LabelAge).String()}
	h.write("manifests/Namespace-"+namespace+".yaml",
		fmt.Sprintf(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":%q%s}}`, namespace, label))
}

// named is a macvlan network of that name with so many host-local addresses of 10.<net>.0.0/24.
func (h *host) named(name string, net, last int, extra string) string {
	return fmt.Sprintf(`{"cniVersion":"1.1.0","name":%q,"type":"macvlan","master":%q%s,
		"ipam":{"type":"host-local","dataDir":%q,"subnet":"10.%d.0.0/24","rangeStart":"10.%d.0.2","rangeEnd":"10.%d.0.%d"}}`,
		name, nic, extra, h.path("leases"), net, net, net, last)
}

// TestM30NamedAsAnothers: a tenant's network that is named as another's, as the default network or
// as a directory of somebody else takes and frees no lease of that.
func TestM30NamedAsAnothers(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.tenants("a", "b")
	// Three addresses. The other tenant has one of them.
	h.nad("b/lan", h.named("lan", 12, 4, ""))
	theirs := h.pod("b/theirs", "lan")
	h.add(theirs)
	// What a reference plugin of another runtime holds.
	foreign := h.path("leases", "podman")
	if err := os.MkdirAll(foreign, 0o700); err != nil {
		t.Fatal(err)
	}
	h.write("leases/podman/10.12.0.99", "0123\r\neth0")
	before := h.leases()
	for i, name := range []string{"lan", "b.lan", "pods", "podman"} {
		h.nad("a/"+fmt.Sprint("n", i), h.named(name, 12, 4, ""))
		var pods []*pod
		for j := range 3 { // all that there is of its range
			p := h.pod(fmt.Sprintf("a/%d-%d", i, j), fmt.Sprint("n", i))
			h.add(p)
			pods = append(pods, p)
		}
		full := h.pod(fmt.Sprintf("a/%d-full", i), fmt.Sprint("n", i))
		h.fails("ADD", full, types.ErrInternal, "10.12.0.2")
		own := slices.DeleteFunc(h.leases(), func(l string) bool {
			return slices.Contains(before, l) || strings.HasPrefix(l, "pods/")
		})
		same(t, "leases of "+name, own,
			[]string{"a." + name + "/10.12.0.2", "a." + name + "/10.12.0.3", "a." + name + "/10.12.0.4"})
		// The runtime lost one of them, and knows nothing of the foreign one.
		pods[0].Unmount()
		h.valid(theirs, pods[1], pods[2])
		h.must("GC", nil)
		h.must("CHECK", theirs)
		h.must("CHECK", pods[1])
		for _, p := range pods {
			h.must("DEL", p)
		}
		same(t, "leases behind "+name, h.leases(), before)
	}
	h.nad("b/next", h.named("lan", 12, 4, ""))
	h.add(h.pod("b/next", "next")) // two networks of one namespace share what they did
	if got := h.leases(); !slices.Contains(got, "b.lan/10.12.0.3") {
		t.Errorf("leases: %q", got)
	}
	for _, s := range h.status(theirs) {
		if s.Interface == "net1" && s.Name != "b/lan" {
			t.Errorf("network-status names %q", s.Name)
		}
	}
}

// TestM30NamesWithDots: namespaces a and a.b cannot be mixed up, as a namespace has no dot; a name
// that looks like another namespace's own is refused where the policy is not enforced for its
// writer.
func TestM30NamesWithDots(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.tenants("a", "a-b")
	h.nad("a/one", h.named("b.c", 12, 9, ""))
	h.nad("a-b/two", h.named("c", 12, 9, ""))
	one, two := h.pod("a/one", "one"), h.pod("a-b/two", "two")
	h.add(one)
	h.add(two)
	same(t, "leases", slices.DeleteFunc(h.leases(), func(l string) bool {
		return strings.HasPrefix(l, "pods/")
	}),
		[]string{"a-b.c/10.12.0.2", "a.b.c/10.12.0.2"})
	h.labelled("free", false)
	for key, config := range map[string]string{
		"name": h.named("a.b.c", 12, 9, ""),
		"ipam.network_name": `{"cniVersion":"1.0.0","plugins":[` +
			h.whereabouts("macvlan", `"range":"10.20.0.0/24","network_name":"a.x"`, "") + `]}`,
	} {
		name := "free/" + strings.ReplaceAll(strings.ToLower(key), "_", "-")
		h.nad(name, config)
		p := h.pod(name, name)
		h.fails("ADD", p, types.ErrInvalidNetworkConfig, key, "namespace a,", `{"namespaces": ["free"]`,
			`"names": ["a.`)
		h.must("DEL", p)
	}
	h.nad("free/dots", h.named("net.1", 12, 9, "")) // no namespace
	h.add(h.pod("free/dots", "dots"))
	h.must("CHECK", one)
	h.must("CHECK", two)
}

// TestM30JoinsByRule: an operator's rule lets a tenant share leases, and a space.
func TestM30JoinsByRule(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.tenants("a", "b")
	braid := h.conf["braid"].(map[string]any)
	rules := braid["policy"].([]map[string]any)
	joins := maps.Clone(rules[0])
	joins["namespaces"], joins["names"] = []string{"a"}, []string{"b.lan", "all-*"}
	rules[0]["namespaces"] = []string{"b"}
	h.allow(joins, rules[0])
	h.nad("b/lan", h.named("lan", 12, 9, ""))
	h.nad("a/lan", h.named("b.lan", 12, 9, ""))
	h.nad("a/cluster", `{"cniVersion":"1.0.0","plugins":[`+
		h.whereabouts("macvlan", `"range":"10.20.0.0/24","network_name":"all-of-us"`, "")+`]}`)
	h.add(h.pod("b/first", "lan"))
	h.add(h.pod("a/second", "lan"))
	h.add(h.pod("a/third", "cluster"))
	got := h.leases()
	if !slices.Contains(got, "b.lan/10.12.0.2") || !slices.Contains(got, "b.lan/10.12.0.3") {
		t.Errorf("leases: %q", got)
	}
	if b := h.blocks(); len(b) != 1 || b[0].Spec.Space != "all-of-us" {
		t.Errorf("blocks: %+v", b)
	}
}

// TestM30LabelLater: pods that were made before their namespace was labelled keep their addresses,
// which nobody else gets; their DEL frees them, and then the old name is forgotten. So it is when
// the label goes again.
func TestM30LabelLater(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, ipam string }{
		{"host-local", `{"type":"host-local","dataDir":"%s","subnet":"10.12.0.0/24",` +
			`"rangeStart":"10.12.0.2","rangeEnd":"10.12.0.7"}`},
		{"one block", `{"type":"whereabouts","range":"10.12.0.0/28","range_end":"10.12.0.6"}%.0s`},
		{"blocks", `{"type":"whereabouts","range":"10.12.0.0/24"}%.0s`},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := newHost(t)
			h.nodes(1)
			h.setBraid("policy", []any{
				map[string]any{"namespaces": []string{"other"}, "masters": []string{nic}},
			})
			h.nad("team/lan", fmt.Sprintf(`{"cniVersion":"1.1.0","type":"bridge","bridge":"br-team","ipam":`+
				test.ipam+`}`, h.path("leases")))
			by := map[string]string{}
			var old, young []*pod
			add := func(name string, list *[]*pod) {
				t.Helper()
				p := h.pod("team/"+name, "lan")
				h.add(p)
				if a := h.address(p, "net1"); by[a] != "" {
					t.Errorf("%s is that of %s and of %s", a, by[a], name)
				} else {
					by[a] = name
				}
				*list = append(*list, p)
			}
			h.labelled("team", false)
			add("old0", &old)
			add("old1", &old)
			h.labelled("team", true)
			add("young0", &young)
			add("young1", &young)
			h.labelled("team", false)
			add("old2", &old)
			for _, p := range append(slices.Clone(old), young...) {
				h.must("CHECK", p)
			}
			h.labelled("team", true)
			h.valid(append(slices.Clone(old), young...)...)
			h.must("GC", nil)
			for _, p := range append(slices.Clone(old), young...) {
				h.must("CHECK", p)
			}
			for _, p := range old {
				h.must("DEL", p)
			}
			clear(by)
			for _, p := range young {
				by[h.address(p, "net1")] = p.name
			}
			h.env = []string{later + "=1h"}
			h.must("CHECK", young[0]) // frees what is idle
			add("young2", &young)
			add("young3", &young)
			if _, err := os.Stat(h.path("leases", "lan")); err == nil {
				t.Error("the directory of the old name is there yet")
			}
			for _, b := range h.blocks() {
				if b.Spec.Space == "default" {
					t.Errorf("block of the old space: %+v", b.Spec)
				}
			}
			for _, p := range young {
				h.must("DEL", p)
			}
			same(t, "left", slices.DeleteFunc(h.left(), func(l string) bool {
				return strings.Contains(l, "br-team")
			}), []string(nil))
		})
	}
}

// TestM30LostRecord: a DEL without a record frees the leases of a tenant's pod, whichever name they
// are kept by.
func TestM30LostRecord(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("team/lan", h.named("lan", 12, 9, ""))
	h.allow(map[string]any{"namespaces": []string{"other"}})
	var pods []*pod
	for i, tenant := range []bool{false, true} {
		h.labelled("team", tenant)
		if tenant {
			h.tenants("team")
		}
		p := h.pod("team/"+fmt.Sprint("p", i), "lan")
		h.add(p)
		pods = append(pods, p)
	}
	for _, dir := range []string{"state/sandboxes", "state/cni"} {
		if err := os.RemoveAll(h.path(dir)); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range pods {
		h.must("DEL", p)
	}
	same(t, "leases", h.leases(), []string(nil))
}

// TestM30RangesAndTheirBlocks: a network with more ranges than a tenant may have takes no block,
// and one that fails at its last range frees those of the others.
func TestM30RangesAndTheirBlocks(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nodes(1)
	h.tenants("a")
	ranges := func(n int, last string) string {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf(`{"range":"10.20.%d.0/24"}`, i))
		}
		all = append(all, last)
		return `{"cniVersion":"1.0.0","plugins":[` +
			h.whereabouts("macvlan", `"ipRanges":[`+strings.Join(all, ",")+`]`, "") + `]}`
	}
	h.nad("a/many", ranges(254, `{"range":"10.21.0.0/24"}`))
	p := h.pod("a/many", "many")
	h.fails("ADD", p, types.ErrInvalidNetworkConfig, "255 ranges", `"ranges": 255`)
	h.must("DEL", p)
	if b := h.owners(); b != "" {
		t.Errorf("blocks of what was refused: %s", b)
	}
	h.nad("a/full", ranges(3, `{"range":"10.21.0.0/30"}`)) // two addresses
	one, two := h.pod("a/one", "full"), h.pod("a/two", "full")
	h.add(one)
	h.add(two)
	three := h.pod("a/three", "full")
	h.fails("ADD", three, types.ErrTryAgainLater, "10.21.0.0/30")
	for _, p := range []*pod{one, two, three} {
		h.must("DEL", p)
	}
	h.after("1h", "CHECK", h.lone("bystander"))
	if b := h.owners(); b != "" {
		t.Errorf("blocks of finished pods: %s", b)
	}
}

// lone is a pod of the default network alone.
func (h *host) lone(name string) *pod {
	h.t.Helper()
	p := h.pod(name, "")
	h.add(p)
	return p
}

// TestM30Quota: the networks of a namespace have no more addresses on a node than a rule allows.
func TestM30Quota(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.allow(map[string]any{"namespaces": []string{"a"}, "masters": []string{nic}, "addresses": 3})
	h.nad("a/lan", h.named("lan", 12, 99, ""))
	h.nad("a/bare", fmt.Sprintf(`{"cniVersion":"1.0.0","type":"macvlan","master":%q}`, nic))
	two, one := h.pod("a/two", "lan,lan"), h.pod("a/one", "lan")
	h.add(two)
	many := h.pod("a/many", "lan,lan")
	h.fails("ADD", many, types.ErrInvalidNetworkConfig, "4 addresses", "the limit is 3",
		`have in policy[0]: "addresses": 4`)
	h.must("DEL", many)
	h.add(one)
	four := h.pod("a/four", "lan")
	h.fails("ADD", four, types.ErrInvalidNetworkConfig, "a/lan", "4 addresses")
	h.add(h.pod("a/bare", "bare")) // asks for none
	h.add(h.pod("default-network", ""))
	h.must("DEL", one)
	h.add(four)
	same(t, "leases", len(h.leases()), 7)
	if got := h.left(); slices.ContainsFunc(got, func(l string) bool {
		return strings.Contains(l, "id-many")
	}) {
		t.Errorf("left of what was refused: %q", got)
	}
}

// TestM30RulesOfAnothers: the GC of a tenant's network that is named as one whose plugins were
// called by their own names leaves the ports, the kept parameters and the results of that one's
// pods alone.
func TestM30RulesOfAnothers(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.labelled("team", false)
	chain := fmt.Sprintf(`{"cniVersion":"1.1.0","name":"pods","plugins":[
			{"type":"bridge","bridge":"br-team","ipam":{"type":"host-local","dataDir":%q,"subnet":"10.12.0.0/24"}},
			{"type":"tuning","mtu":1400},{"type":"portmap","capabilities":{"portMappings":true}}]}`, h.path("leases"))
	h.nad("team/lan", chain)
	theirs := h.lone("theirs") // of the network "pods", too
	p := h.pod("team/p", `[{"name":"lan","portMappings":[{"hostPort":8080,"containerPort":80}]}]`)
	h.add(p)
	before := h.node.Snapshot()
	h.valid(theirs, p)
	h.must("GC", nil)
	h.must("CHECK", theirs)
	h.must("CHECK", p)
	same(t, "node", h.node.Snapshot(), before)
	for _, dir := range []string{"state/cni/results"} {
		entries, err := filepath.Glob(h.path(dir, "pods-*"))
		if err != nil || len(entries) != 3 {
			t.Errorf("results: %q, %v", entries, err)
		}
	}
	p.Unmount()
	h.valid(theirs)
	h.must("GC", nil)
	h.must("CHECK", theirs)
	same(t, "leases", h.leases(), []string{"pods/10.1.0.2"})
}
