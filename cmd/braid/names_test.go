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
func (r *rig) tenants(namespaces ...string) {
	r.t.Helper()
	for _, n := range namespaces {
		r.labelled(n, true)
	}
	r.allow(map[string]any{"namespaces": namespaces, "masters": []string{nic}})
}

// labelled makes a namespace, with the tenant's label or without it, and has time pass in which the
// node may not know of that yet.
func (r *rig) labelled(namespace string, tenant bool) {
	r.t.Helper()
	label := ""
	if tenant {
		label = fmt.Sprintf(`,"labels":{%q:""}`, policy.TenantLabel)
	}
	var passed time.Duration
	for _, e := range r.env {
		if text, ok := strings.CutPrefix(e, later+"="); ok {
			passed, _ = time.ParseDuration(text)
		}
	}
	r.env = []string{later + "=" + (passed + 2*node.LabelAge).String()}
	r.write("manifests/Namespace-"+namespace+".yaml",
		fmt.Sprintf(`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":%q%s}}`, namespace, label))
}

// named is a macvlan network of that name with so many host-local addresses of 10.<net>.0.0/24.
func (r *rig) named(name string, net, last int, extra string) string {
	return fmt.Sprintf(`{"cniVersion":"1.1.0","name":%q,"type":"macvlan","master":%q%s,
		"ipam":{"type":"host-local","dataDir":%q,"subnet":"10.%d.0.0/24","rangeStart":"10.%d.0.2","rangeEnd":"10.%d.0.%d"}}`,
		name, nic, extra, r.path("leases"), net, net, net, last)
}

// TestM30NamedAsAnothers: a tenant's network that is named as another's, as the default network or
// as a directory of somebody else takes and frees no lease of that.
func TestM30NamedAsAnothers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.tenants("a", "b")
	// Three addresses, of which the other tenant has one.
	r.nad("b/lan", r.named("lan", 12, 4, ""))
	theirs := r.pod("b/theirs", "lan")
	r.add(theirs)
	// What a reference plugin of another runtime holds.
	foreign := r.path("leases", "podman")
	if err := os.MkdirAll(foreign, 0o700); err != nil {
		t.Fatal(err)
	}
	r.write("leases/podman/10.12.0.99", "0123\r\neth0")
	before := r.leases()
	for i, name := range []string{"lan", "b.lan", "pods", "podman"} {
		r.nad("a/"+fmt.Sprint("n", i), r.named(name, 12, 4, ""))
		var pods []*pod
		for j := range 3 { // all that there is of its range
			p := r.pod(fmt.Sprintf("a/%d-%d", i, j), fmt.Sprint("n", i))
			r.add(p)
			pods = append(pods, p)
		}
		full := r.pod(fmt.Sprintf("a/%d-full", i), fmt.Sprint("n", i))
		r.fails("ADD", full, types.ErrInternal, "10.12.0.2")
		own := slices.DeleteFunc(r.leases(), func(l string) bool {
			return slices.Contains(before, l) || strings.HasPrefix(l, "pods/")
		})
		same(t, "leases of "+name, own,
			[]string{"a." + name + "/10.12.0.2", "a." + name + "/10.12.0.3", "a." + name + "/10.12.0.4"})
		// The runtime lost one of them, and knows nothing of the foreign one.
		pods[0].Unmount()
		r.valid(theirs, pods[1], pods[2])
		r.must("GC", nil)
		r.must("CHECK", theirs)
		r.must("CHECK", pods[1])
		for _, p := range pods {
			r.must("DEL", p)
		}
		same(t, "leases behind "+name, r.leases(), before)
	}
	r.nad("b/next", r.named("lan", 12, 4, ""))
	r.add(r.pod("b/next", "next")) // two networks of one namespace share what they did
	if got := r.leases(); !slices.Contains(got, "b.lan/10.12.0.3") {
		t.Errorf("leases: %q", got)
	}
	for _, s := range r.status(theirs) {
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
	r := newRig(t)
	r.tenants("a", "a-b")
	r.nad("a/one", r.named("b.c", 12, 9, ""))
	r.nad("a-b/two", r.named("c", 12, 9, ""))
	one, two := r.pod("a/one", "one"), r.pod("a-b/two", "two")
	r.add(one)
	r.add(two)
	same(t, "leases", slices.DeleteFunc(r.leases(), func(l string) bool {
		return strings.HasPrefix(l, "pods/")
	}),
		[]string{"a-b.c/10.12.0.2", "a.b.c/10.12.0.2"})
	r.labelled("free", false)
	for key, config := range map[string]string{
		"name": r.named("a.b.c", 12, 9, ""),
		"ipam.network_name": `{"cniVersion":"1.0.0","plugins":[` +
			r.whereabouts("macvlan", `"range":"10.20.0.0/24","network_name":"a.x"`, "") + `]}`,
	} {
		name := "free/" + strings.ReplaceAll(strings.ToLower(key), "_", "-")
		r.nad(name, config)
		p := r.pod(name, name)
		r.fails("ADD", p, types.ErrInvalidNetworkConfig, key, "namespace a,", `{"namespaces": ["free"]`,
			`"names": ["a.`)
		r.must("DEL", p)
	}
	r.nad("free/dots", r.named("net.1", 12, 9, "")) // no namespace
	r.add(r.pod("free/dots", "dots"))
	r.must("CHECK", one)
	r.must("CHECK", two)
}

