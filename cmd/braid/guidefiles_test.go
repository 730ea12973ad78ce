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

// guideFiles installs the guide's policy, its NICs and the NADs of its files, as they are but
// for the paths of logs and leases, and returns the pods of these files by name.
func (h *host) guideFiles(files ...string) map[string]*pod {
	h.t.Helper()
	h.node.Veth("ens224", h.wire, "wire224")
	h.node.Veth("ens256", h.wire, "wire256")
	read := func(name string) []byte {
		h.t.Helper()
		text, err := os.ReadFile(filepath.Join("../../conf/gke", name))
		if err != nil {
			h.t.Fatal(err)
		}
		return text
	}
	var profile struct {
		Plugins []struct{ Braid map[string]any }
	}
	if err := json.Unmarshal(read("00-braid.conflist"), &profile); err != nil {
		h.t.Fatal(err)
	}
	h.setBraid("policy", profile.Plugins[0].Braid["policy"])
	pods := map[string]*pod{}
	for _, file := range files {
		text := strings.NewReplacer("/var/log/whereabouts.log", h.varLog("whereabouts.log"),
			`{"type": "host-local",`, `{"type": "host-local", "dataDir": "`+h.path("leases")+`",`).
			Replace(string(read(file)))
		if !hasNFTables() {
			text = withoutNFTables.Replace(text)
		}
		for document := range strings.SplitSeq(text, "\n---\n") {
			var o guideObject
			if err := yaml.Unmarshal([]byte(document), &o); err != nil {
				h.t.Fatal(err)
			}
			switch o.Kind {
			case nadv1.Kind:
				h.nad(o.Metadata.Name, o.Spec.Config, nadv1.NodeSelectorAnnotation,
					o.Metadata.Annotations[nadv1.NodeSelectorAnnotation])
			case "Pod":
				name := strings.TrimPrefix(o.Metadata.Namespace+"/"+o.Metadata.Name, "default/")
				pods[o.Metadata.Name] = h.pod(name, o.Metadata.Annotations[nadv1.NetworksAnnotation])
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
	h := newHost(t)
	pods := h.guideFiles("gke-network-1.yaml", "gke-network-1-static.yaml", "node-pool.yaml",
		"routes.yaml", "plugins.yaml", "pods.yaml")
	h.label("{cloud.google.com/gke-nodepool: sample-pool}")
	eth0 := func(p *pod) []string {
		return []string{
			"10.1.0.0/16 dev eth0 proto kernel scope link src " + h.address(p, "eth0"),
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
	h.add(first)
	same(t, "the first pod's address", h.address(first, "net1"), "21.0.111.1")
	sourceBased(first, "21.0.111.1")
	three, other := pods["sample-pod-three"], pods["sample-pod-json"]
	h.add(three)
	h.add(other)
	h.has(three, "eth0", "net1", "net2", "net3")
	h.has(other, "data0", "eth0", "net2")
	reachFrom(t, first, "21.0.111.1", h.address(three, "net1"), three)
	reachFrom(t, first, "21.0.111.1", h.address(other, "data0"), other)
	h.must("DEL", first)

	twin := pods["sample-pod-static"]
	h.add(twin)
	sourceBased(twin, "21.0.111.1")
	for _, name := range []string{"sample-pod-routes-static", "sample-pod-routes-whereabouts"} {
		p := pods[name]
		h.add(p)
		same(t, name, table(p, 4, "main"), []string{
			"10.1.0.0/16 dev eth0 proto kernel scope link src " + h.address(p, "eth0"),
			"172.31.0.0/16 via 21.0.111.254 dev net1",
			"21.0.104.0/21 dev net1 proto kernel scope link src " + h.address(p, "net1"),
			"default via 10.1.0.1 dev eth0",
		})
		h.must("DEL", p)
	}
	for _, p := range []*pod{three, other, twin} {
		h.must("DEL", p)
	}
	h.guidePlugins(pods["sample-pod-plugins"])
	h.guideClean(first, three, other, twin)
}

// TestU14GuidePluginsFile: the pod of plugins.yaml, which needs no ipvlan.
func TestU14GuidePluginsFile(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.guidePlugins(h.guideFiles("plugins.yaml")["sample-pod-plugins"])
	h.guideClean()
}

// guidePlugins attaches the pod of plugins.yaml, and removes it: macvlan; a bridge that is a
// gateway and hides the pod's address, a sysctl of tuning, a port of the node; leases of
// host-local.
func (h *host) guidePlugins(p *pod) {
	h.t.Helper()
	h.add(p)
	h.has(p, "eth0", "net1", "net2")
	eth0, net1, net2 := h.address(p, "eth0"), h.address(p, "net1"), h.address(p, "net2")
	same(h.t, "leases", h.leases(),
		[]string{"gke-bridge/" + net2, "gke-macvlan/" + net1, "pods/" + eth0})
	same(h.t, "ip route", table(p, 4, "main"), []string{
		"10.1.0.0/16 dev eth0 proto kernel scope link src " + eth0,
		"172.16.65.0/24 dev net1 proto kernel scope link src " + net1,
		"172.16.66.0/24 dev net2 proto kernel scope link src " + net2,
		"default via 10.1.0.1 dev eth0",
	})
	if links := p.Links(); !strings.Contains(links, "link net1 macvlan ") ||
		!strings.Contains(links, "link net2 veth ") {
		h.t.Errorf("links are\n%s", links)
	}
	if snapshot := h.node.Snapshot(); !strings.Contains(snapshot, "172.16.66.1/24") {
		h.t.Errorf("the bridge is no gateway:\n%s", snapshot)
	}
	same(h.t, "arp_filter", sysctl(h.t, p, "net/ipv4/conf/net2/arp_filter"), "1")
	h.filters(hasNFTables(), "18081", net2, "braid_masquerade")
	h.must("CHECK", p)
	h.must("DEL", p)
	h.filters(false, "18081", net2)
	h.has(p)
	same(h.t, "leases after DEL", h.leases(), nil)
	h.bridgeGone("gkebr0")
}

// filters fails the test unless the node's packet filter has all words, or none of them.
func (h *host) filters(want bool, words ...string) {
	h.t.Helper()
	if !hasNFTables() && !want {
		return
	}
	rules := h.nft()
	for _, word := range words {
		if strings.Contains(rules, word) != want {
			h.t.Errorf("that %q is in the packet filter is %v:\n%s", word, !want, rules)
		}
	}
}

// guideClean takes the NICs of guideFiles away, and sees that nothing else is left.
func (h *host) guideClean(pods ...*pod) {
	h.t.Helper()
	for _, nic := range []string{"ens224", "ens256"} {
		if err := h.node.Netlink().LinkDel(h.node.Link(nic)); err != nil {
			h.t.Fatal(err)
		}
	}
	h.clean(pods...)
}
