package install_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/braid-cni/braid/e2e/lab"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

// TestU7Faults does to nodes, and to the files of an operator, what happens to them. Each part
// shows what the operator sees, what the kernel has and how pods fare, until it is mended.
func TestU7Faults(t *testing.T) {
	w := newWired(t)
	t.Run("U7 NIC renamed", func(t *testing.T) { w.with(t).renamed() })
	t.Run("U7 NIC absent", func(t *testing.T) { w.with(t).absent() })
	t.Run("U7 link bounced", func(t *testing.T) { w.with(t).bounced() })
	t.Run("U5 duplicate hostname", func(t *testing.T) { w.with(t).duplicate() })
	t.Run("U5 block too small", func(t *testing.T) { w.with(t).small() })
}

const bothNetworks = firstNetwork + "," + secondNetwork

// wired is a cluster whose nodes have the interfaces of the guide's cluster configuration, and the
// networks over them.
type wired struct {
	*world

	list   string // nodeInterfaces
	leases string // the DHCP server's file
}

// newWired has all in place. When the test has ended, the nodes are as before.
func newWired(t *testing.T) *wired {
	t.Helper()
	w := &wired{world: newWorldFor(t, 6*patience)}
	w.installed()
	leases, stop := w.serveDHCP()
	t.Cleanup(stop)
	cluster := w.guideCluster()
	w.leases, w.list = leases, w.nodeInterfaces(cluster)
	t.Cleanup(func() {
		w.interfaces("")
		w.eventually("the addresses are taken back", w.bare)
	})
	w.interfaces(w.list)
	networks, err := w.cli("gke", "render", "--networks", cluster)
	w.must(err)
	w.eventually("the networks are admitted", func() error { return w.Apply(w.ctx, onLab(networks)) })
	t.Cleanup(func() { w.delete("net-attach-def", firstNetwork, secondNetwork) })
	w.eventually("both networks are there", w.well)
	return w
}

func (w *wired) with(t *testing.T) *wired {
	t.Helper()
	return &wired{&world{w.Cluster, t, w.ctx}, w.list, w.leases}
}

// well returns an error unless all interfaces are as the cluster configuration has them.
func (w *wired) well() error {
	if err := w.leased(w.leases); err != nil {
		return err
	}
	for i, n := range w.Nodes() {
		want := []string{fmt.Sprintf("%s 172.16.20.%d/22", firstNIC, 10+i)}
		if got := w.addressesAt(n, firstNIC); !slices.Equal(got, want) {
			return fmt.Errorf("%s has %q", n.Name, got)
		}
		if got := w.addressesAt(n, secondNIC); len(got) != 1 {
			return fmt.Errorf("%s has %q", n.Name, got)
		}
	}
	return nil
}

// bare returns an error unless no node has an address on these NICs.
func (w *wired) bare() error {
	for _, n := range w.Nodes() {
		if got := w.addressesOf(n); len(got) > 0 {
			return fmt.Errorf("%s has %q", n.Name, got)
		}
	}
	return nil
}

// say waits until the nodes say that of their first network, each the beginning of "NIC ADDRESSES
// STATE MESSAGE". A CLI that says so fails.
func (w *wired) say(first, second string) {
	w.t.Helper()
	want := map[string]string{"node-1 " + firstNetwork: first, "node-2 " + firstNetwork: second}
	w.eventually(fmt.Sprintf("the nodes say %q", want), func() error {
		return w.interfacesAre(maps.Clone(want))
	})
	if _, err := w.cli("nodes", "--kubeconfig", w.admin()); err == nil {
		w.t.Error("kubectl braid nodes exits with 0")
	}
}

// asksFor makes a pod with both networks on a node, which starts or does not.
func (w *wired) asksFor(name string, n *lab.Node) {
	w.t.Helper()
	pod := lab.Pod("default", name, map[string]string{nadv1.NetworksAnnotation: bothNetworks})
	pod.Spec.NodeName = n.Name
	w.must(w.create(w.ctx, pod))
}

// noMaster waits until a pod is told that its node has not the NIC of the first network.
func (w *wired) noMaster(pod string) {
	w.t.Helper()
	w.described("pod", pod, "PluginFailed", "default/"+firstNetwork,
		fmt.Sprintf("see that this node has the master interface %q", firstNIC))
}

// mended waits until all is well again, and pods that are made then reach each other. Nobody has
// taken an address away.
func (w *wired) mended() {
	w.t.Helper()
	w.eventually("all is well again", w.well)
	w.reachOver(bothNetworks)
	out, err := w.Kubectl(w.ctx, "get", "events", "--all-namespaces",
		"--field-selector=reason=NodeInterfaceRestored", "--output=name")
	if err != nil || out != "" {
		w.t.Errorf("somebody is accused of having taken addresses away: %s, %v", out, err)
	}
}

