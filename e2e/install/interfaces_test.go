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
// give the nodes' NICs their addresses, by IP block file and by DHCP, and pods of both nodes reach
// each other over them. A node that boots has its addresses again. nics_test.go has what can be
// wrong with NICs and block files.
func TestU7FromClusterFileToPods(t *testing.T) {
	r := newRig(t)
	r.installed()
	cluster := r.guideCluster()
	_, err := r.cli("gke", "check", "--nodes", "2", cluster)
	r.must(err)
	r.interfaces(r.nodeInterfaces(cluster))
	defer r.interfaces("")
	r.eventually("the first network is there, and the second's server is not", func() error {
		return r.interfacesAre(map[string]string{
			"node-1 " + firstNetwork:  firstNIC + " [172.16.20.10/22] Ready",
			"node-2 " + firstNetwork:  firstNIC + " [172.16.20.11/22] Ready",
			"node-1 " + secondNetwork: secondNIC + " [] Failed no DHCP server answers",
		})
	})
	leases, stop := r.serveDHCP()
	defer stop()
	r.eventually("both networks are there", func() error { return r.leased(leases) })

	networks, err := r.cli("gke", "render", "--networks", cluster)
	r.must(err)
	r.eventually("the networks are admitted", func() error { return r.Apply(r.ctx, onLab(networks)) })
	r.reachOver(firstNetwork + "," + secondNetwork)
	r.delete("net-attach-def", firstNetwork, secondNetwork)

	n := r.withoutLeader()
	before := r.addressesOf(n)
	r.must(n.PowerOff(r.ctx))
	if got := r.addressesOf(n); len(got) > 0 {
		t.Fatalf("a node that is off has the addresses %q", got)
	}
	off := time.Now()
	r.must(n.PowerOn(r.ctx))
	r.eventually("the agent is back", func() error { return r.heard(n, off) })
	r.eventually("both networks are there again", func() error { return r.leased(leases) })
	if got := r.addressesOf(n); !slices.Equal(got, before) {
		t.Errorf("after a boot the addresses are %q, and were %q", got, before)
	}
	out, err := r.Kubectl(r.ctx, "get", "events", "--all-namespaces",
		"--field-selector=reason=NodeInterfaceRestored", "--output=name")
	if err != nil || out != "" {
		t.Errorf("somebody is accused of having taken addresses away: %s, %v", out, err)
	}
	r.interfaces("")
	r.eventually("the addresses are taken back", func() error {
		for _, n := range r.Nodes() {
			if got := r.addressesOf(n); len(got) > 0 {
				return fmt.Errorf("%s has %q", n.Name, got)
			}
		}
		return nil
	})
}

