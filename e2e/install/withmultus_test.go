package install_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/e2e/lab"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

const (
	multusConf = "/etc/cni/net.d/00-multus.conf"
	// savedConf is where an operator keeps Multus's configuration for the way back.
	savedConf  = "/etc/cni/former/00-multus.conf"
	braidConf  = "/etc/cni/net.d/00-braid.conflist"
	multusDir  = "/var/lib/cni/multus"
	runtimeDir = "/var/lib/cni/results"
	// multusNAD is on a link that both nodes are on, with addresses that each node counts for itself.
	multusNAD = `{"cniVersion": "1.0.0", "type": "macvlan", "master": "eth1", ` +
		`"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.30.%d.0/24"}]]}}`
	// multusDefault is a default network with a plugin that leaves rules outside of the pod.
	multusDefault = `{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "bridge", "bridge": "cni0", "isDefaultGateway": true,
		"ipMasq": true, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/16"}]]}},
		{"type": "portmap", "capabilities": {"portMappings": true}}]}`
)

// migration is a node on its way between Multus and Braid.
type migration struct {
	*world

	n *lab.Node
}

// newMigration is a cluster whose nodes have a default network, and neither Braid nor Multus.
func newMigration(t *testing.T) *migration {
	t.Helper()
	w := newWorld(t)
	m := &migration{w, w.Nodes()[0]}
	w.removed()
	for _, n := range w.Nodes() {
		for _, path := range []string{multusConf, multusDir} { // of a test before
			w.must(os.RemoveAll(n.Path(path)))
		}
		w.must(n.InstallPlugins(w.ctx, "macvlan", "portmap"))
		w.must(n.WriteFile("/etc/cni/net.d/10-pods.conflist", []byte(ofNode(n, multusDefault)), 0o644))
	}
	_, err := w.Kubectl(w.ctx, "apply", "-f", filepath.Join(root(), "conf/deploy/00-crds.yaml"))
	w.must(err)
	nad := fmt.Sprintf(`{"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition", `+
		`"metadata": {"name": "data-plane", "namespace": "default"}, "spec": {"config": %q}}`,
		fmt.Sprintf(multusNAD, 0))
	w.eventually("the kind of NADs", func() error { return w.Apply(w.ctx, nad) })
	m.loaded("pods")
	return m
}

// installMultus puts Multus on the nodes: the binary that BRAID_MULTUS names, else the stand-in for
// it.
func (m *migration) installMultus() {
	m.t.Helper()
	binary := os.Getenv("BRAID_MULTUS")
	if binary == "" {
		dir := m.t.TempDir()
		m.must(lab.Build(m.ctx, dir, "github.com/braid-cni/braid/e2e/lab/multus"))
		binary = filepath.Join(dir, "multus")
	}
	m.t.Logf("Multus is %s", binary)
	config, err := m.Kubeconfig(lab.UserAdmin)
	m.must(err)
	text, err := json.Marshal(map[string]any{
		"cniVersion": "1.0.0", "name": "multus-cni-network", "type": "multus",
		"capabilities": map[string]bool{"portMappings": true},
		"kubeconfig":   "/etc/cni/net.d/multus.d/multus.kubeconfig",
		"delegates":    []any{json.RawMessage(multusDefault)},
	})
	m.must(err)
	for _, n := range m.Nodes() {
		m.must(n.Install(binary, "/opt/cni/bin/multus", 0o755))
		m.must(n.Install(config, "/etc/cni/net.d/multus.d/multus.kubeconfig", 0o600))
		own := []byte(ofNode(n, string(text)))
		m.must(n.WriteFile(savedConf, own, 0o600))
		m.must(n.WriteFile(multusConf, own, 0o600))
	}
	m.loaded("multus-cni-network")
}

// loaded waits until containerd has a configuration.
func (m *migration) loaded(name string) {
	m.t.Helper()
	m.eventually("containerd has "+name, func() error {
		pod := lab.Pod("default", "probe", nil)
		pod.Spec.NodeName = m.n.Name
		if err := m.world.create(m.ctx, pod); err != nil {
			return err
		}
		_, err := m.WaitPodRunning(m.ctx, "default", "probe")
		m.must(err)
		defer m.gone("probe")
		if entries, _ := filepath.Glob(
			m.n.Path(runtimeDir) + "/" + name + "-" + m.sandbox("probe") + "-eth0"); len(entries) == 1 {
			return nil
		}
		return errors.New("another one made the pod")
	})
}

// server makes a pod with data-plane that answers at port 8080, and has a port of the node.
func (m *migration) server(name string, hostPort int32) *corev1.Pod {
	m.t.Helper()
	m.create(name, hostPort, map[string]string{nadv1.NetworksAnnotation: "data-plane"})
	return m.running(name)
}

