package install_test

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/e2e/lab"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	nodev1 "github.com/braid-cni/braid/pkg/api/node/v1"
)

// lonely is where a client is without the plugin that it would become: what it does the agent does.
const lonely = "/run/lonely"

// call is one call of the CNI protocol by hand.
type call struct {
	verb, id, pod, uid, networks string
	// dir is the directory of the client.
	dir string
	// path is the sandbox's network namespace; empty for that of its ID.
	path string
}

func (c *call) netns() string { return cmp.Or(c.path, "/run/netns/"+c.id) }

// stdin is Braid's configuration as the runtime passes it for a pod with networks. change, if not
// nil, changes it.
func (w *world) stdin(n *lab.Node, networks string, change func(config map[string]any)) []byte {
	w.t.Helper()
	raw, err := os.ReadFile(n.Path(configuration))
	w.must(err)
	var list struct {
		Name, CNIVersion string
		Plugins          []map[string]any
	}
	w.must(json.Unmarshal(raw, &list))
	config := list.Plugins[0]
	config["name"], config["cniVersion"] = list.Name, list.CNIVersion
	config["runtimeConfig"] = map[string]any{"io.kubernetes.cri.pod-annotations": map[string]string{
		"kubernetes.io/config.source": "api", nadv1.NetworksAnnotation: networks,
	}}
	if change != nil {
		change(config)
	}
	text, err := json.Marshal(config)
	w.must(err)
	return text
}

// call makes a call, and returns what its client prints.
func (w *world) call(n *lab.Node, c *call) (string, error) {
	w.t.Helper()
	stdin := "/tmp/stdin-" + c.id
	w.must(n.WriteFile(stdin, w.stdin(n, c.networks, nil), 0o600))
	script := fmt.Sprintf("CNI_COMMAND=%s CNI_PATH=%s CNI_CONTAINERID=%s CNI_IFNAME=eth0 "+
		"CNI_NETNS=%s "+
		"CNI_ARGS='K8S_POD_NAMESPACE=default;K8S_POD_NAME=%s;K8S_POD_UID=%s' %s/braid <%s 2>&1 || { "+
		"echo; echo failed; }",
		c.verb, binDir, c.id, c.netns(), c.pod, c.uid, c.dir, stdin)
	out, err := n.Run(w.ctx, "sh", "-c", script)
	w.must(err)
	if strings.HasSuffix(out, "failed\n") {
		return out, fmt.Errorf("%s of %s: %s", c.verb, c.id, out)
	}
	return out, nil
}

// byAgent makes a call that the agent has to do. A client of a busy machine soon waits no longer.
func (w *world) byAgent(n *lab.Node, c *call) error {
	w.t.Helper()
	var err error
	for deadline := time.Now().Add(patience); time.Now().
		Before(deadline); time.Sleep(20 * time.Millisecond) {
		var out string
		if out, err = w.call(n, c); err == nil || !strings.Contains(out, lonely+"/braid-full") {
			return err
		}
	}
	return err
}

// alone puts the client of a directory of the node where it is alone.
func (w *world) alone(n *lab.Node, dir string) {
	w.t.Helper()
	_, err := n.Run(w.ctx, "sh", "-ec",
		"rm -rf "+lonely+"; mkdir "+lonely+"; cp "+dir+"/braid "+lonely)
	w.must(err)
}

// unseen makes pods of a node with networks, which its kubelet does not see, and returns their
// uids.
func (w *world) unseen(n *lab.Node, networks string, names ...string) (uids []string, end func()) {
	w.t.Helper()
	n.KillKubelet()
	pods := w.Client().CoreV1().Pods("default")
	for _, name := range names {
		pod := lab.Pod("default", name, map[string]string{nadv1.NetworksAnnotation: networks})
		pod.Spec.NodeName = n.Name
		w.must(w.create(w.ctx, pod))
		made, err := pods.Get(w.ctx, name, metav1.GetOptions{})
		w.must(err)
		uids = append(uids, string(made.UID))
	}
	return uids, func() {
		w.t.Helper()
		now := int64(0)
		for _, name := range names {
			err := pods.Delete(w.ctx, name, metav1.DeleteOptions{GracePeriodSeconds: &now})
			if !apierrors.IsNotFound(err) {
				w.must(err)
			}
		}
		w.must(n.StartKubelet())
		w.must(n.WaitReady(w.ctx))
	}
}

