package install_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/braid-cni/braid/e2e/lab"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

// The NICs of the nodes that the guide calls so, and their networks. Of the second the addresses
// are a DHCP server's.
const (
	firstNIC, firstNetwork   = "ens224", "gke-network-1"
	secondNIC, secondNetwork = "ens256", "gke-network-2"
	dhcpServer               = "172.16.67.1/24"
	dhcpRange                = "172.16.67.100,172.16.67.120,1h"
)

// TestU7FromClusterFileToPods: the guide's cluster configuration is judged and rendered, the agents
// assign the nodes' NICs their addresses, by IP block file and by DHCP, and pods of both nodes
// reach each other over them. A node that boots has its addresses again. nics_test.go has what can
// be wrong with NICs and block files.
func TestU7FromClusterFileToPods(t *testing.T) {
	w := newWorld(t)
	w.installed()
	cluster := w.guideCluster()
	_, err := w.cli("gke", "check", "--nodes", "2", cluster)
	w.must(err)
	w.interfaces(w.nodeInterfaces(cluster))
	defer w.interfaces("")
	w.eventually("the first network is there, and the second's server is not", func() error {
		return w.interfacesAre(map[string]string{
			"node-1 " + firstNetwork:  firstNIC + " [172.16.20.10/22] Ready",
			"node-2 " + firstNetwork:  firstNIC + " [172.16.20.11/22] Ready",
			"node-1 " + secondNetwork: secondNIC + " [] Failed no DHCP server answers",
		})
	})
	leases, stop := w.serveDHCP()
	defer stop()
	w.eventually("both networks are there", func() error { return w.leased(leases) })

	networks, err := w.cli("gke", "render", "--networks", cluster)
	w.must(err)
	w.eventually("the networks are admitted", func() error { return w.Apply(w.ctx, onLab(networks)) })
	w.reachOver(firstNetwork + "," + secondNetwork)
	w.delete("net-attach-def", firstNetwork, secondNetwork)

	n := w.withoutLeader()
	before := w.addressesOf(n)
	w.must(n.PowerOff(w.ctx))
	if got := w.addressesOf(n); len(got) > 0 {
		t.Fatalf("a node that is off has the addresses %q", got)
	}
	off := time.Now()
	w.must(n.PowerOn(w.ctx))
	w.eventually("the agent is back", func() error { return w.heard(n, off) })
	w.eventually("both networks are there again", func() error { return w.leased(leases) })
	if got := w.addressesOf(n); !slices.Equal(got, before) {
		t.Errorf("after a boot the addresses are %q, and were %q", got, before)
	}
	out, err := w.Kubectl(w.ctx, "get", "events", "--all-namespaces",
		"--field-selector=reason=NodeInterfaceRestored", "--output=name")
	if err != nil || out != "" {
		t.Errorf("somebody is accused of having taken addresses away: %s, %v", out, err)
	}
	w.interfaces("")
	w.eventually("the addresses are taken back", func() error {
		for _, n := range w.Nodes() {
			if got := w.addressesOf(n); len(got) > 0 {
				return fmt.Errorf("%s has %q", n.Name, got)
			}
		}
		return nil
	})
}

// guideCluster writes the guide's cluster configuration and its IP block file, with the names of
// the lab's nodes, and returns the path of the former.
func (w *world) guideCluster() string {
	w.t.Helper()
	dir := w.t.TempDir()
	for _, name := range []string{"cluster.yaml", "ip-block-1.yaml"} {
		text, err := os.ReadFile(filepath.Join(root(), "conf/gke", name))
		w.must(err)
		own := strings.Replace(string(text), "hostname: host1 ",
			"hostname: node-1\n  - ip: 172.16.20.11\n    hostname: node-2 ", 1)
		w.must(os.WriteFile(filepath.Join(dir, name), []byte(own), 0o600))
	}
	return filepath.Join(dir, "cluster.yaml")
}

// onLab replaces in manifests of the guide what the lab has not: ipvlan, and a registry.
func onLab(manifests string) string {
	return strings.NewReplacer(`"type": "ipvlan"`, `"type": "macvlan"`, `"mode": "l2"`,
		`"mode": "bridge"`,
		"image: nginx", "image: "+lab.ToolImage+"\n    imagePullPolicy: Never").Replace(manifests)
}