// TestM30JoinsByRule: an operator's rule lets a tenant share leases, and a space.
func TestM30JoinsByRule(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.tenants("a", "b")
	braid := r.conf["braid"].(map[string]any)
	rules := braid["policy"].([]map[string]any)
	joins := maps.Clone(rules[0])
	joins["namespaces"], joins["names"] = []string{"a"}, []string{"b.lan", "all-*"}
	rules[0]["namespaces"] = []string{"b"}
	r.allow(joins, rules[0])
	r.nad("b/lan", r.named("lan", 12, 9, ""))
	r.nad("a/lan", r.named("b.lan", 12, 9, ""))
	r.nad("a/cluster", `{"cniVersion":"1.0.0","plugins":[`+
		r.whereabouts("macvlan", `"range":"10.20.0.0/24","network_name":"all-of-us"`, "")+`]}`)
	r.add(r.pod("b/first", "lan"))
	r.add(r.pod("a/second", "lan"))
	r.add(r.pod("a/third", "cluster"))
	got := r.leases()
	if !slices.Contains(got, "b.lan/10.12.0.2") || !slices.Contains(got, "b.lan/10.12.0.3") {
		t.Errorf("leases: %q", got)
	}
	if b := r.blocks(); len(b) != 1 || b[0].Spec.Space != "all-of-us" {
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
			r := newRig(t)
			r.nodes(1)
			r.setBraid("policy", []any{
				map[string]any{"namespaces": []string{"other"}, "masters": []string{nic}},
			})
			r.nad("team/lan", fmt.Sprintf(`{"cniVersion":"1.1.0","type":"bridge","bridge":"br-team","ipam":`+
				test.ipam+`}`, r.path("leases")))
			by := map[string]string{}
			var old, young []*pod
			add := func(name string, list *[]*pod) {
				t.Helper()
				p := r.pod("team/"+name, "lan")
				r.add(p)
				if a := r.address(p, "net1"); by[a] != "" {
					t.Errorf("%s is that of %s and of %s", a, by[a], name)
				} else {
					by[a] = name
				}
				*list = append(*list, p)
			}
			r.labelled("team", false)
			add("old0", &old)
			add("old1", &old)
			r.labelled("team", true)
			add("young0", &young)
			add("young1", &young)
			r.labelled("team", false)
			add("old2", &old)
			for _, p := range append(slices.Clone(old), young...) {
				r.must("CHECK", p)
			}
			r.labelled("team", true)
			r.valid(append(slices.Clone(old), young...)...)
			r.must("GC", nil)
			for _, p := range append(slices.Clone(old), young...) {
				r.must("CHECK", p)
			}
			for _, p := range old {
				r.must("DEL", p)
			}
			clear(by)
			for _, p := range young {
				by[r.address(p, "net1")] = p.name
			}
			r.env = []string{later + "=1h"}
			r.must("CHECK", young[0]) // gives back what is idle
			add("young2", &young)
			add("young3", &young)
			if _, err := os.Stat(r.path("leases", "lan")); err == nil {
				t.Error("the directory of the old name is there yet")
			}
			for _, b := range r.blocks() {
				if b.Spec.Space == "default" {
					t.Errorf("block of the old space: %+v", b.Spec)
				}
			}
			for _, p := range young {
				r.must("DEL", p)
			}
			same(t, "left", slices.DeleteFunc(r.left(), func(l string) bool {
				return strings.Contains(l, "br-team")
			}), []string(nil))
		})
	}
}

// TestM30LostRecord: a DEL without a record frees the leases of a tenant's pod, whichever name they
// are kept by.
func TestM30LostRecord(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.nad("team/lan", r.named("lan", 12, 9, ""))
	r.allow(map[string]any{"namespaces": []string{"other"}})
	var pods []*pod
	for i, tenant := range []bool{false, true} {
		r.labelled("team", tenant)
		if tenant {
			r.tenants("team")
		}
		p := r.pod("team/"+fmt.Sprint("p", i), "lan")
		r.add(p)
		pods = append(pods, p)
	}
	for _, dir := range []string{"state/sandboxes", "state/cni"} {
		if err := os.RemoveAll(r.path(dir)); err != nil {
			t.Fatal(err)
		}
	}
	for _, p := range pods {
		r.must("DEL", p)
	}
	same(t, "leases", r.leases(), []string(nil))
}

