package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/nettest"
)

// guideObject is as much of an object of conf/gke as tests need.
type guideObject struct {
	Kind     string
	Metadata struct {
		Name, Namespace string

		Annotations map[string]string
	}
	Spec struct{ Config string }
}

// guideFiles gives the node the guide's policy, its NICs and the NADs of its files, as they are but
// for the paths of logs and leases, and returns the pods of these files by name.
func (r *rig) guideFiles(files ...string) map[string]*pod {
	r.t.Helper()
	r.node.Veth("ens224", r.wire, "wire224")
	r.node.Veth("ens256", r.wire, "wire256")
	read := func(name string) []byte {
		r.t.Helper()
		text, err := os.ReadFile(filepath.Join("../../conf/gke", name))
		if err != nil {
			r.t.Fatal(err)
		}
		return text
	}
	var profile struct {
		Plugins []struct{ Braid map[string]any }
	}
	if err := json.Unmarshal(read("00-braid.conflist"), &profile); err != nil {
		r.t.Fatal(err)
	}
	r.setBraid("policy", profile.Plugins[0].Braid["policy"])
	pods := map[string]*pod{}
	for _, file := range files {
		text := strings.NewReplacer("/var/log/whereabouts.log", r.varLog("whereabouts.log"),
			`{"type": "host-local",`, `{"type": "host-local", "dataDir": "`+r.path("leases")+`",`).
			Replace(string(read(file)))
		if !hasNFTables() {
			text = withoutNFTables.Replace(text)
		}
		for document := range strings.SplitSeq(text, "\n---\n") {
			var o guideObject
			if err := yaml.Unmarshal([]byte(document), &o); err != nil {
				r.t.Fatal(err)
			}
			switch o.Kind {
			case nadv1.Kind:
				r.nad(o.Metadata.Name, o.Spec.Config, nadv1.NodeSelectorAnnotation,
					o.Metadata.Annotations[nadv1.NodeSelectorAnnotation])
			case "Pod":
				name := strings.TrimPrefix(o.Metadata.Namespace+"/"+o.Metadata.Name, "default/")
				pods[o.Metadata.Name] = r.pod(name, o.Metadata.Annotations[nadv1.NetworksAnnotation])
			}
		}
	}
	return pods
}

// hasNFTables reports whether the kernel filters packets of IP with nftables. Debian's user-mode
// kernel does not.
func hasNFTables() bool { return os.Getenv(nettest.UML) != "1" }

// withoutNFTables takes out of the guide's files what needs it.
var withoutNFTables = strings.NewReplacer(`"ipMasq": true,`, "",
	`,
        {"type": "portmap", "capabilities": {"portMappings": true}}`, "",
	`, "portMappings": [{"hostPort": 18081, "containerPort": 80}]`, "")

// TestU16GuideFilesWithIPvlan: the files of the guide as they are, with ipvlan, and what the guide
// prints of their pods.
func TestU16GuideFilesWithIPvlan(t *testing.T) {
	nettest.NeedsLink(t, "ipvlan")
	t.Parallel()
	r := newRig(t)
	pods := r.guideFiles("gke-network-1.yaml", "gke-network-1-static.yaml", "node-pool.yaml",
		"routes.yaml", "plugins.yaml", "pods.yaml")
	r.label("{cloud.google.com/gke-nodepool: sample-pool}")
	eth0 := func(p *pod) []string {
		return []string{
			"10.1.0.0/16 dev eth0 proto kernel scope link src " + r.address(p, "eth0"),
			"default via 10.1.0.1 dev eth0",
		}
	}
	sourceBased := func(p *pod, address string) {
		t.Helper()
		same(t, p.name+": ip route", table(p, 4, "main"), eth0(p))
		same(t, p.name+": ip route list table 100", table(p, 4, "100"), []string{
			"21.0.104.0/21 dev net1 proto kernel scope link src " + address,
			"default via 21.0.111.254 dev net1",
		})
		if !strings.Contains(p.Links(), "link net1 ipvlan ") {
			t.Errorf("%s: links are\n%s", p.name, p.Links())
		}
	}
	first := pods["sample-pod"]
	r.add(first)
	same(t, "the first pod's address", r.address(first, "net1"), "21.0.111.1")
	sourceBased(first, "21.0.111.1")
	three, other := pods["sample-pod-three"], pods["sample-pod-json"]
	r.add(three)
	r.add(other)
	r.has(three, "eth0", "net1", "net2", "net3")
	r.has(other, "data0", "eth0", "net2")
	reachFrom(t, first, "21.0.111.1", r.address(three, "net1"), three)
	reachFrom(t, first, "21.0.111.1", r.address(other, "data0"), other)
	r.must("DEL", first)

	twin := pods["sample-pod-static"]
	r.add(twin)
	sourceBased(twin, "21.0.111.1")
	for _, name := range []string{"sample-pod-routes-static", "sample-pod-routes-whereabouts"} {
		p := pods[name]
		r.add(p)
		same(t, name, table(p, 4, "main"), []string{
			"10.1.0.0/16 dev eth0 proto kernel scope link src " + r.address(p, "eth0"),
			"172.31.0.0/16 via 21.0.111.254 dev net1",
			"21.0.104.0/21 dev net1 proto kernel scope link src " + r.address(p, "net1"),
			"default via 10.1.0.1 dev eth0",
		})
		r.must("DEL", p)
	}
	for _, p := range []*pod{three, other, twin} {
		r.must("DEL", p)
	}
	r.guidePlugins(pods["sample-pod-plugins"])
	r.guideClean(first, three, other, twin)
}