// nodeInterfaces are those of the values that are rendered, each with its NIC's name: the lab's
// nodes have no PCI bus in whose order NICs could be counted.
func (w *world) nodeInterfaces(cluster string) string {
	w.t.Helper()
	text, err := json.Marshal(w.guideValues(cluster)["nodeInterfaces"])
	w.must(err)
	return string(text)
}

// guideValues are the values of the chart that are rendered.
func (w *world) guideValues(cluster string) map[string]any {
	w.t.Helper()
	out, err := w.cli("gke", "render", cluster)
	w.must(err)
	for index, nic := range map[string]string{"index: 1": firstNIC, "index: 2": secondNIC} {
		if !strings.Contains(out, index) {
			w.t.Fatalf("no %s in\n%s", index, out)
		}
		out = strings.Replace(out, index, "name: "+nic, 1)
	}
	values := map[string]any{}
	w.must(yaml.Unmarshal([]byte(out), &values))
	return values
}

// interfaces writes what the chart makes of nodeInterfaces; nothing if that is empty.
func (w *world) interfaces(list string) {
	w.t.Helper()
	var value any
	if list != "" {
		value = list
	}
	patch, err := json.Marshal(map[string]any{"data": map[string]any{"node-interfaces.json": value}})
	w.must(err)
	_, err = w.Client().CoreV1().ConfigMaps(namespace).
		Patch(w.ctx, "braid-agent", types.MergePatchType, patch, metav1.PatchOptions{})
	w.must(err)
	// The kubelet looks at the volumes of a pod that changes at once, else within two minutes.
	_, err = w.Kubectl(w.ctx, "annotate", "--namespace="+namespace, "--overwrite", "pods",
		"--selector=app.kubernetes.io/component=agent",
		fmt.Sprintf("looked-at=%d", time.Now().UnixNano()))
	w.must(err)
}

// interfacesAre compares with `kubectl braid nodes`: by "NODE NETWORK" what "NIC ADDRESSES STATE
// MESSAGE" begins with.
func (w *world) interfacesAre(want map[string]string) error {
	// the error is that one is not ready
	out, err := w.cli("nodes", "-o", "json", "--kubeconfig", w.admin())
	var items []struct {
		Node, Network, Interface, State, Message string

		Addresses []string
	}
	if json.Unmarshal([]byte(out), &items) != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	for _, i := range items {
		got := fmt.Sprintf("%s %v %s %s", i.Interface, i.Addresses, i.State, i.Message)
		if key := i.Node + " " + i.Network; strings.HasPrefix(got, want[key]) {
			delete(want, key)
		}
	}
	if len(want) > 0 {
		return fmt.Errorf("it does not say %q:\n%s", want, out)
	}
	return nil
}

// serveDHCP has a DHCP server in the second network until stop is called. leases is the file of
// what it gave.
func (w *world) serveDHCP() (leases string, stop func()) {
	w.t.Helper()
	_, err := w.Run(w.ctx, "ip", "address", "add", dhcpServer, "dev", secondNIC)
	w.must(err)
	leases = filepath.Join(w.t.TempDir(), "leases")
	ctx, cancel := context.WithCancel(w.ctx)
	ended := make(chan error, 1)
	go func() {
		_, err := w.Run(ctx, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0",
			"--user=root", "--pid-file",
			"--interface="+secondNIC, "--bind-interfaces", "--except-interface=lo",
			"--dhcp-range="+dhcpRange, "--dhcp-leasefile="+leases)
		if ctx.Err() == nil {
			w.t.Errorf("the DHCP server ended: %v", err)
		}
		ended <- err
	}()
	return leases, func() {
		cancel()
		<-ended
		_, err := w.Run(w.ctx, "ip", "address", "flush", "dev", secondNIC)
		w.must(err)
	}
}

