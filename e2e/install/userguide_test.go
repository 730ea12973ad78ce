package install_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"

	"github.com/braid-cni/braid/e2e/lab"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

// guide is a cluster on which Braid is as conf/gke/README.md says.
type guide struct {
	*world

	bin string // has kubectl-braid, which kubectl finds in the PATH
}

// TestU3Guide does what conf/gke/README.md says, with the files beside it: from a cluster
// configuration to pods with several interfaces, and what a reader sees of each. The lab's kernel
// may have no ipvlan: networks are of macvlan here, and as the files have them in
// TestU16GuideFilesWithIPvlan of cmd/braid, which a user-mode kernel runs.
func TestU3Guide(t *testing.T) {
	g := &guide{newWorldFor(t, 8*patience), t.TempDir()}
	_, stop := g.serveDHCP()
	defer stop()
	g.enable()
	defer g.disable()
	t.Run("U7 node interfaces", func(t *testing.T) { g.with(t).seesInterfaces() })
	t.Run("U8 networks", func(t *testing.T) { g.with(t).declares() })
	t.Run("U11 node pool", func(t *testing.T) { g.with(t).choosesNodes() })
	t.Run("U9 annotations", func(t *testing.T) { g.with(t).annotates() })
	t.Run("U10 room", func(t *testing.T) { g.with(t).finds() })
	t.Run("U17 routes", func(t *testing.T) { g.with(t).routes() })
	t.Run("U14 plugins", func(t *testing.T) { g.with(t).plugins() })
	t.Run("U19 troubleshooting", func(t *testing.T) { g.with(t).troubleshoots() })
	t.Run("U14 refusals", func(t *testing.T) { g.with(t).refuses() })
	t.Run("U10 bad input", func(t *testing.T) { g.with(t).changesBetween() })
}

func (g *guide) with(t *testing.T) *guide {
	t.Helper()
	return &guide{&world{g.Cluster, t, g.ctx}, g.bin}
}

// enable is "Install" and "Enable on the cluster": the cluster configuration is checked, values are
// made of it, and Helm installs the chart with them.
func (g *guide) enable() {
	g.t.Helper()
	g.removed() // of CRDs, which stay, the chart becomes the owner
	cluster := g.guideCluster()
	_, err := g.cli("gke", "check", cluster, "--nodes", "2")
	g.must(err)
	text, err := yaml.Marshal(g.guideValues(cluster))
	g.must(err)
	values := filepath.Join(g.t.TempDir(), "values.yaml")
	g.must(os.WriteFile(values, text, 0o600))
	image, tag, _ := strings.Cut(g.image(), ":")
	g.helm("install", "braid", filepath.Join(root(), "conf/helm/braid"), "--take-ownership",
		"--values", values,
		"--set", "image.repository="+image+",image.tag="+tag+",image.pullPolicy=Never")
	cli, err := filepath.Abs(filepath.Join(root(), "bin/braidctl"))
	g.must(err)
	g.must(os.Symlink(cli, filepath.Join(g.bin, "kubectl-braid")))
	g.eventually("both nodes are ready", func() error { _, err := g.braid("status"); return err })
	_, err = g.Kubectl(g.ctx, "rollout", "status", "--namespace="+namespace,
		"deployment/braid-controller")
	g.must(err)
}

// disable takes Braid off again. No pod may have its networks any more.
func (g *guide) disable() {
	g.t.Helper()
	g.helm("uninstall", "braid", "--timeout", "5m")
	for _, n := range g.Nodes() {
		for _, path := range []string{"/etc/cni/net.d/00-braid.conflist", "/opt/cni/bin/braid"} {
			if _, err := os.Stat(n.Path(path)); err == nil {
				g.t.Errorf("%s is left on %s", path, n.Name)
			}
		}
	}
}

func (g *guide) helm(args ...string) {
	g.t.Helper()
	dir := g.t.TempDir()
	command := []string{"env", "HOME=" + dir, os.Getenv("BRAID_HELM")}
	_, err := g.Run(g.ctx, append(append(command, args...), "--namespace", namespace, "--kubeconfig",
		g.admin())...)
	g.must(err)
}