// guideCluster writes the guide's cluster configuration and its IP block file, with the names of
// the lab's nodes, and returns the path of the former.
func (r *rig) guideCluster() string {
	r.t.Helper()
	dir := r.t.TempDir()
	for _, name := range []string{"cluster.yaml", "ip-block-1.yaml"} {
		text, err := os.ReadFile(filepath.Join(root(), "conf/gke", name))
		r.must(err)
		own := strings.Replace(string(text), "hostname: host1 ",
			"hostname: node-1\n  - ip: 172.16.20.11\n    hostname: node-2 ", 1)
		r.must(os.WriteFile(filepath.Join(dir, name), []byte(own), 0o600))
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
func (r *rig) nodeInterfaces(cluster string) string {
	r.t.Helper()
	text, err := json.Marshal(r.guideValues(cluster)["nodeInterfaces"])
	r.must(err)
	return string(text)
}

// guideValues are the values of the chart that are rendered.
func (r *rig) guideValues(cluster string) map[string]any {
	r.t.Helper()
	out, err := r.cli("gke", "render", cluster)
	r.must(err)
	for index, nic := range map[string]string{"index: 1": firstNIC, "index: 2": secondNIC} {
		if !strings.Contains(out, index) {
			r.t.Fatalf("no %s in\n%s", index, out)
		}
		out = strings.Replace(out, index, "name: "+nic, 1)
	}
	values := map[string]any{}
	r.must(yaml.Unmarshal([]byte(out), &values))
	return values
}

// interfaces writes what the chart makes of nodeInterfaces; nothing if that is empty.
func (r *rig) interfaces(list string) {
	r.t.Helper()
	var value any
	if list != "" {
		value = list
	}
	patch, err := json.Marshal(map[string]any{"data": map[string]any{"node-interfaces.json": value}})
	r.must(err)
	_, err = r.Client().CoreV1().ConfigMaps(namespace).
		Patch(r.ctx, "braid-agent", types.MergePatchType, patch, metav1.PatchOptions{})
	r.must(err)
	// The kubelet looks at the volumes of a pod that changes at once, else within two minutes.
	_, err = r.Kubectl(r.ctx, "annotate", "--namespace="+namespace, "--overwrite", "pods",
		"--selector=app.kubernetes.io/component=agent",
		fmt.Sprintf("looked-at=%d", time.Now().UnixNano()))
	r.must(err)
}

// interfacesAre compares with `kubectl braid nodes`: by "NODE NETWORK" what "NIC ADDRESSES STATE
// MESSAGE" begins with.
func (r *rig) interfacesAre(want map[string]string) error {
	// the error is that one is not ready
	out, err := r.cli("nodes", "-o", "json", "--kubeconfig", r.admin())
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
func (r *rig) serveDHCP() (leases string, stop func()) {
	r.t.Helper()
	_, err := r.Run(r.ctx, "ip", "address", "add", dhcpServer, "dev", secondNIC)
	r.must(err)
	leases = filepath.Join(r.t.TempDir(), "leases")
	ctx, cancel := context.WithCancel(r.ctx)
	ended := make(chan error, 1)
	go func() {
		_, err := r.Run(ctx, "dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--port=0",
			"--user=root", "--pid-file",
			"--interface="+secondNIC, "--bind-interfaces", "--except-interface=lo",
			"--dhcp-range="+dhcpRange, "--dhcp-leasefile="+leases)
		if ctx.Err() == nil {
			r.t.Errorf("the DHCP server ended: %v", err)
		}
		ended <- err
	}()
	return leases, func() {
		cancel()
		<-ended
		_, err := r.Run(r.ctx, "ip", "address", "flush", "dev", secondNIC)
		r.must(err)
	}
}

// leased returns an error unless all nodes have both networks, the second with an address that the
// server has noted for them.
func (r *rig) leased(leases string) error {
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
	return r.interfacesAre(want)
}

// addressesOf are the IPv4 addresses of a node's further NICs.
func (r *rig) addressesOf(n *lab.Node) (all []string) {
	r.t.Helper()
	for _, nic := range []string{firstNIC, secondNIC} {
		all = append(all, r.addressesAt(n, nic)...)
	}
	return all
}

// addressesAt are the IPv4 addresses of a node's link, "ens224 172.16.20.10/22".
func (r *rig) addressesAt(n *lab.Node, nic string) (all []string) {
	r.t.Helper()
	out, err := n.Run(r.ctx, "ip", "-json", "-4", "address", "show", "dev", nic)
	r.must(err)
	var links []struct {
		Addresses []struct {
			Local     string
			PrefixLen int
		} `json:"addr_info"`
	}
	r.must(json.Unmarshal([]byte(out), &links))
	for _, l := range links {
		for _, a := range l.Addresses {
			all = append(all, fmt.Sprintf("%s %s/%d", nic, a.Local, a.PrefixLen))
		}
	}
	return all
}

// reachOver has a pod of each node with networks, of which that of the second node reaches the
// other over the first network.
func (r *rig) reachOver(networks string) {
	r.t.Helper()
	r.reach(r.pair(networks))
	r.gone("gke-node-1", "gke-node-2")
}

// pair makes a pod of each node with networks, and returns their addresses of net1 by node.
func (r *rig) pair(networks string) map[string]string {
	r.t.Helper()
	ip := map[string]string{}
	for _, n := range r.Nodes() {
		name := "gke-" + n.Name
		pod := lab.Pod("default", name, map[string]string{nadv1.NetworksAnnotation: networks})
		pod.Spec.NodeName = n.Name
		if n.Name == "node-1" {
			pod.Spec.Containers[0].Command = []string{"/tool", "serve", "0.0.0.0:8080", "reached"}
		}
		r.must(r.create(r.ctx, pod))
		ip[n.Name] = networkStatus(r.t,
			r.running(name).Annotations[nadv1.StatusAnnotation])["net1"].IPs[0]
		if a := netip.MustParseAddr(ip[n.Name]); !netip.MustParsePrefix("172.16.20.0/22").Contains(a) {
			r.t.Errorf("%s has %s on net1", name, a)
		}
	}
	return ip
}

// reach waits until the second pod of a pair reaches the first.
func (r *rig) reach(ip map[string]string) {
	r.t.Helper()
	r.eventually("the pods reach each other", func() error {
		out, err := r.Exec(r.ctx, "default", "gke-node-2", "/tool", "dial", ip["node-1"]+":8080",
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

func (r *rig) admin() string {
	r.t.Helper()
	config, err := r.Kubeconfig(lab.UserAdmin)
	r.must(err)
	return config
}

// cli runs braidctl as a user does.
func (r *rig) cli(args ...string) (string, error) {
	r.t.Helper()
	cli, err := filepath.Abs(filepath.Join(root(), "bin/braidctl"))
	r.must(err)
	return r.Run(r.ctx, append([]string{cli}, args...)...)
}