// TestM30RangesAndTheirBlocks: a network with more ranges than a tenant may have takes no block,
// and one that fails at its last range gives back those of the others.
func TestM30RangesAndTheirBlocks(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.nodes(1)
	r.tenants("a")
	ranges := func(n int, last string) string {
		var all []string
		for i := range n {
			all = append(all, fmt.Sprintf(`{"range":"10.20.%d.0/24"}`, i))
		}
		all = append(all, last)
		return `{"cniVersion":"1.0.0","plugins":[` +
			r.whereabouts("macvlan", `"ipRanges":[`+strings.Join(all, ",")+`]`, "") + `]}`
	}
	r.nad("a/many", ranges(254, `{"range":"10.21.0.0/24"}`))
	p := r.pod("a/many", "many")
	r.fails("ADD", p, types.ErrInvalidNetworkConfig, "255 ranges", `"ranges": 255`)
	r.must("DEL", p)
	if b := r.owners(); b != "" {
		t.Errorf("blocks of what was refused: %s", b)
	}
	r.nad("a/full", ranges(3, `{"range":"10.21.0.0/30"}`)) // two addresses
	one, two := r.pod("a/one", "full"), r.pod("a/two", "full")
	r.add(one)
	r.add(two)
	three := r.pod("a/three", "full")
	r.fails("ADD", three, types.ErrTryAgainLater, "10.21.0.0/30")
	for _, p := range []*pod{one, two, three} {
		r.must("DEL", p)
	}
	r.after("1h", "CHECK", r.lone("bystander"))
	if b := r.owners(); b != "" {
		t.Errorf("blocks of finished pods: %s", b)
	}
}

// lone is a pod of the default network alone.
func (r *rig) lone(name string) *pod {
	r.t.Helper()
	p := r.pod(name, "")
	r.add(p)
	return p
}

// TestM30Quota: the networks of a namespace have no more addresses on a node than a rule allows.
func TestM30Quota(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.allow(map[string]any{"namespaces": []string{"a"}, "masters": []string{nic}, "addresses": 3})
	r.nad("a/lan", r.named("lan", 12, 99, ""))
	r.nad("a/bare", fmt.Sprintf(`{"cniVersion":"1.0.0","type":"macvlan","master":%q}`, nic))
	two, one := r.pod("a/two", "lan,lan"), r.pod("a/one", "lan")
	r.add(two)
	many := r.pod("a/many", "lan,lan")
	r.fails("ADD", many, types.ErrInvalidNetworkConfig, "4 addresses", "at most 3",
		`have in policy[0]: "addresses": 4`)
	r.must("DEL", many)
	r.add(one)
	four := r.pod("a/four", "lan")
	r.fails("ADD", four, types.ErrInvalidNetworkConfig, "a/lan", "4 addresses")
	r.add(r.pod("a/bare", "bare")) // asks for none
	r.add(r.pod("default-network", ""))
	r.must("DEL", one)
	r.add(four)
	same(t, "leases", len(r.leases()), 7)
	if got := r.left(); slices.ContainsFunc(got, func(l string) bool {
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
	r := newRig(t)
	r.labelled("team", false)
	chain := fmt.Sprintf(`{"cniVersion":"1.1.0","name":"pods","plugins":[
			{"type":"bridge","bridge":"br-team","ipam":{"type":"host-local","dataDir":%q,"subnet":"10.12.0.0/24"}},
			{"type":"tuning","mtu":1400},{"type":"portmap","capabilities":{"portMappings":true}}]}`, r.path("leases"))
	r.nad("team/lan", chain)
	theirs := r.lone("theirs") // of the network "pods", too
	p := r.pod("team/p", `[{"name":"lan","portMappings":[{"hostPort":8080,"containerPort":80}]}]`)
	r.add(p)
	before := r.node.Snapshot()
	r.valid(theirs, p)
	r.must("GC", nil)
	r.must("CHECK", theirs)
	r.must("CHECK", p)
	same(t, "node", r.node.Snapshot(), before)
	for _, dir := range []string{"state/cni/results"} {
		entries, err := filepath.Glob(r.path(dir, "pods-*"))
		if err != nil || len(entries) != 3 {
			t.Errorf("results: %q, %v", entries, err)
		}
	}
	p.Unmount()
	r.valid(theirs)
	r.must("GC", nil)
	r.must("CHECK", theirs)
	same(t, "leases", r.leases(), []string{"pods/10.1.0.2"})
}