// leased returns an error unless all nodes have both networks, the second with an address that the
// server has noted for them.
func (w *world) leased(leases string) error {
	text, err := os.ReadFile(leases)
	if err != nil {
		return err
	}
	want := map[string]string{
		"node-1 " + firstNetwork: firstNIC + " [172.16.20.10/22] Ready",
		"node-2 " + firstNetwork: firstNIC + " [172.16.20.11/22] Ready",
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) > 3 { // time, MAC, address, name
			want[fields[3]+" "+secondNetwork] = fmt.Sprintf("%s [%s/24] Ready", secondNIC, fields[2])
		}
	}
	if len(want) != 4 {
		return fmt.Errorf("leases are\n%s", text)
	}
	return w.interfacesAre(want)
}

// addressesOf are the IPv4 addresses of a node's further NICs.
func (w *world) addressesOf(n *lab.Node) (all []string) {
	w.t.Helper()
	for _, nic := range []string{firstNIC, secondNIC} {
		all = append(all, w.addressesAt(n, nic)...)
	}
	return all
}

// addressesAt are the IPv4 addresses of a node's link, "ens224 172.16.20.10/22".
func (w *world) addressesAt(n *lab.Node, nic string) (all []string) {
	w.t.Helper()
	out, err := n.Run(w.ctx, "ip", "-json", "-4", "address", "show", "dev", nic)
	w.must(err)
	var links []struct {
		Addresses []struct {
			Local     string
			PrefixLen int
		} `json:"addr_info"`
	}
	w.must(json.Unmarshal([]byte(out), &links))
	for _, l := range links {
		for _, a := range l.Addresses {
			all = append(all, fmt.Sprintf("%s %s/%d", nic, a.Local, a.PrefixLen))
		}
	}
	return all
}

// reachOver has a pod of each node with networks. That of the second node reaches the
// other over the first network.
func (w *world) reachOver(networks string) {
	w.t.Helper()
	w.reach(w.pair(networks))
	w.gone("gke-node-1", "gke-node-2")
}

// pair makes a pod of each node with networks, and returns their addresses of net1 by node.
func (w *world) pair(networks string) map[string]string {
	w.t.Helper()
	ip := map[string]string{}
	for _, n := range w.Nodes() {
		name := "gke-" + n.Name
		pod := lab.Pod("default", name, map[string]string{nadv1.NetworksAnnotation: networks})
		pod.Spec.NodeName = n.Name
		if n.Name == "node-1" {
			pod.Spec.Containers[0].Command = []string{"/tool", "serve", "0.0.0.0:8080", "reached"}
		}
		w.must(w.create(w.ctx, pod))
		ip[n.Name] = networkStatus(w.t,
			w.running(name).Annotations[nadv1.StatusAnnotation])["net1"].IPs[0]
		if a := netip.MustParseAddr(ip[n.Name]); !netip.MustParsePrefix("172.16.20.0/22").Contains(a) {
			w.t.Errorf("%s has %s on net1", name, a)
		}
	}
	return ip
}

// reach waits until the second pod of a pair reaches the first.
func (w *world) reach(ip map[string]string) {
	w.t.Helper()
	w.eventually("the pods reach each other", func() error {
		out, err := w.Exec(w.ctx, "default", "gke-node-2", "/tool", "dial", ip["node-1"]+":8080",
			ip["node-2"])
		if err == nil && !strings.Contains(out, "reached") {
			err = errors.New("the answer is " + out)
		}
		return err
	})
}

// networkStatus are the entries of a network-status, by interface.
func networkStatus(t *testing.T, text string) map[string]nadv1.NetworkStatus {
	t.Helper()
	var entries []nadv1.NetworkStatus
	if err := json.Unmarshal([]byte(text), &entries); err != nil {
		t.Fatalf("network-status %q: %v", text, err)
	}
	byInterface := map[string]nadv1.NetworkStatus{}
	for _, e := range entries {
		byInterface[e.Interface] = e
	}
	return byInterface
}

func (w *world) admin() string {
	w.t.Helper()
	config, err := w.Kubeconfig(lab.UserAdmin)
	w.must(err)
	return config
}

// cli runs braidctl as a user does.
func (w *world) cli(args ...string) (string, error) {
	w.t.Helper()
	cli, err := filepath.Abs(filepath.Join(root(), "bin/braidctl"))
	w.must(err)
	return w.Run(w.ctx, append([]string{cli}, args...)...)
}