// namespace makes a network namespace of a node.
func (w *world) namespace(n *lab.Node, c *call) (remove func()) {
	w.t.Helper()
	_, err := n.Run(w.ctx, "ip", "netns", "add", c.id)
	w.must(err)
	return func() {
		w.t.Helper()
		_, err := n.Run(w.ctx, "ip", "netns", "delete", c.id)
		w.must(err)
	}
}

// as is the call with another verb.
func (c *call) as(verb string) *call {
	other := *c
	other.verb = verb
	return &other
}

// TestAgentAsksNothing: an ADD with networks that the agent does costs one PATCH, and events. A DEL
// costs nothing. A network that was made a moment ago is found.
func TestAgentAsksNothing(t *testing.T) {
	w := newWorld(t)
	w.installed()
	n := w.Nodes()[0]
	w.alone(n, binDir)
	var pods []string
	for i := range 10 {
		pods = append(pods, fmt.Sprint("asks-", i))
	}
	uids, end := w.unseen(n, "data-plane,data-plane", pods...)
	defer end()
	requests := func(do func()) map[string]int {
		all, err := w.RequestsDuring(w.ctx, "system:serviceaccount:kube-system:braid-cni", func() error {
			do()
			return nil
		})
		w.must(err)
		count := map[string]int{}
		for _, request := range all {
			// Events are sent after the answer, and the agent tries its credential now and then.
			if request.Resource != "events" && request.Resource != "selfsubjectreviews" {
				count[request.Verb+" "+request.Resource]++
			}
		}
		return count
	}
	// The first ones get a block of addresses, or the agent may have begun a moment ago.
	var got map[string]int
	for i, pod := range pods {
		c := &call{
			verb: "ADD", id: pod, pod: pod, uid: uids[i], networks: "data-plane,data-plane", dir: lonely,
		}
		remove := w.namespace(n, c)
		got = requests(func() { w.must(w.byAgent(n, c)) })
		t.Logf("ADD %d made requests %v", i, got)
		if made := requests(func() { w.must(w.byAgent(n, c.as("DEL"))) }); len(made) > 0 {
			t.Errorf("a DEL made requests %v", made)
		}
		remove()
	}
	if want := map[string]int{"patch pods": 1}; !maps.Equal(got, want) {
		t.Errorf("the last ADD made requests %v, want %v", got, want)
	}
	for i := range 10 {
		name := fmt.Sprint("moment-", i)
		nad := fmt.Sprintf(`{"apiVersion": "k8s.cni.cncf.io/v1", `+
			`"kind": "NetworkAttachmentDefinition", "metadata": {"name": %q, "namespace": "default"}, `+
			`"spec": {"config": %q}}`, name, dataPlane)
		w.eventually("the NAD is admitted", func() error { return w.Apply(w.ctx, nad) })
		c := &call{verb: "ADD", id: name, pod: pods[0], uid: uids[0], networks: name, dir: lonely}
		remove := w.namespace(n, c)
		w.must(w.byAgent(n, c))
		w.must(w.byAgent(n, c.as("DEL")))
		remove()
		_, err := w.Kubectl(w.ctx, "delete", "net-attach-def", name)
		w.must(err)
	}
}

// TestAPIServerAwayDuringCalls: the agent does a DEL without the API server. An ADD is to be tried
// again later, and is done then.
func TestAPIServerAwayDuringCalls(t *testing.T) {
	w := newWorld(t)
	w.installed()
	n := w.Nodes()[0]
	w.alone(n, binDir)
	uids, end := w.unseen(n, "data-plane", "away")
	defer end()
	before := &call{
		verb: "ADD", id: "away-before", pod: "away", uid: uids[0], networks: "data-plane", dir: lonely,
	}
	during := &call{
		verb: "ADD", id: "away-during", pod: "away", uid: uids[0], networks: "data-plane", dir: lonely,
	}
	defer w.namespace(n, before)()
	defer w.namespace(n, during)()
	w.must(w.byAgent(n, before))
	w.stopAPIServer()
	w.must(w.byAgent(n, before.as("DEL")))
	err := w.byAgent(n, during)
	if err == nil || !regexp.MustCompile(`"code": *11\b`).MatchString(err.Error()) {
		t.Errorf("an ADD without the API server: %v", err)
	}
	w.must(w.byAgent(n, during.as("DEL")))
	w.must(w.StartAPIServer(w.ctx))
	w.eventually("the ADD is done", func() error { return w.byAgent(n, during) })
	w.must(w.byAgent(n, during.as("DEL")))
	w.eventually("both nodes are ready", w.ready)
}