func (m *migration) create(name string, hostPort int32, annotations map[string]string) {
	m.t.Helper()
	pod := lab.Pod("default", name, annotations)
	pod.Spec.NodeName = m.n.Name
	c := &pod.Spec.Containers[0]
	c.Args = []string{"serve", "0.0.0.0:8080", name}
	c.Ports = []corev1.ContainerPort{{ContainerPort: 8080, HostPort: hostPort}}
	m.must(m.world.create(m.ctx, pod))
}

// sandbox is the ID of a pod's sandbox.
func (m *migration) sandbox(name string) string {
	m.t.Helper()
	pod, err := m.Client().CoreV1().Pods("default").Get(m.ctx, name, metav1.GetOptions{})
	m.must(err)
	filter := fmt.Sprintf(
		`labels."io.cri-containerd.kind"==sandbox,labels."io.kubernetes.pod.uid"==%q`, pod.UID)
	id, err := m.n.Ctr(m.ctx, "containers", "list", "--quiet", filter)
	m.must(err)
	if len(strings.Fields(id)) != 1 {
		m.t.Fatalf("sandboxes of pod %s: %q", name, id)
	}
	return strings.TrimSpace(id)
}

// traces are the files of the node that name a sandbox, and the rules of the packet filter that do.
// host-local's index of Braid is not among them: the next operation on the network brings it up to
// date after somebody else's.
func (m *migration) traces(id string) string {
	m.t.Helper()
	script := `cd /
		for dir in var/lib/cni run/braid/sandboxes run/braid/cni; do
			[ ! -d $dir ] || { grep -rl --exclude-dir=.braid ` + id + ` $dir; find $dir -name '*` + id + `*'; }
		done | sort -u
		{ iptables-save; nft list ruleset; } 2>/dev/null | grep ` + id + ` || true`
	out, err := m.n.Run(m.ctx, "sh", "-c", script)
	m.must(err)
	return out
}

// nothingLeft waits until no file and no rule names the sandbox: the kubelet may forget a pod a
// moment before.
func (m *migration) nothingLeft(what, id string) {
	m.t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for m.traces(id) != "" && time.Now().Before(deadline) {
		time.Sleep(200 * time.Millisecond)
	}
	if left := m.traces(id); left != "" {
		m.t.Errorf("of %s is left:\n%s", what, left)
	}
}

func address(pod *corev1.Pod, pattern string) string {
	return regexp.MustCompile(pattern).FindString(pod.Annotations[nadv1.StatusAnnotation])
}

// traffic has a pod connect to the others by both of their interfaces until the returned function
// is called, which reports what failed.
func (m *migration) traffic(from string, to ...*corev1.Pod) (stop func()) {
	m.t.Helper()
	netns, err := m.n.PodNetns(m.ctx, "default", from)
	m.must(err)
	var targets []string
	for _, pod := range to {
		targets = append(targets, pod.Status.PodIP+" "+pod.Name,
			address(pod, `10\.30\.\d+\.\d+`)+" "+pod.Name)
	}
	round := func(ctx context.Context) error {
		for _, target := range targets {
			ip, name, _ := strings.Cut(target, " ")
			script := fmt.Sprintf("exec 3<>/dev/tcp/%s/8080 && read -r who <&3 && [ $who = %s ]", ip, name)
			if out, err := m.Run(ctx, "nsenter", "--net="+netns, "timeout", "5", "bash", "-c",
				script); err != nil {
				return fmt.Errorf("from %s to %s: %w: %s", from, target, err, out)
			}
		}
		return nil
	}
	m.eventually("traffic", func() error { return round(m.ctx) })
	ctx, cancel := context.WithCancel(m.ctx)
	var wait sync.WaitGroup
	rounds := 0
	wait.Go(func() {
		for ; ctx.Err() == nil; rounds++ {
			if err := round(ctx); err != nil && ctx.Err() == nil {
				m.t.Errorf("after %d rounds of traffic: %v", rounds, err)
				return
			}
			time.Sleep(200 * time.Millisecond)
		}
	})
	return func() {
		m.t.Helper()
		cancel()
		wait.Wait()
		m.t.Logf("%d rounds of traffic %s", rounds, from)
		m.must(round(m.ctx))
	}
}