const (
	ready1   = firstNIC + " [172.16.20.10/22] Ready"
	ready2   = firstNIC + " [172.16.20.11/22] Ready"
	absent   = "no NIC has name " + firstNIC
	isAbsent = " [] Absent " + absent + "; give the machine the NIC, or correct match in " +
		"nodeInterfaces"
	renamedTo = "ens999"
)

// renamed: a NIC under another name is not that of its network, and loses the address;
// pods that run keep their interfaces. It is the network's if its former name is one of its others.
func (w *wired) renamed() {
	n := w.Nodes()[0]
	ip := w.pair(bothNetworks)
	rename := func(commands string) error {
		_, err := n.Run(context.WithoutCancel(w.ctx), "sh", "-ec",
			strings.NewReplacer("OLD", firstNIC, "NEW", renamedTo).Replace(commands))
		return err
	}
	w.must(rename("ip link set OLD down; ip link set OLD name NEW; ip link set NEW up"))
	back := func() error {
		return rename("! [ -e /sys/class/net/NEW ] || { ip link set NEW down; " +
			"ip link property del dev NEW altname OLD || :; ip link set NEW name OLD; ip link set OLD up; }")
	}
	w.t.Cleanup(func() { w.must(back()) })
	w.say(isAbsent, ready2)
	w.described("node", n.Name, "NodeInterfaceFailed", "network "+firstNetwork+": "+absent,
		"node interfaces: "+firstNetwork+" Absent: "+absent)
	if got := w.addressesAt(n, renamedTo); len(got) > 0 {
		w.t.Errorf("the NIC still has %q", got)
	}
	w.reach(ip)
	w.asksFor("renamed", n)
	w.noMaster("renamed")

	w.must(rename("ip link property add dev NEW altname OLD"))
	w.eventually("the NIC is found by its other name", func() error {
		return w.interfacesAre(map[string]string{
			"node-1 " + firstNetwork: renamedTo + " [172.16.20.10/22] Ready",
		})
	})
	w.running("renamed")
	w.reach(ip)
	w.must(back())
	w.eventually("the NIC is back", w.well)
	w.reach(ip)
	w.gone("renamed", "gke-node-1", "gke-node-2")
	w.mended()
}

// absent: a NIC that is taken out of its node is told to be absent, also to the pod that
// starts there, which waits for it. Another one in its place has the same address.
func (w *wired) absent() {
	n := w.Nodes()[1]
	plug := w.unplug(n)
	w.say(ready1, isAbsent)
	w.described("node", n.Name, "NodeInterfaceFailed", "network "+firstNetwork+": "+absent,
		"node interfaces: "+firstNetwork+" Absent: "+absent)
	w.asksFor("absent", n)
	w.noMaster("absent")
	plug()
	w.eventually("the other NIC has the address", w.well)
	w.running("absent")
	w.gone("absent")
	w.mended()
}

// unplug takes the first NIC out of a node until plug is called, or the test has ended.
func (w *world) unplug(n *lab.Node) (plug func()) {
	w.t.Helper()
	w.must(n.Unplug(w.ctx, firstNIC))
	var once sync.Once
	plug = func() { once.Do(func() { w.must(n.Plug(w.ctx, firstNIC)) }) }
	w.t.Cleanup(plug)
	return plug
}

// bounced: without carrier addresses stay, and pods start; a NIC that is set down is set
// up again.
func (w *wired) bounced() {
	n := w.Nodes()[0]
	ip := w.pair(bothNetworks)
	before := w.addressesOf(n)
	cable := func(in bool) {
		w.t.Helper()
		for _, nic := range []string{firstNIC, secondNIC} {
			w.must(n.Cable(w.ctx, nic, in))
		}
	}
	w.t.Cleanup(func() { cable(true) })
	cable(false)
	const noCarrier = "has no carrier; see the cable, or the port of the switch"
	w.say(firstNIC+" [172.16.20.10/22] NoCarrier "+firstNIC+" "+noCarrier, ready2)
	w.described("node", n.Name,
		"node interfaces: "+firstNetwork+" NoCarrier ens224 172.16.20.10/22: ens224 "+noCarrier,
		secondNetwork+" NoCarrier ens256 172.16.67.1")
	if got := w.addressesOf(n); !slices.Equal(got, before) {
		w.t.Errorf("without carrier the addresses are %q, and were %q", got, before)
	}
	w.asksFor("bounced", n)
	w.running("bounced")
	for range 3 {
		cable(true)
		cable(false)
	}
	cable(true)
	w.eventually("the network is back", w.well)
	w.reach(ip)

	for _, nic := range []string{firstNIC, secondNIC} {
		_, err := n.Run(w.ctx, "ip", "link", "set", nic, "down")
		w.must(err)
	}
	w.reach(ip)
	w.eventually("the NICs are up again", w.well)
	if got := w.addressesOf(n); !slices.Equal(got, before) {
		w.t.Errorf("after the bounces the addresses are %q, and were %q", got, before)
	}
	w.gone("bounced", "gke-node-1", "gke-node-2")
	w.mended()
}