// TestRuntimeRestarts: the runtime is killed again and again while pods come and go by the agent.
// None starts without its networks. What it forgets of those that were on their way, the agent
// removes.
func TestRuntimeRestarts(t *testing.T) {
	w := newWorld(t)
	w.private() // else CRI-O takes the network from pods that were there before Braid
	c := w.churn()
	for range 3 {
		for _, n := range w.Nodes() {
			n.KillRuntime()
			w.must(n.StartRuntime(w.ctx))
		}
		c.more()
	}
	w.restartAgents() // which compare at their start, and a minute later
	c.end()
	w.eventually("both nodes are ready", w.ready)
}

const (
	// many is how many ADDs there are at once.
	many = 500
	// manyGroup is the cgroup of their clients.
	manyGroup = "braid-e2e-many"
	// maxBusyMemory is what the agent may have resident meanwhile.
	maxBusyMemory = 80 << 20
	manyNetwork   = `{"cniVersion": "1.0.0", "name": "many", "plugins": [{"type": "bridge", "bridge": "cni8", "isDefaultGateway": true,
		"ipam": {"type": "host-local", "ranges": [[{"subnet": "10.246.0.0/16"}]]}}]}`
	manyNAD = `{"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition", "metadata": {"name": "many", "namespace": "default"},
		"spec": {"config": "{\"cniVersion\": \"1.0.0\", \"type\": \"macvlan\", \"master\": \"eth1\", \"ipam\": {\"type\": \"whereabouts\", \"range\": \"10.40.0.0/16\"}}"}}`
)

// TestManyAtOnce: 500 ADDs at once on one node all succeed, with addresses of their own, and so do
// their DELs. The agent stays small.
func TestManyAtOnce(t *testing.T) {
	w := newWorld(t)
	w.installed()
	n := w.Nodes()[0]
	w.eventually("the NAD is admitted", func() error { return w.Apply(w.ctx, manyNAD) })
	w.must(n.WriteFile("/run/many.conflist", []byte(manyNetwork), 0o600))
	w.must(n.WriteFile("/run/many/stdin", w.stdin(n, "many", func(config map[string]any) {
		config["clusterNetwork"] = "/run/many.conflist"
	}), 0o600))
	w.manyDo(n, "ip netns add many-$i")
	uids, end := w.unseen(n, "many", w.manyPods()...)
	defer end()
	for i, uid := range uids {
		w.must(n.WriteFile(fmt.Sprint("/run/many/uid-", i+1), []byte(uid+"\n"), 0o600))
	}
	before := w.fallbacks(n)
	took := w.manyCall(n, "ADD")
	rss, peak := w.busyMemory(n)
	t.Logf("%d ADDs at once took %v; fallbacks %v; the agent has %.1f MB resident, %.1f MB at most",
		many, took, w.since(n, before), megabytes(rss), megabytes(peak))
	if peak > maxBusyMemory {
		t.Errorf("more than %.0f MB", megabytes(maxBusyMemory))
	}
	w.distinct(n)
	before = w.fallbacks(n)
	took = w.manyCall(n, "DEL")
	t.Logf("%d DELs at once took %v; fallbacks %v", many, took, w.since(n, before))
	for _, pattern := range []string{"sandboxes/many-*", "ipam/held/*many-*"} {
		out, err := n.Run(w.ctx, "sh", "-c", "ls -d /run/braid/"+pattern+" 2>/dev/null || true")
		if err != nil || out != "" {
			t.Errorf("left: %s, %v", out, err)
		}
	}
	w.manyDo(n, "ip netns delete many-$i")
	_, err := n.Run(w.ctx, "sh", "-ec", "ip link delete cni8; rm -r /run/many /run/many.conflist")
	w.must(err)
}

func (w *world) manyPods() (names []string) {
	for i := range many {
		names = append(names, fmt.Sprint("many-", i+1))
	}
	return names
}

// manyDo runs a command for each i.
func (w *world) manyDo(n *lab.Node, command string) {
	w.t.Helper()
	_, err := n.Run(w.ctx, "sh", "-ec", fmt.Sprintf("for i in $(seq %d); do %s; done", many, command))
	w.must(err)
}