// braid calls the plugin as the runtime does.
func (m *migration) braid(verb, id, name string, more map[string]any) error {
	m.t.Helper()
	raw, err := os.ReadFile(m.n.Path(braidConf))
	m.must(err)
	var list struct {
		Name, CNIVersion string
		Plugins          []map[string]any
	}
	m.must(json.Unmarshal(raw, &list))
	conf := list.Plugins[0]
	conf["name"], conf["cniVersion"] = list.Name, list.CNIVersion
	for key, value := range more {
		conf[key] = value
	}
	text, err := json.Marshal(conf)
	m.must(err)
	m.must(m.n.WriteFile("/tmp/stdin", text, 0o600))
	script := fmt.Sprintf("CNI_COMMAND=%s CNI_PATH=/opt/cni/bin CNI_CONTAINERID=%s CNI_IFNAME=eth0 "+
		"CNI_NETNS=$(ctr_netns) "+
		"CNI_ARGS='K8S_POD_NAMESPACE=default;K8S_POD_NAME=%s' /opt/cni/bin/braid </tmp/stdin", verb,
		id, name)
	if verb == "GC" {
		script = "CNI_COMMAND=GC CNI_PATH=/opt/cni/bin /opt/cni/bin/braid </tmp/stdin"
	} else {
		netns, err := m.n.PodNetns(m.ctx, "default", name)
		m.must(err)
		// as containerd names it
		script = strings.Replace(script, "$(ctr_netns)",
			"/var"+netns[strings.Index(netns, "/run/netns"):], 1)
	}
	out, err := m.n.Run(m.ctx, "sh", "-c", script)
	if err != nil {
		return fmt.Errorf("%s of %s: %w: %s", verb, name, err, out)
	}
	return nil
}

// says fails unless `braidctl status` has the text.
func (m *migration) says(text string) error {
	config, err := m.Kubeconfig(lab.UserAdmin)
	m.must(err)
	cli, err := filepath.Abs(filepath.Join(root(), "bin/braidctl"))
	m.must(err)
	out, err := m.Run(m.ctx, cli, "status", "--kubeconfig", config)
	if err == nil && !strings.Contains(out, text) {
		err = fmt.Errorf("it says\n%s", out)
	}
	return err
}

func (m *migration) has(path string, want bool) {
	m.t.Helper()
	if found, _ := filepath.Glob(m.n.Path(path)); (len(found) > 0) != want {
		m.t.Errorf("%s: found %q, want some: %t", path, found, want)
	}
}

// TestMigrateFromMultus: Braid comes to a node with pods of Multus, which keep their traffic, and
// are checked and removed by Multus's plugin though the runtime asks Braid: also one that the API
// server has forgotten. Nothing is left of them, nor of one that the default network alone made
// before. Pods made after are Braid's.
func TestMigrateFromMultus(t *testing.T) {
	m := newMigration(t)
	m.create("early", 30000, nil)
	_, err := m.WaitPodRunning(m.ctx, "default", "early")
	m.must(err)
	early := m.sandbox("early")
	if traces := m.traces(early); !strings.Contains(traces, "results/pods-") ||
		!strings.Contains(traces, "dnat") {
		t.Errorf("a pod of the default network has the traces\n%s", traces)
	}
	m.installMultus()
	first, second, forgotten := m.server("first", 30001), m.server("second",
		30002), m.server("forgotten", 30003)
	ids := map[string]string{}
	for _, pod := range []*corev1.Pod{first, second, forgotten} {
		id := m.sandbox(pod.Name)
		ids[pod.Name] = id
		m.has(multusDir+"/"+id, true)
		for _, part := range []string{
			"networks/pods/", "networks/data-plane/", "results/multus-cni-network-", "dnat",
		} {
			if traces := m.traces(id); !strings.Contains(traces, part) {
				t.Errorf("a pod of Multus has no trace %s:\n%s", part, traces)
			}
		}
	}
	stop := m.traffic("first", second, forgotten)
	m.deploy()
	m.eventually("Braid is ready", m.ready)
	m.loaded("braid")
	m.eventually("`braidctl status` counts the pods of Multus", func() error {
		return m.says("pods that multus-cni-network made")
	})
	m.has(multusConf, true)
	own := m.server("own", 30004)
	ids["own"] = m.sandbox("own")
	m.has("/run/braid/sandboxes/"+ids["own"]+".json", true)
	m.has(multusDir+"/"+ids["own"], false)
	stop()
	stop = m.traffic("first", second, own)

	m.must(m.braid("CHECK", ids["first"], "first", nil))
	var valid []map[string]any
	for _, id := range ids {
		valid = append(valid, map[string]any{"containerID": id, "ifname": "eth0"})
	}
	before := m.traces(ids["first"])
	m.must(m.braid("GC", "", "", map[string]any{"cni.dev/valid-attachments": valid}))
	if after := m.traces(ids["first"]); after != before {
		t.Errorf("before Braid's GC\n%s, after it\n%s", before, after)
	}

	zero := int64(0)
	m.must(m.Client().CoreV1().Pods("default").
		Delete(m.ctx, "forgotten", metav1.DeleteOptions{GracePeriodSeconds: &zero}))
	m.nothingLeft("a pod that the API server forgot", ids["forgotten"])
	stop()
	m.gone("second", "first", "early")
	m.nothingLeft("a pod of the default network", early)
	m.nothingLeft("a pod of Multus", ids["first"])
	m.nothingLeft("a pod of Multus", ids["second"])
	for _, path := range []string{
		multusConf, "/etc/cni/net.d/multus.d", "/opt/cni/bin/multus", multusDir,
	} {
		m.must(os.RemoveAll(m.n.Path(path)))
	}
	m.server("later", 30001)
	m.gone("own", "later")
	m.nothingLeft("a pod of Braid", ids["own"])
}

