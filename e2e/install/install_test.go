// Package install_test puts Braid on a cluster as README.md says: the image in the runtime, one
// `kubectl apply`, and pods get their networks. `make e2e` runs it: it needs root, the binaries of
// scripts/lab.sh and scripts/build.sh, and the image of scripts/image.sh.
//
// All tests have one cluster, and leave it as they found it, in the order of their files' names:
// TestOneApply installs Braid, TestUninstall in uninstall_test.go takes it away. Each begins with
// world.installed, world.private or world.removed, so that it can also be run alone, or in another
// order.
package install_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/e2e/lab"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

const (
	namespace = "kube-system"
	moveFlag  = "--move-default-network"
	// patience is for what takes some seconds on an idle machine.
	patience = 3 * time.Minute
	// defaultNetwork is what there is before Braid: the reference's bridge plugin.
	defaultNetwork = `{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "bridge", "bridge": "cni0", "isDefaultGateway": true,
		"ipMasq": true, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/16"}]]}}]}`
	dataPlane = `{"cniVersion": "1.0.0", "type": "macvlan", "master": "eth1", ` +
		`"ipam": {"type": "whereabouts", "range": "10.20.0.0/24"}}`
)

var shared = lab.NewShared(start)

// runtime is that of both nodes.
var runtime = lab.Runtime(cmp.Or(os.Getenv("BRAID_E2E_RUNTIME"), string(lab.Containerd)))

func TestMain(m *testing.M) {
	if os.Getenv("BRAID_E2E") != "1" {
		fmt.Println("install: no test is run: BRAID_E2E is not 1; make e2e sets it")
		os.Exit(0)
	}
	os.Exit(shared.Main(m))
}

func root() string { return filepath.Join("..", "..") }

// start makes a cluster of two nodes with a default network and Braid's image, and without Braid.
func start() (*lab.Cluster, error) {
	c, err := lab.NewCluster(lab.Options{
		Runtime: runtime,
		Nodes:   []string{"node-1", "node-2"},
		NICs:    []string{firstNIC, secondNIC}, Prepare: func(ctx context.Context, n *lab.Node) error {
			if err := n.InstallPlugins(ctx, "bridge", "host-local", "loopback"); err != nil {
				return err
			}
			if err := n.WriteFile("/etc/cni/net.d/10-pods.conflist", []byte(ofNode(n, defaultNetwork)),
				0o644); err != nil {
				return err
			}
			return n.LoadImages(ctx, os.Getenv("BRAID_IMAGE"))
		},
	})
	if err != nil {
		return nil, err
	}
	// The API server asks the controller's pods about pods and NADs.
	for _, n := range c.Nodes() {
		for _, pods := range []string{podsOf(n), other(podsOf(n))} {
			if _, err := c.Run(context.Background(), "ip", "route", "add", pods, "via",
				n.Address); err != nil {
				return nil, errors.Join(err, c.Stop())
			}
		}
	}
	return c, nil
}

// podsOf is the range of the default network's addresses on a node.
func podsOf(n *lab.Node) string {
	return "10.244." + n.Address[strings.LastIndex(n.Address, ".")+1:] + ".0/24"
}

// ofNode is a default network for one node.
func ofNode(n *lab.Node, network string) string {
	return strings.ReplaceAll(network, "10.244.0.0/16", podsOf(n))
}

// other is a default network that takes the place of another: its bridge and its addresses.
func other(network string) string {
	return strings.NewReplacer("cni0", "cni9", "10.244.", "10.245.").Replace(network)
}

// create makes a pod, as a controller of Kubernetes does: if the API server could not have it
// judged, as an instance of braid-controller is gone, it tries again.
func (w *world) create(ctx context.Context, pod *corev1.Pod) error {
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		_, err := w.Client().CoreV1().Pods(pod.Namespace).Create(ctx, pod, metav1.CreateOptions{})
		if !apierrors.IsInternalError(err) || time.Now().After(deadline) {
			return err
		}
	}
}