// manyCall makes all calls at once, and returns how long that took. One that fails is tried again
// after a DEL, as runtimes do; one that fails twice fails the test. The clients have a cgroup of
// their own, as a runtime has: 500 processes of the root cgroup would leave no time to an agent
// that has one.
func (w *world) manyCall(n *lab.Node, verb string) time.Duration {
	w.t.Helper()
	start := time.Now()
	out, err := n.Run(w.ctx, "sh", "-c", fmt.Sprintf(`cd /run/many
		for dir in /sys/fs/cgroup/cpu /sys/fs/cgroup; do
			[ ! -e $dir/cgroup.procs ] || { mkdir -p $dir/%s; echo $$ >$dir/%s/cgroup.procs; break; }
		done
		call() {
			CNI_COMMAND=$1 CNI_PATH=%s CNI_CONTAINERID=many-$i CNI_IFNAME=eth0 CNI_NETNS=/run/netns/many-$i \
				CNI_ARGS="K8S_POD_NAMESPACE=default;K8S_POD_NAME=many-$i;K8S_POD_UID=$uid" %s/braid <stdin >out-$i 2>&1
		}
		for i in $(seq %d); do
			read uid <uid-$i
			{ call %[6]s || { echo many-$i >>again; call DEL; call %[6]s; } || echo many-$i >>failed; } &
		done
		wait
		[ ! -s failed ] || { wc -l <failed; cat out-$(head -1 failed | cut -d- -f2); rm failed; }`,
		manyGroup, manyGroup, binDir, binDir, many, verb))
	w.must(err)
	_, err = n.Run(w.ctx, "sh", "-c",
		fmt.Sprintf("rmdir /sys/fs/cgroup/cpu/%s || rmdir /sys/fs/cgroup/%s", manyGroup, manyGroup))
	w.must(err)
	if out != "" {
		w.t.Errorf("%s fails: %s", verb, out)
	}
	if again, err := os.ReadFile(n.Path("/run/many/again")); err == nil {
		w.t.Logf("%s was tried again of %q", verb, again)
		w.must(os.Remove(n.Path("/run/many/again")))
	}
	return time.Since(start).Round(100 * time.Millisecond)
}

// distinct wants all sandboxes to have two addresses that no other has.
func (w *world) distinct(n *lab.Node) {
	w.t.Helper()
	out, err := n.Run(w.ctx, "sh", "-ec", fmt.Sprintf(`for i in $(seq %d); do
			echo; echo many-$i; ip netns exec many-$i ip -o -4 address show scope global
		done`, many))
	w.must(err)
	seen := map[string]bool{}
	for sandbox := range strings.SplitSeq(strings.TrimSpace(out), "\n\n") {
		id, _, _ := strings.Cut(sandbox, "\n")
		addresses := regexp.MustCompile(`10\.(246|40)\.\d+\.\d+/`).FindAllString(sandbox, -1)
		if len(addresses) != 2 || seen[addresses[0]] || seen[addresses[1]] {
			log, err := n.Run(w.ctx, "sh", "-c", fmt.Sprintf(
				"grep -hw %s /var/log/braid*.log; cat /run/many/out-%s; ip netns exec %s ip address",
				id, id[len("many-"):], id))
			w.t.Errorf("sandbox %s, %v\n%s", sandbox, err, log)
		}
		for _, address := range addresses {
			seen[address] = true
		}
	}
}

// busyMemory is the agent's memory, now and at most.
func (w *world) busyMemory(n *lab.Node) (rss, peak int) {
	w.t.Helper()
	pid, err := agentPID(n)
	w.must(err)
	rss, err = memoryOf(n, pid, "VmRSS")
	w.must(err)
	peak, err = memoryOf(n, pid, "VmHWM")
	w.must(err)
	return rss, peak
}

// fallbacks are the calls that a node did without the agent, by reason, as the agent reports them:
// every ten seconds it counts the notes of clients.
func (w *world) fallbacks(n *lab.Node) map[string]int {
	w.t.Helper()
	w.eventually("the notes are counted", func() error {
		if info, err := os.Stat(n.Path("/run/braid/agent/fallbacks")); err == nil && info.Size() > 0 {
			return errors.New("there are some")
		}
		return nil
	})
	node, err := w.Client().CoreV1().Nodes().Get(w.ctx, n.Name, metav1.GetOptions{})
	w.must(err)
	var report nodev1.Report
	w.must(json.Unmarshal([]byte(node.Annotations[nodev1.ReportAnnotation]), &report))
	return report.Fallbacks
}

// since are the fallbacks of a time.
func (w *world) since(n *lab.Node, before map[string]int) map[string]int {
	now := map[string]int{}
	maps.Copy(now, w.fallbacks(n))
	for reason, count := range before {
		now[reason] -= count
	}
	maps.DeleteFunc(now, func(_ string, count int) bool { return count == 0 })
	return now
}
