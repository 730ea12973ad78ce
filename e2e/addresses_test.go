package e2e_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/e2e/lab"
	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
)

// whereabouts is the configuration of a NAD over eth1 with cluster-wide addresses.
func whereabouts(network, cidr string) string {
	return fmt.Sprintf(`{"cniVersion": "1.0.0", "type": "macvlan", "master": "eth1",
		"ipam": {"type": "whereabouts", "range": %q, "network_name": %q}}`, cidr, network)
}

// Source-based routing with cluster-wide addresses as the user guide prints it: conf/gke's own
// file, with macvlan in place of ipvlan.
func TestU16Whereabouts(t *testing.T) {
	w := newWorkspace(t)
	w.apply("gke/gke-network-1.yaml", "gke-network-1")
	w.apply("gke/pods.yaml", "sample-pod")
	pod := w.running(w.namespace, "sample-pod")
	w.hasLinks("sample-pod", "net1 21.0.104.0/21")
	sameLines(t, "routes", w.ip("sample-pod", "route"), mainTable(pod.Status.PodIP))
	equalLines(t, "table 100", w.ip("sample-pod", "route list table 100"), []string{
		"default via 21.0.111.254 dev net1",
		"21.0.104.0/21 dev net1 proto kernel scope link src 21.0.111.1",
	})
	equalLines(t, "rules", w.ip("sample-pod", "rule"),
		plainRules("32765: from 21.0.111.1 lookup 100 proto 176"))
	status := w.status("sample-pod")
	if len(status) != 2 || !slices.Equal(status[1].IPs, []string{"21.0.111.1"}) {
		t.Errorf("network-status is %+v, want address 21.0.111.1 at the second network", status)
	}
}

// Routes of a network with cluster-wide addresses are added; the default route stays where it is.
func TestU17Whereabouts(t *testing.T) {
	w := newWorkspace(t)
	w.apply("gke/routes.yaml", "gke-routes-whereabouts", "sample-pod-routes-whereabouts")
	pod := w.running(w.namespace, "sample-pod-routes-whereabouts")
	net1 := w.hasLinks("sample-pod-routes-whereabouts", "net1 21.0.104.0/21")["net1"]
	sameLines(t, "routes", w.ip("sample-pod-routes-whereabouts", "route"), mainTable(pod.Status.PodIP,
		"21.0.104.0/21 dev net1 proto kernel scope link src "+net1.Addresses[0].Local,
		"172.31.0.0/16 via 21.0.111.254 dev net1"))
}

// Once a node has a block with room, an ADD asks the API for nothing more than it does without
// cluster-wide addresses, and a DEL for nothing.
func TestAddressesCostNoAPICalls(t *testing.T) {
	w := newWorkspace(t)
	w.nad("blue", whereabouts("calls", "10.82.0.0/16"))
	w.run(w.pod("first", "blue"))
	want := map[string]int{
		"get network-attachment-definitions": 1, "patch pods/status": 1, "create events": 2,
	}
	var made map[string]int
	// one in half a minute looks at the node's blocks, one in two at the namespace's label
	for i := 0; i < 4 && !maps.Equal(made, want); i++ {
		made = map[string]int{}
		for _, request := range w.during(func() { w.run(w.pod(fmt.Sprint("next", i), "blue")) }) {
			made[describe(request)]++
		}
	}
	if !maps.Equal(made, want) {
		t.Errorf("ADD made requests %v, want %v", made, want)
	}
	blocks := blocksOf(w.ctx, t, w.cluster, "calls")
	if len(blocks) != 1 || blocks[0].Spec.Owner == nil ||
		blocks[0].Spec.Owner.NodeName != w.node.Name {
		t.Errorf("blocks are %+v, want one of node %s", blocks, w.node.Name)
	}
}