// TestU14GuidePluginsFile: the pod of plugins.yaml, which needs no ipvlan.
func TestU14GuidePluginsFile(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.guidePlugins(r.guideFiles("plugins.yaml")["sample-pod-plugins"])
	r.guideClean()
}

// guidePlugins attaches the pod of plugins.yaml, and removes it: macvlan; a bridge that is a
// gateway and hides the pod's address, a sysctl of tuning, a port of the node; leases of
// host-local.
func (r *rig) guidePlugins(p *pod) {
	r.t.Helper()
	r.add(p)
	r.has(p, "eth0", "net1", "net2")
	eth0, net1, net2 := r.address(p, "eth0"), r.address(p, "net1"), r.address(p, "net2")
	same(r.t, "leases", r.leases(),
		[]string{"gke-bridge/" + net2, "gke-macvlan/" + net1, "pods/" + eth0})
	same(r.t, "ip route", table(p, 4, "main"), []string{
		"10.1.0.0/16 dev eth0 proto kernel scope link src " + eth0,
		"172.16.65.0/24 dev net1 proto kernel scope link src " + net1,
		"172.16.66.0/24 dev net2 proto kernel scope link src " + net2,
		"default via 10.1.0.1 dev eth0",
	})
	if links := p.Links(); !strings.Contains(links, "link net1 macvlan ") ||
		!strings.Contains(links, "link net2 veth ") {
		r.t.Errorf("links are\n%s", links)
	}
	if snapshot := r.node.Snapshot(); !strings.Contains(snapshot, "172.16.66.1/24") {
		r.t.Errorf("the bridge is no gateway:\n%s", snapshot)
	}
	same(r.t, "arp_filter", sysctl(r.t, p, "net/ipv4/conf/net2/arp_filter"), "1")
	r.filters(hasNFTables(), "18081", net2, "braid_masquerade")
	r.must("CHECK", p)
	r.must("DEL", p)
	r.filters(false, "18081", net2)
	r.has(p)
	same(r.t, "leases after DEL", r.leases(), nil)
	r.bridgeGone("gkebr0")
}

// filters fails the test unless the node's packet filter has all words, or none of them.
func (r *rig) filters(want bool, words ...string) {
	r.t.Helper()
	if !hasNFTables() && !want {
		return
	}
	rules := r.nft()
	for _, word := range words {
		if strings.Contains(rules, word) != want {
			r.t.Errorf("that %q is in the packet filter is %v:\n%s", word, !want, rules)
		}
	}
}

// guideClean takes the NICs of guideFiles away, and sees that nothing else is left.
func (r *rig) guideClean(pods ...*pod) {
	r.t.Helper()
	for _, nic := range []string{"ens224", "ens256"} {
		if err := r.node.Netlink().LinkDel(r.node.Link(nic)); err != nil {
			r.t.Fatal(err)
		}
	}
	r.clean(pods...)
}