// braid runs `kubectl braid`.
func (g *guide) braid(args ...string) (string, error) {
	command := []string{
		"env", "PATH=" + g.bin + ":" + os.Getenv("PATH"), filepath.Join(lab.BinDir(g.t), "kubectl"),
		"braid",
	}
	out, err := g.Run(g.ctx, append(append(command, args...), "--kubeconfig", g.admin())...)
	if err != nil {
		err = fmt.Errorf("%w\n%s", err, out)
	}
	return out, err
}

// guide applies a file of conf/gke as kubectl does, with what the lab has not replaced; of several
// objects those that are named, or all.
func (w *world) guide(file string, names ...string) {
	w.t.Helper()
	text, err := os.ReadFile(filepath.Join(root(), "conf/gke", file))
	w.must(err)
	objects := slices.DeleteFunc(strings.Split(string(text), "\n---\n"), func(object string) bool {
		return len(names) > 0 && !slices.ContainsFunc(names, func(name string) bool {
			return strings.Contains(object, "\n  name: "+name+"\n")
		})
	})
	path := filepath.Join(w.t.TempDir(), file)
	w.must(os.WriteFile(path, []byte(onLab(strings.Join(objects, "\n---\n"))), 0o600))
	w.eventually(file+" is admitted", func() error {
		_, err := w.Kubectl(w.ctx, "apply", "-f", path)
		return err
	})
}

// shows fails the test unless a text has all words.
func (g *guide) shows(what, text string, words ...string) {
	g.t.Helper()
	for _, word := range words {
		if !strings.Contains(text, word) {
			g.t.Errorf("%s does not show %q:\n%s", what, word, text)
		}
	}
}

// ip runs ip in a pod, and returns the lines, each with one blank between words.
func (g *guide) ip(pod *corev1.Pod, args string) (lines []string) {
	g.t.Helper()
	out, err := g.Node(pod.Spec.NodeName).
		PodRun(g.ctx, pod.Namespace, pod.Name, append([]string{"ip"}, strings.Fields(args)...)...)
	g.must(err)
	for line := range strings.Lines(out) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return lines
}