// TestMigrateToMultus: the configuration of Multus is put back while pods of Braid run, which keep
// their traffic. They are removed by what the runtime asks, Multus's plugin, and what that does not
// know by Braid's agent. Nothing is left of them, and nothing is taken from Multus's pods.
func TestMigrateToMultus(t *testing.T) {
	m := newMigration(t)
	m.installMultus()
	for _, n := range m.Nodes() {
		m.must(os.Remove(n.Path(multusConf)))
	}
	m.deploy()
	m.eventually("Braid is ready", m.ready)
	m.loaded("braid")
	first, second := m.server("first", 30001), m.server("second", 30002)
	ids := map[string]string{"first": m.sandbox("first"), "second": m.sandbox("second")}
	stop := m.traffic("first", second)

	// kubectl finds the plugin by its name in the PATH.
	dir := t.TempDir()
	cli, err := filepath.Abs(filepath.Join(root(), "bin/braidctl"))
	m.must(err)
	m.must(os.Symlink(cli, filepath.Join(dir, "kubectl-braid")))
	config, err := m.Kubeconfig(lab.UserAdmin)
	m.must(err)
	ended := make(chan error, 1)
	go func() {
		out, err := m.Run(m.ctx, "env", "PATH="+dir+":"+os.Getenv("PATH"),
			filepath.Join(lab.BinDir(t), "kubectl"),
			"braid", "uninstall", "--kubeconfig", config, "--restore", savedConf)
		ended <- errors.Join(err, func() error {
			if !strings.Contains(out, "the binaries are still needed by 2 sandboxes") {
				return fmt.Errorf("it did not say what it waited for: %s", out)
			}
			return nil
		}())
	}()
	m.eventually("Multus's configuration is back, and Braid's gone", func() error {
		_, err := os.Stat(m.n.Path(multusConf))
		if _, gone := os.Stat(m.n.Path(braidConf)); gone == nil {
			err = errors.New("Braid's is there")
		}
		return err
	})
	m.loaded("multus-cni-network")
	again := m.server("again", 30003)
	ids["again"] = m.sandbox("again")
	m.has(multusDir+"/"+ids["again"], true)
	stop()
	stop = m.traffic("again", again)
	if address(again, `10\.30\.\d+\.\d+`) == address(first, `10\.30\.\d+\.\d+`) {
		t.Error("Multus gave a pod the address of another")
	}
	whole := m.traces(ids["again"])
	m.gone("first", "second")
	m.must(<-ended)
	m.nothingLeft("a pod of Braid", ids["first"])
	m.nothingLeft("a pod of Braid", ids["second"])
	for _, path := range []string{
		"/opt/cni/bin/braid*", "/var/lib/braid/kubeconfig", "/run/braid/sandboxes/*",
		runtimeDir + "/braid-*",
	} {
		m.has(path, false)
	}
	stop()
	if traces := m.traces(ids["again"]); traces != whole {
		t.Errorf("a pod of Multus had\n%s, and has\n%s", whole, traces)
	}
	m.gone("again")
	m.nothingLeft("a pod of Multus", ids["again"])
}

// TestHotPlugBesideMultus: with hot-plug on, a pod that Multus made stays as it is, whatever its
// annotation asks for, while one that Braid made follows.
func TestHotPlugBesideMultus(t *testing.T) {
	m := newMigration(t)
	m.installMultus()
	m.server("others", 30001)
	m.deploy()
	m.eventually("Braid is ready", m.ready)
	m.loaded("braid")
	defer m.plugging()()
	m.server("own", 30002)
	others := func(want bool, link string) {
		t.Helper()
		netns, err := podNetns(m.n, "others")
		m.must(err)
		links, err := linksOf(netns)
		m.must(err)
		if got := len(links[link]) == 1; got != want {
			t.Errorf("the pod of Multus has links %v, %s: want %t", links, link, want)
		}
	}
	others(true, "net1")
	for _, pod := range []string{"others", "own"} {
		m.asks(pod, "")
	}
	m.eventually("Braid's pod has no network more", func() error {
		return m.published("own", `"net1"`, false)
	})
	others(true, "net1")
	for _, pod := range []string{"others", "own"} {
		m.asks(pod, "data-plane@more")
	}
	m.eventually("Braid's pod has another network", func() error {
		return m.published("own", `"more"`, true)
	})
	others(true, "net1")
	others(false, "more")
	id := m.sandbox("others")
	m.gone("others", "own")
	m.nothingLeft("a pod of Multus", id)
}