// blocksOf are the blocks of a space.
func blocksOf(
	ctx context.Context, t *testing.T, cluster *lab.Cluster, space string,
) []v1alpha1.IPBlock {
	t.Helper()
	var list v1alpha1.IPBlockList
	out, err := cluster.Kubectl(ctx, "get", v1alpha1.Resource, "--field-selector=spec.space="+space,
		"--output=json")
	if err == nil {
		err = json.Unmarshal([]byte(out), &list)
	}
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

// A pod that finds no free address does not start, and says why; it starts when one is given back.
func TestAddressesExhausted(t *testing.T) {
	w := newWorkspace(t)
	w.nad("tiny", whereabouts("tiny", "10.83.0.0/31"))
	w.run(w.pod("a", "tiny"))
	w.run(w.pod("b", "tiny"))
	w.create(w.pod("c", "tiny"))
	message := w.refused("c", "PluginFailed")
	for _, word := range []string{"no address is free", "10.83.0.0/31", "tiny"} {
		if !strings.Contains(message, word) {
			t.Errorf("the event does not name %q: %s", word, message)
		}
	}
	w.delete("a")
	w.running(w.namespace, "c")
	w.hasLinks("c", "net1 10.83.0.0/31")
}

// newWorkspaceOf is a workspace with a cluster of its own, of these nodes.
func newWorkspaceOf(t *testing.T, d time.Duration, namespace string, nodes ...string) *workspace {
	t.Helper()
	cluster := lab.StartCluster(t, lab.Options{Nodes: nodes})
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	for _, node := range cluster.Nodes() {
		if err := errors.Join(install(ctx, node), node.WaitReady(ctx)); err != nil {
			t.Fatal(err)
		}
	}
	w := &workspace{t: t, ctx: ctx, cluster: cluster, node: cluster.Nodes()[0]}
	w.namespace = w.newNamespace(namespace)
	return w
}

// On two nodes, pods of one network reach each other over the wire between the nodes, and never
// share an address; also where the range is so small that the nodes share the only block, and every
// address of it is used. When one node is lost for good, its addresses are free.
func TestTwoNodes(t *testing.T) {
	w := newWorkspaceOf(t, 5*time.Minute, "two-nodes", "node-1", "node-2")
	ctx, cluster := w.ctx, w.cluster
	w.nad("wide", whereabouts("wide", "10.90.0.0/24"))
	w.nad("narrow", whereabouts("narrow", "10.91.0.0/29"))

	const each = 3 // of the six usable addresses of the narrow one
	var pods []*corev1.Pod
	for i := range 2 * each {
		pod := w.pod(fmt.Sprintf("p%d", i), "wide,narrow")
		pod.Spec.NodeName = cluster.Nodes()[i%2].Name
		pods = append(pods, pod)
	}
	w.create(pods...)
	seen := map[string]string{}
	address := map[string][]string{}
	for _, pod := range pods {
		w.running(pod.Namespace, pod.Name)
		for _, status := range w.status(pod.Name)[1:] {
			if len(status.IPs) != 1 || seen[status.IPs[0]] != "" {
				t.Errorf("%s has addresses %v in %s, and one is that of %q too",
					pod.Name, status.IPs, status.Name, seen[status.IPs[0]])
			}
			seen[status.IPs[0]] = pod.Name
			address[pod.Name] = append(address[pod.Name], status.IPs[0])
		}
	}
	for i, ip := range address["p0"] {
		reach(ctx, t, w.namespace, cluster.Nodes()[1], "p1", cluster.Nodes()[0], "p0", ip)
		if t.Failed() {
			t.Fatalf("by network %d", i)
		}
	}
	owners := map[string]bool{}
	for _, block := range blocksOf(ctx, t, cluster, "wide") {
		owners[block.Spec.Owner.NodeName] = true
	}
	if len(owners) != 2 {
		t.Errorf("blocks of the wide network are of %v, want both nodes", owners)
	}
	blocks := blocksOf(ctx, t, cluster, "narrow")
	if len(blocks) != 1 || blocks[0].Spec.Owner != nil || len(blocks[0].Spec.Allocations) != 2*each {
		t.Errorf("blocks of the narrow network are %+v, want one that is shared, with %d addresses "+
			"in use", blocks, 2*each)
	}

	w.loseNode(cluster.Nodes()[1], pods)
	var others []*corev1.Pod
	for i := range each {
		pod := w.pod(fmt.Sprintf("q%d", i), "narrow")
		pod.Spec.NodeName = w.node.Name
		others = append(others, pod)
	}
	w.create(others...)
	for _, pod := range others {
		w.running(pod.Namespace, pod.Name)
	}

	w.must(deletePods(ctx, cluster, w.namespace))
	w.eventually("no address of the narrow network is in use", func() error {
		if blocks := blocksOf(ctx, t, cluster, "narrow"); len(blocks) > 0 {
			return fmt.Errorf("there is block %+v", blocks[0].Spec)
		}
		return nil
	})
}

// loseNode has braid-controller at work while a node dies. As long as the Node object is there,
// nothing of it is free: its pods may run.
func (w *workspace) loseNode(node *lab.Node, pods []*corev1.Pod) {
	w.t.Helper()
	const config = "/run/controller.kubeconfig"
	w.must(installKubeconfig(w.ctx, w.node, "braid-controller", config))
	w.must(w.node.Install(filepath.Join(root(), "bin", "braid-controller"),
		"/usr/local/bin/braid-controller", 0o755))
	ctx, stop := context.WithCancel(w.ctx)
	ended := make(chan string)
	go func() {
		out, _ := w.node.Run(ctx, "/usr/local/bin/braid-controller", "--kubeconfig="+config,
			"--interval=200ms", "--grace=1s")
		ended <- out
	}()
	defer func() {
		stop()
		if out := <-ended; w.t.Failed() {
			w.t.Logf("braid-controller: %s", out)
		}
	}()

	node.KillKubelet()
	node.KillRuntime()
	before := w.ofNode(node.Name)
	time.Sleep(3 * time.Second)
	if after := w.ofNode(node.Name); before == 0 || after != before {
		w.t.Errorf("node %s, which is not ready, has %d blocks and addresses, and had %d",
			node.Name, after, before)
	}
	core := w.cluster.Client().CoreV1()
	w.must(core.Nodes().Delete(w.ctx, node.Name, metav1.DeleteOptions{}))
	for _, pod := range pods {
		if pod.Spec.NodeName == node.Name {
			w.must(core.Pods(pod.Namespace).Delete(w.ctx, pod.Name, *metav1.NewDeleteOptions(0)))
		}
	}
	w.eventually("the controller frees the addresses of node "+node.Name, func() error {
		if n := w.ofNode(node.Name); n > 0 {
			return fmt.Errorf("%d blocks and addresses are not free", n)
		}
		return nil
	})
}

// ofNode counts the blocks that a node owns, and the addresses of shared ones that it uses.
func (w *workspace) ofNode(name string) (n int) {
	w.t.Helper()
	for _, space := range []string{"wide", "narrow"} {
		for _, block := range blocksOf(w.ctx, w.t, w.cluster, space) {
			if owner := block.Spec.Owner; owner != nil && owner.NodeName == name {
				n++
			}
			for _, a := range block.Spec.Allocations {
				if a.Node != nil && a.Node.NodeName == name {
					n++
				}
			}
		}
	}
	return n
}

// reach dials an address of a pod from another pod.
func reach(
	ctx context.Context, t *testing.T, namespace string, from *lab.Node, client string, to *lab.Node,
	server, ip string,
) {
	t.Helper()
	path, err := to.PodNetns(ctx, namespace, server)
	if err != nil {
		t.Fatal(err)
	}
	var listener net.Listener
	err = inNamespace(path, func() (err error) {
		listener, err = net.Listen("tcp", net.JoinHostPort(ip, "0"))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	if path, err = from.PodNetns(ctx, namespace, client); err != nil {
		t.Fatal(err)
	}
	err = inNamespace(path, func() error {
		conn, err := net.DialTimeout("tcp", listener.Addr().String(), 5*time.Second)
		if err == nil {
			conn.Close()
		}
		return err
	})
	if err != nil {
		t.Errorf("from pod %s on %s to %s on %s: %v", client, from.Name, server, to.Name, err)
	}
}