// blockFile changes the block file of a cluster configuration.
func (w *wired) blockFile(cluster, old, by string) {
	w.t.Helper()
	path := filepath.Join(filepath.Dir(cluster), "ip-block-1.yaml")
	text, err := os.ReadFile(path)
	w.must(err)
	if !strings.Contains(string(text), old) {
		w.t.Fatalf("no %q in\n%s", old, text)
	}
	w.must(os.WriteFile(path, []byte(strings.Replace(string(text), old, by, 1)), 0o600))
}

// duplicate: a block file with a hostname twice is refused where the operator has it
// judged. Past that it is no configuration: nobody gets an address by it, or loses one.
func (w *wired) duplicate() {
	cluster := w.guideCluster()
	w.blockFile(cluster, "hostname: node-2", "hostname: node-1")
	const twice = "blocks[0].ips[1].hostname: node-1 is in blocks[0].ips[0].hostname already"
	out, err := w.cli("gke", "check", "--nodes", "2", cluster)
	if err == nil || !strings.Contains(out, "ip-block-1.yaml:9: "+twice) {
		w.t.Errorf("gke check says %s, %v", out, err)
	}
	if out, err := w.cli("gke", "render", cluster); err == nil || out != "" ||
		!strings.Contains(err.Error(), twice) {
		w.t.Errorf("gke render says %s, %v", out, err)
	}

	wrong := strings.Replace(w.list, `"node-2"`, `"node-1"`, 1)
	before := map[string][]string{}
	for _, n := range w.Nodes() {
		before[n.Name] = w.addressesOf(n)
	}
	refused := func(when string) {
		w.t.Helper()
		w.eventually(when+": the nodes say that it is no configuration", func() error {
			return w.interfacesAre(map[string]string{
				"node-1 ": " [] Invalid field nodeInterfaces[0]." + twice,
				"node-2 ": " [] Invalid field nodeInterfaces[0]." + twice,
			})
		})
		for _, n := range w.Nodes() {
			w.described("node", n.Name, "NodeInterfacesInvalid", "node interfaces: ", twice)
			if got := w.addressesOf(n); !slices.Equal(got, before[n.Name]) {
				w.t.Errorf("%s: %s has %q, and had %q", when, n.Name, got, before[n.Name])
			}
		}
	}
	w.interfaces(wrong)
	refused("with addresses")
	w.say(ready1, ready2)
	w.restartAgents()
	refused("agents that start with it")
	w.reachOver(bothNetworks)

	w.interfaces("")
	w.eventually("the addresses are taken back", w.bare)
	before = map[string][]string{}
	w.interfaces(wrong)
	refused("without addresses")
	w.interfaces(w.list)
	w.mended()
}

// small: with fewer addresses than nodes the block file is refused where the operator
// says how many nodes there are. Past that the node without one says so, and its pods have their
// networks nevertheless.
func (w *wired) small() {
	n := w.Nodes()[1]
	cluster := w.guideCluster()
	w.blockFile(cluster, "  - ip: 172.16.20.12/30", "")
	w.blockFile(cluster, "  - ip: 172.16.20.11\n    hostname: node-2", "  #")
	out, err := w.cli("gke", "check", "--nodes", "2", cluster)
	if err == nil || !strings.Contains(out, "ip-block-1.yaml has 1 address for 2 nodes: each needs "+
		"one, and an upgrade one more; give it 3 addresses") {
		w.t.Errorf("gke check says %s, %v", out, err)
	}

	w.interfaces(w.nodeInterfaces(cluster))
	const none = "no address of the blocks has the hostname node-2"
	w.say(ready1, firstNIC+" [] Failed "+none+"; give the node an entry with its hostname in the "+
		"IP block file, or use type: dhcp")
	w.described("node", n.Name, "NodeInterfaceFailed", "network "+firstNetwork+": "+none,
		"node interfaces: "+firstNetwork+" Failed ens224: "+none)
	if got := w.addressesAt(n, firstNIC); len(got) > 0 {
		w.t.Errorf("the node that has no address has %q", got)
	}
	w.reachOver(bothNetworks)
	w.interfaces(w.list)
	w.mended()
}