// world is the cluster as one test sees it.
type world struct {
	*lab.Cluster

	t   *testing.T
	ctx context.Context
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldFor(t, 3*patience)
}

// newWorldFor is newWorld for a test that may take that long.
func newWorldFor(t *testing.T, d time.Duration) *world {
	t.Helper()
	// t.Context ends before what t.Cleanup does.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), d)
	t.Cleanup(cancel)
	return &world{shared.Get(t), t, ctx}
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// eventually repeats a check until it returns no error.
func (w *world) eventually(what string, check func() error) {
	w.t.Helper()
	var err error
	for deadline := time.Now().Add(patience); time.Now().
		Before(deadline); time.Sleep(100 * time.Millisecond) {
		if err = check(); err == nil {
			return
		}
	}
	logs, _ := w.Kubectl(w.ctx, "logs", "--namespace="+namespace,
		"--selector=app.kubernetes.io/component=agent", "--tail=40")
	pods, _ := w.Kubectl(w.ctx, "get", "pods,events", "--all-namespaces") //nolint:errcheck // likewise
	w.t.Fatalf("%s: %v\n%s\n%s", what, err, logs, pods)
}

// described waits until `kubectl describe` of an object shows words.
func (w *world) described(kind, name string, words ...string) {
	w.t.Helper()
	w.eventually(fmt.Sprintf("%s %s is described with %q", kind, name, words), func() error {
		out, err := w.Kubectl(w.ctx, "describe", kind, name)
		for _, word := range words {
			if err == nil && !strings.Contains(out, word) {
				err = fmt.Errorf("%q is not in\n%s", word, out)
			}
		}
		return err
	})
}

// image is the name that the runtime has the image by.
func (w *world) image() string {
	w.t.Helper()
	images, err := w.Nodes()[0].Images(w.ctx)
	w.must(err)
	for _, image := range images {
		if strings.HasPrefix(image, "localhost/braid:") && !strings.HasSuffix(image, "-next") {
			return image
		}
	}
	w.t.Fatalf("no image of Braid in %q", images)
	return ""
}

// deploy applies conf/deploy with the image that the nodes have.
func (w *world) deploy() {
	w.t.Helper()
	dir := w.t.TempDir()
	files, err := filepath.Glob(filepath.Join(root(), "conf/deploy/*.yaml"))
	w.must(err)
	for _, f := range files {
		text, err := os.ReadFile(f)
		w.must(err)
		text = regexp.MustCompile(`image: "?braid:[^"\s]+"?`).
			ReplaceAll(text, []byte("image: "+w.image()))
		text = bytes.ReplaceAll(text, []byte("imagePullPolicy: IfNotPresent"),
			[]byte("imagePullPolicy: Never"))
		w.must(os.WriteFile(filepath.Join(dir, filepath.Base(f)), text, 0o600))
	}
	_, err = w.Kubectl(w.ctx, "apply", "-f", dir)
	w.must(err)
}

// network makes the pods' network.
func (w *world) network() {
	w.t.Helper()
	nad := fmt.Sprintf(`{"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition", `+
		`"metadata": {"name": "data-plane", "namespace": "default"}, "spec": {"config": %q}}`, dataPlane)
	w.eventually("the pods' network is admitted", func() error { return w.Apply(w.ctx, nad) })
}

// installed sees to it that Braid is on both nodes, which TestOneApply has put there if it ran.
func (w *world) installed() {
	w.t.Helper()
	_, err := w.Client().AppsV1().DaemonSets(namespace).Get(w.ctx, "braid-agent", metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		for _, n := range w.Nodes() {
			w.must(n.WaitReady(w.ctx))
		}
		w.deploy()
		err = nil
	}
	w.must(err)
	w.eventually("both nodes are ready", w.ready)
	w.network()
}

// removed sees to it that Braid is on no node, as TestUninstall leaves them if it ran. No pod may
// have its networks any more, but those of the controller.
func (w *world) removed() {
	w.t.Helper()
	for _, n := range w.Nodes() {
		w.must(n.WaitReady(w.ctx))
	}
	for _, file := range []string{"webhook.yaml", "controller.yaml", "agent.yaml", "10-rbac.yaml"} {
		_, err := w.Kubectl(w.ctx, "delete", "--ignore-not-found", "--cascade=foreground", "-f",
			filepath.Join(root(), "conf/deploy", file))
		w.must(err)
	}
	for _, n := range w.Nodes() {
		for _, path := range []string{
			configuration, privateDir, binDir + "/braid", binDir + "/braid-full", stateDir,
		} {
			w.must(os.RemoveAll(n.Path(path)))
		}
		w.must(n.WriteFile(confDir+"/"+networkName, []byte(ofNode(n, defaultNetwork)), 0o644))
	}
}

// private sees to it that Braid is on both nodes, and that the default network's file is where no
// runtime looks.
func (w *world) private() {
	w.t.Helper()
	w.installed()
	sets := w.Client().AppsV1().DaemonSets(namespace)
	d, err := sets.Get(w.ctx, "braid-agent", metav1.GetOptions{})
	w.must(err)
	if container := &d.Spec.Template.Spec.Containers[0]; !slices.Contains(container.Args, moveFlag) {
		container.Args = append(container.Args, moveFlag)
		_, err = sets.Update(w.ctx, d, metav1.UpdateOptions{})
		w.must(err)
	}
	w.eventually("the default network is moved", w.moved)
}

// moved returns an error unless the default network's file is where no runtime looks, on all nodes,
// and all agents are up to date.
func (w *world) moved() error {
	for _, n := range w.Nodes() {
		if _, err := os.Stat(n.Path("/etc/cni/net.d/10-pods.conflist")); err == nil {
			return fmt.Errorf("the default network of %s is where the runtime looks", n.Name)
		}
	}
	return w.rolledOut()
}

// ready asks the CLI, as a user of kubectl does.
func (w *world) ready() error {
	config, err := w.Kubeconfig(lab.UserAdmin)
	w.must(err)
	cli, err := filepath.Abs(filepath.Join(root(), "bin/braidctl"))
	w.must(err)
	out, err := w.Run(w.ctx, cli, "status", "--kubeconfig", config)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return nil
}

// pod makes a pod on a node that asks for a network, and returns it when it runs.
func (w *world) pod(name, node string) *corev1.Pod {
	w.t.Helper()
	pod := lab.Pod("default", name, map[string]string{nadv1.NetworksAnnotation: "data-plane"})
	pod.Spec.NodeName = node
	w.must(w.create(w.ctx, pod))
	return w.running(name)
}

func (w *world) running(name string) *corev1.Pod {
	w.t.Helper()
	pod, err := w.WaitPodRunning(w.ctx, "default", name)
	w.must(err)
	if status := pod.Annotations[nadv1.StatusAnnotation]; !strings.Contains(status, `"net1"`) {
		w.t.Errorf("pod %s runs without its network: network-status %q", name, status)
	}
	return pod
}

func (w *world) gone(names ...string) {
	w.t.Helper()
	for _, name := range names {
		w.must(w.Client().CoreV1().Pods("default").Delete(w.ctx, name, metav1.DeleteOptions{}))
	}
	for _, name := range names {
		w.must(w.WaitPodGone(w.ctx, "default", name))
	}
}

// agents are the pods of the DaemonSet.
func (w *world) agents() []corev1.Pod {
	w.t.Helper()
	list, err := w.Client().CoreV1().Pods(namespace).
		List(w.ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=agent"})
	w.must(err)
	return list.Items
}

func (w *world) rolledOut() error {
	d, err := w.Client().AppsV1().DaemonSets(namespace).Get(w.ctx, "braid-agent", metav1.GetOptions{})
	if err != nil {
		return err
	}
	if s := d.Status; s.ObservedGeneration < d.Generation ||
		int(s.UpdatedNumberScheduled) != len(w.Nodes()) || int(s.NumberReady) != len(w.Nodes()) {
		return fmt.Errorf("the DaemonSet is at %+v", s)
	}
	return nil
}

// TestOneApply is the first test of the cluster. After one apply pods of all nodes get their
// networks, and `braidctl status` says so. Agents that are killed, or replaced by others, are no
// outage.
func TestOneApply(t *testing.T) {
	w := newWorld(t)
	w.removed()
	start := time.Now()
	w.deploy()
	w.eventually("both nodes are ready", w.ready)
	t.Logf("from apply to both nodes ready: %v", time.Since(start).Round(100*time.Millisecond))
	w.network()
	addresses := map[string]bool{}
	for _, n := range w.Nodes() {
		pod := w.pod("on-"+n.Name, n.Name)
		addresses[regexp.MustCompile(`10\.20\.0\.\d+`).
			FindString(pod.Annotations[nadv1.StatusAnnotation])] = true
	}
	if len(addresses) != 2 || addresses[""] {
		t.Errorf("addresses %v", addresses)
	}
	for _, agent := range w.agents() {
		second := int64(0)
		w.must(w.Client().CoreV1().Pods(namespace).
			Delete(w.ctx, agent.Name, metav1.DeleteOptions{GracePeriodSeconds: &second}))
	}
	w.pod("without-agents", "node-1")
	w.gone("on-node-1", "on-node-2", "without-agents")
	w.eventually("agents are back", w.rolledOut)
	w.eventually("both nodes are ready again", w.ready)
}

// TestConfigurationIsPutBack: what removes Braid's configuration is found out, mended and told.
func TestConfigurationIsPutBack(t *testing.T) {
	w := newWorld(t)
	w.installed()
	n := w.Nodes()[0]
	configuration := "/etc/cni/net.d/00-braid.conflist"
	w.must(os.Rename(n.Path(configuration), n.Path(configuration+".cilium_bak")))
	w.eventually("the configuration is back", func() error {
		_, err := os.Stat(n.Path(configuration))
		return err
	})
	w.described("node", n.Name, "was renamed")
	w.must(os.Remove(n.Path(configuration + ".cilium_bak")))
	w.pod("after-repair", n.Name)
	w.gone("after-repair")
}

// TestPrivateDirectory: the default network's file is where no runtime looks, so nobody can start a
// pod without Braid; what its own agent writes anew is moved, too. No pod that starts meanwhile
// runs without its network.
func TestPrivateDirectory(t *testing.T) {
	w := newWorld(t)
	w.installed()
	sets := w.Client().AppsV1().DaemonSets(namespace)
	d, err := sets.Get(w.ctx, "braid-agent", metav1.GetOptions{})
	w.must(err)
	container := &d.Spec.Template.Spec.Containers[0]
	container.Args = append(container.Args, moveFlag)
	_, err = sets.Update(w.ctx, d, metav1.UpdateOptions{})
	w.must(err)
	n := w.Nodes()[0]
	var names []string
	for i := 0; w.moved() != nil || i < 4; i++ {
		name := fmt.Sprintf("private-%d", i)
		w.pod(name, n.Name)
		names = append(names, name)
	}
	w.must(n.WriteFile("/etc/cni/net.d/10-pods.conflist", []byte(other(ofNode(n, defaultNetwork))),
		0o644))
	w.eventually("what its agent wrote is moved", w.moved)
	pod := w.pod("private-again", n.Name)
	if ip := pod.Status.PodIP; !strings.HasPrefix(ip, "10.245.") {
		t.Errorf("the address is %s, of the network as it was before", ip)
	}
	w.gone(append(names, pod.Name)...)
}