// same fails the test unless both have the same lines, in whatever order.
func (g *guide) same(what string, got []string, want ...string) {
	g.t.Helper()
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) {
		g.t.Errorf("%s:\n  %s\nwant:\n  %s", what, strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// status are the entries of a pod's network-status when it runs, by interface.
func (g *guide) status(namespace, name string) (*corev1.Pod, map[string]nadv1.NetworkStatus) {
	g.t.Helper()
	pod, err := g.WaitPodRunning(g.ctx, namespace, name)
	g.must(err)
	return pod, networkStatus(g.t, pod.Annotations[nadv1.StatusAnnotation])
}

// mainTable are the routes of a pod that has eth0 and what more names.
func (g *guide) mainTable(pod *corev1.Pod, more ...string) []string {
	pods, err := netip.MustParseAddr(pod.Status.PodIP).Prefix(24)
	g.must(err)
	return append(more, "default via "+pods.Addr().Next().String()+" dev eth0",
		pods.String()+" dev eth0 proto kernel scope link src "+pod.Status.PodIP)
}

// seesInterfaces is "Declare the nodes' interfaces".
func (g *guide) seesInterfaces() {
	g.eventually("both networks are Ready", func() error { _, err := g.braid("nodes"); return err })
	out, err := g.braid("nodes")
	g.must(err)
	g.shows("kubectl braid nodes", out, "NODE", "NETWORK", "NIC", "MAC", "ADDRESSES", "STATE",
		"172.16.20.10/22", "172.16.20.11/22", "172.16.67.1", secondNIC)
	out, err = g.Kubectl(g.ctx, "get", "node", "node-1", "-o",
		`jsonpath={.metadata.annotations.braid-cni\.io/node-interfaces}`)
	g.must(err)
	var published []struct {
		Network, Type, Interface, State string

		Addresses []string
	}
	g.must(json.Unmarshal([]byte(out), &published))
	if len(published) != 2 || published[0].Network != firstNetwork || published[0].Type != "static" ||
		published[0].Interface != firstNIC ||
		!slices.Equal(published[0].Addresses, []string{"172.16.20.10/22"}) ||
		published[1].Network != secondNetwork || published[1].Type != "dhcp" {
		g.t.Errorf("the Node has %s", out)
	}
	for _, n := range g.Nodes() {
		routes, err := n.Run(g.ctx, "ip", "route", "show", "default")
		g.must(err)
		g.same("default route of "+n.Name, strings.Fields(routes), "default", "via", "172.30.0.1", "dev",
			"eth0")
	}
}

// declares is "Declare networks". The API server takes the networks of the files as they are.
func (g *guide) declares() {
	for _, file := range []string{
		"gke-network-1.yaml", "gke-network-1-static.yaml", "node-pool.yaml", "plugins.yaml",
		"routes.yaml",
	} {
		text, err := os.ReadFile(filepath.Join(root(), "conf/gke", file))
		g.must(err)
		for object := range strings.SplitSeq(string(text), "\n---\n") {
			if strings.Contains(object, "\nkind: "+nadv1.Kind+"\n") {
				g.must(g.DryRun(g.ctx, object))
			}
		}
	}
	g.guide("gke-network-1.yaml")
	g.guide("node-pool.yaml", secondNetwork)
	g.guide("plugins.yaml", "gke-macvlan", "gke-bridge")
	g.guide("routes.yaml", "gke-routes-static", "gke-routes-whereabouts")
	lint := []string{"lint"}
	for _, file := range []string{
		"gke-network-1.yaml", "node-pool.yaml", "plugins.yaml", "routes.yaml", "pods.yaml",
	} {
		lint = append(lint, filepath.Join(root(), "conf/gke", file))
	}
	_, err := g.braid(lint...)
	g.must(err)
	networks, err := g.cli("gke", "render", "--networks", g.guideCluster())
	g.must(err)
	path := filepath.Join(g.t.TempDir(), "networks.yaml")
	g.must(os.WriteFile(path, []byte(networks), 0o600))
	_, err = g.cli("gke", "check", g.guideCluster(), path)
	g.must(err)
	out, err := g.Kubectl(g.ctx, "get", "net-attach-def", "-o", "name")
	g.must(err)
	g.shows("kubectl get net-attach-def", out, firstNetwork, secondNetwork, "gke-macvlan",
		"gke-bridge", "gke-routes-static", "gke-routes-whereabouts")
}

func (g *guide) deletePod(namespace, name string) {
	g.t.Helper()
	_, err := g.Kubectl(g.ctx, "delete", "pod", "--namespace="+namespace, "--grace-period=1", name)
	g.must(err)
}

// choosesNodes is "Choose nodes".
func (g *guide) choosesNodes() {
	g.guide("node-pool.yaml")
	g.unschedulable("sample-pod-on-pool")
	_, err := g.Kubectl(g.ctx, "label", "nodes", "node-2", poolLabel+"=sample-pool")
	g.must(err)
	pod, status := g.status("default", "sample-pod-on-pool")
	if pod.Spec.NodeName != "node-2" || status["net1"].Name != "default/"+secondNetwork {
		g.t.Errorf("it runs on %s with %+v", pod.Spec.NodeName, status)
	}
	g.deletePod("default", pod.Name)
}

// annotates is "Annotate pods": the three pods, with all that the guide prints of the first.
func (g *guide) annotates() {
	g.guide("pods.yaml", "sample-pod")
	pod, status := g.status("default", "sample-pod")
	net1, eth0 := status["net1"], status["eth0"]
	if len(status) != 2 || !slices.Equal(net1.IPs, []string{"21.0.111.1"}) {
		g.t.Errorf("network-status of the first pod is %+v", status)
	}
	g.same("ip route", g.ip(pod, "route"), g.mainTable(pod)...)
	g.same("ip route list table 100", g.ip(pod, "route list table 100"),
		"default via 21.0.111.254 dev net1",
		"21.0.104.0/21 dev net1 proto kernel scope link src 21.0.111.1")
	out, err := g.Exec(g.ctx, "default", pod.Name, "/tool", "addrs")
	g.must(err)
	g.shows("the first pod", out, `"lo"`, `"eth0"`, `"net1"`, `"21.0.111.1/21"`, eth0.Mac, net1.Mac)
	out, err = g.Kubectl(g.ctx, "get", "pod", pod.Name, "-o",
		`jsonpath={.metadata.annotations.k8s\.v1\.cni\.cncf\.io/network-status}`)
	g.must(err)
	exact := fmt.Sprintf(`[{
    "name": "pods",
    "interface": "eth0",
    "ips": [%q],
    "mac": %q,
    "default": true,
    "dns": {},
    "gateway": [%q]
},{
    "name": "default/gke-network-1",
    "interface": "net1",
    "ips": ["21.0.111.1"],
    "mac": %q,
    "dns": {}
}]`, pod.Status.PodIP, eth0.Mac, strings.Join(eth0.Gateway, ""), net1.Mac)
	if out != exact {
		g.t.Errorf("network-status is\n%s\nwant\n%s", out, exact)
	}
	g.guide("pods.yaml")
	g.topologies(pod)
}

// topologies are the four of U18: pods.yaml has many pods on one network, one with several
// networks, two interfaces over the node's ens224, and a network twice.
func (g *guide) topologies(first *corev1.Pod) {
	three, status := g.status("default", "sample-pod-three")
	g.same("networks of sample-pod-three",
		[]string{status["net1"].Name, status["net2"].Name, status["net3"].Name},
		"default/gke-network-1", "default/gke-network-1", "default/gke-network-2")
	other, json := g.status("sample", "sample-pod-json")
	g.same("networks of sample-pod-json", []string{json["data0"].Name, json["net2"].Name},
		"default/gke-network-1", "default/gke-network-2")
	if three.Spec.NodeName != "node-2" || other.Spec.NodeName != "node-2" {
		g.t.Errorf("pods with a network of the pool are on %s and %s",
			three.Spec.NodeName, other.Spec.NodeName)
	}
	seen := map[string]bool{"21.0.111.1": true}
	for _, s := range []nadv1.NetworkStatus{status["net1"], status["net2"], json["data0"]} {
		if len(s.IPs) != 1 || seen[s.IPs[0]] || !netip.MustParsePrefix("21.0.104.0/21").
			Contains(netip.MustParseAddr(s.IPs[0])) {
			g.t.Errorf("addresses of %s are %q", s.Interface, s.IPs)
			continue
		}
		seen[s.IPs[0]] = true
	}
	// From the first pod to an interface of each of the others.
	for _, to := range []string{status["net1"].IPs[0], json["data0"].IPs[0]} {
		_, err := g.Exec(g.ctx, first.Namespace, first.Name, "/tool", "dial", to+":9", "21.0.111.1")
		// nobody listens there, and says so
		if err == nil || !strings.Contains(err.Error(), "connection refused") {
			g.t.Errorf("%s is not reached: %v", to, err)
		}
	}
	g.deletePod("sample", other.Name)
	for _, p := range []*corev1.Pod{first, three} {
		g.deletePod("default", p.Name)
	}
}

// finds is the end of "Choose nodes": a pod of a network with the annotation stays Pending, with
// the reason in its events, while no node has the network's interface.
func (g *guide) finds() {
	const resource = "braid-cni.io/default." + firstNetwork
	first, second := g.unplug(g.Nodes()[0]), g.unplug(g.Nodes()[1])
	g.annotateNetwork("braid-cni.io/schedule=true")
	for _, n := range g.Nodes() {
		g.described("node", n.Name, resource)
	}
	g.guide("pods.yaml", "sample-pod")
	g.event("sample-pod", "FailedScheduling", "Insufficient "+resource)
	first()
	second()
	_, status := g.status("default", "sample-pod")
	g.same("networks of the pod that waited", []string{status["net1"].Name}, "default/"+firstNetwork)
	g.deletePod("default", "sample-pod")
	g.annotateNetwork("braid-cni.io/schedule-")
}

func (g *guide) annotateNetwork(annotation string) {
	g.t.Helper()
	_, err := g.Kubectl(g.ctx, "annotate", "net-attach-def", firstNetwork, annotation)
	g.must(err)
}

// refuses is what the profile does not allow, and what is wrong with a network, as the reader sees
// it at apply.
func (g *guide) refuses() {
	refused := func(what string, err error, words ...string) {
		g.t.Helper()
		if err == nil {
			g.t.Errorf("%s is admitted", what)
			return
		}
		g.shows(what, err.Error(), words...)
	}
	for what, c := range map[string]struct {
		config string
		words  []string
	}{
		"a plugin that the profile has not": {
			`{"cniVersion": "0.3.0", "type": "ptp", "ipam": {"type": "host-local", "subnet": "21.1.0.0/24"}}`,
			[]string{"default/wrong", "policy[0]", `"ptp"`},
		},
		"an IPAM that the profile has not": {
			`{"cniVersion": "0.3.0", "type": "macvlan", "master": "ens224", "ipam": {"type": "dhcp"}}`,
			[]string{"default/wrong", "policy[0]", `"dhcp"`},
		},
		"a comment": {
			"{\n  \"cniVersion\": \"0.3.0\", # the first\n  \"type\": \"macvlan\"}",
			[]string{"default/wrong", "line 2 column 26", "JSON has no comments"},
		},
	} {
		refused(what, g.DryRun(g.ctx, g.nad("wrong", c.config, "")), c.words...)
	}
	inner := strings.Replace(g.nad("inner", `{"cniVersion": "0.3.0", "type": "macvlan", "master": "ens224"}`,
		""), `"namespace":"default"`, `"namespace":"sample"`, 1)
	g.must(g.Apply(g.ctx, inner))
	asks := map[string]string{nadv1.NetworksAnnotation: "sample/inner"}
	_, err := g.Client().CoreV1().Pods("default").
		Create(g.ctx, lab.Pod("default", "outer", asks), metav1.CreateOptions{})
	refused("a network of another namespace", err, "default/outer", "sample/inner", "namespace")
	g.must(g.create(g.ctx, lab.Pod("sample", "own", asks)))
	_, status := g.status("sample", "own")
	g.same("networks of a pod of the namespace", []string{status["net1"].Name}, "sample/inner")
	g.deletePod("sample", "own")
	_, err = g.Kubectl(g.ctx, "delete", "net-attach-def", "--namespace=sample", "inner")
	g.must(err)
}

// routes are those that the files say of U16 and U17.
func (g *guide) routes() {
	g.guide("routes.yaml")
	for _, name := range []string{"sample-pod-routes-static", "sample-pod-routes-whereabouts"} {
		pod, status := g.status("default", name)
		g.same("routes of "+name, g.ip(pod, "route"),
			g.mainTable(pod, "172.31.0.0/16 via 21.0.111.254 dev net1",
				"21.0.104.0/21 dev net1 proto kernel scope link src "+status["net1"].IPs[0])...)
		g.deletePod("default", name)
	}
	g.guide("gke-network-1-static.yaml")
	pod, _ := g.status("default", "sample-pod-static")
	g.same("table 100 of the twin", g.ip(pod, "route list table 100"),
		"default via 21.0.111.254 dev net1",
		"21.0.104.0/21 dev net1 proto kernel scope link src 21.0.111.1")
	g.deletePod("default", pod.Name)
}

// plugins has bridge, macvlan, host-local, tuning and portmap in one pod.
func (g *guide) plugins() {
	g.guide("plugins.yaml")
	pod, status := g.status("default", "sample-pod-plugins")
	g.same("its networks", []string{status["net1"].Name, status["net2"].Name}, "default/gke-macvlan",
		"default/gke-bridge")
	g.same("its routes", g.ip(pod, "route"), g.mainTable(pod,
		"172.16.65.0/24 dev net1 proto kernel scope link src "+status["net1"].IPs[0],
		"172.16.66.0/24 dev net2 proto kernel scope link src "+status["net2"].IPs[0])...)
	n := g.Node(pod.Spec.NodeName)
	out, err := n.PodRun(g.ctx, "default", pod.Name, "cat", "/proc/sys/net/ipv4/conf/net2/arp_filter")
	g.must(err)
	g.same("arp_filter", strings.Fields(out), "1")
	rules, err := n.Run(g.ctx, "sh", "-c", "nft list ruleset 2>/dev/null")
	g.must(err)
	g.shows("the packet filter", rules, "18081", status["net2"].IPs[0])
	g.deletePod("default", pod.Name)
	g.eventually("the port is given back", func() error {
		rules, err := n.Run(g.ctx, "sh", "-c", "nft list ruleset 2>/dev/null")
		if err == nil && strings.Contains(rules, "18081") {
			err = errors.New(rules)
		}
		return err
	})
}

// troubleshoots is "Troubleshoot": what a reader sees of a pod that runs, of one that cannot, and
// of the nodes.
func (g *guide) troubleshoots() {
	g.guide("pods.yaml")
	pod, status := g.status("default", "sample-pod")
	out, err := g.Kubectl(g.ctx, "describe", "pod", pod.Name)
	g.must(err)
	g.shows("kubectl describe pod", out, "AddedInterface", "Add net1 ["+status["net1"].IPs[0],
		"from default/gke-network-1")
	out, err = g.Kubectl(g.ctx, "describe", "node", pod.Spec.NodeName)
	g.must(err)
	g.shows("kubectl describe node", out, "BraidReady",
		"node interfaces: gke-network-1 Ready ens224 172.16.20.1")
	out, err = g.braid("status")
	g.must(err)
	g.shows("kubectl braid status", out, "node-1", "node-2")
	out, err = g.braid("plan", pod.Name)
	g.must(err)
	g.shows("kubectl braid plan", out, "default/gke-network-1", "macvlan", "whereabouts", "sbr")
	for _, log := range []string{"/var/log/multus.log", "/var/log/whereabouts.log"} {
		text, err := os.ReadFile(g.Node(pod.Spec.NodeName).Path(log))
		g.must(err)
		g.shows(log, string(text), "sample-pod")
	}
	for _, name := range []string{"sample-pod", "sample-pod-three"} {
		g.deletePod("default", name)
	}
	g.deletePod("sample", "sample-pod-json")

	wrong := lab.Pod("default", "wrong", map[string]string{nadv1.NetworksAnnotation: "gke-network-9"})
	_, err = g.Client().CoreV1().Pods("default").Create(g.ctx, wrong, metav1.CreateOptions{})
	if err == nil {
		g.t.Fatal("a network that is not there is admitted")
	}
	g.shows("the refusal of a network that is not there", err.Error(), "default/wrong",
		"gke-network-9", "create it")
	g.must(
		g.Apply(g.ctx, g.nad("gke-lost",
			`{"cniVersion": "0.3.0", "type": "macvlan", "master": "ens999", `+
				`"ipam": {"type": "whereabouts", "range": "21.0.0.0/24"}}`, "")))
	g.must(g.create(g.ctx, lab.Pod("default", "lost",
		map[string]string{nadv1.NetworksAnnotation: "gke-lost"})))
	g.event("lost", "PluginFailed", "default/gke-lost", "macvlan",
		`see that this node has the master interface "ens999"`)
	g.deletePod("default", "lost")
	g.delete("net-attach-def", "gke-lost")
}

// event waits until `kubectl describe pod` shows an event with words.
func (g *guide) event(pod, reason string, words ...string) {
	g.t.Helper()
	g.described("pod", pod, append(words, reason)...)
}

// changesBetween has NADs change after pods were admitted and before they start: the node holds to
// what they are then. The second is changed while nobody judges, as if it was written past
// admission.
func (g *guide) changesBetween() {
	const config = `{"cniVersion": "0.3.0", "type": "macvlan", "master": "ens224", ` +
		`"ipam": {"type": "whereabouts", "range": "21.0.0.0/24"}}`
	for _, name := range []string{"moves", "widens"} {
		g.must(g.Apply(g.ctx, g.nad(name, config, poolLabel+"=sample-pool")))
		pod := lab.Pod("default", name, map[string]string{nadv1.NetworksAnnotation: name})
		pod.Spec.SchedulingGates = []corev1.PodSchedulingGate{{Name: "example.com/later"}}
		g.must(g.create(g.ctx, pod))
	}
	ungate := func(name string) {
		g.t.Helper()
		_, err := g.Kubectl(g.ctx, "patch", "pod", name, "--type=json",
			`--patch=[{"op": "remove", "path": "/spec/schedulingGates"}]`)
		g.must(err)
	}
	g.must(g.Apply(g.ctx, g.nad("moves", config, poolLabel+"=other-pool")))
	ungate("moves")
	g.event("moves", "NodeNotSelected", "default/moves", poolLabel+"=other-pool", "node-2")

	_, err := g.Kubectl(g.ctx, "patch", "validatingwebhookconfiguration", "braid-controller",
		"--type=json",
		`--patch=[{"op": "add", "path": "/webhooks/0/matchConditions", "value": [{"name": "never", `+
			`"expression": "false"}]}]`)
	g.must(err)
	wide := `{"cniVersion": "0.3.0", "name": "widens", "plugins": [` +
		strings.Replace(config, `"cniVersion": "0.3.0", `, "", 1) + `, {"type": "loopback"}]}`
	g.eventually("nobody judges", func() error {
		return g.Apply(g.ctx, g.nad("widens", wide, poolLabel+"=sample-pool"))
	})
	ungate("widens")
	g.event("widens", "PolicyRefused", "default/widens", "loopback")
	for _, name := range []string{"moves", "widens"} {
		g.deletePod("default", name)
		g.delete("net-attach-def", name)
	}
}
