package install_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
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
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/e2e/lab"
	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	nodev1 "github.com/braid-cni/braid/pkg/api/node/v1"
)

// kubeconfig is the CNI plugin's.
const kubeconfig = "/var/lib/braid/kubeconfig"

// outage is how long the API server is away. BRAID_OUTAGE=2m is for more patience than `make e2e`
// has.
func outage(t *testing.T) time.Duration {
	t.Helper()
	text := os.Getenv("BRAID_OUTAGE")
	if text == "" {
		return 20 * time.Second
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// TestAPIServerAwayAtBoot: the API server is away while the agent of one node is killed and the
// other node boots. When it is back nothing has to wait for long, and no agent has been restarted
// for want of it.
func TestAPIServerAwayAtBoot(t *testing.T) {
	w := newWorld(t)
	w.private()
	c := w.churn()
	killed, boots := w.Nodes()[0], w.Nodes()[1]
	restarts := w.restarts()

	w.stopAPIServer()
	w.killAgent(killed)
	w.must(boots.PowerOff(w.ctx))
	c.lost(boots)
	w.must(boots.PowerOn(w.ctx))
	time.Sleep(outage(t))
	starts := time.Now() // an agent is heard as soon as the API server is half up
	w.must(w.StartAPIServer(w.ctx))
	back := time.Now()
	w.eventually("both nodes are ready", func() error { return w.heardSince(starts) })
	t.Logf("after %v without an API server both nodes are ready in %v",
		outage(t), time.Since(back).Round(100*time.Millisecond))
	c.more()
	for node, count := range w.restarts() {
		if count != restarts[node]+1 {
			t.Errorf("the agent of %s was restarted %d times, not once", node, count-restarts[node])
		}
	}
	c.end()
}

// TestNodeReboots: a node loses all that runs, /run, and its links. Its pods come back with their
// networks, its agent comes back, and its addresses are given away again. The start-up taint that
// it boots with stays until its agent is back.
func TestNodeReboots(t *testing.T) {
	w := newWorld(t)
	w.private()
	c := w.churn()
	n := w.withoutLeader()
	before := w.blocks(n)

	w.must(n.PowerOff(w.ctx))
	c.lost(n)
	off := time.Now()
	w.taint(n)
	for range 3 { // passes of the controller
		time.Sleep(5 * time.Second)
		if !w.tainted(n) {
			t.Fatal("a node that is off lost the start-up taint")
		}
	}
	w.must(n.PowerOn(w.ctx))
	on := time.Now()
	w.eventually("the taint goes", func() error {
		if w.tainted(n) {
			return errors.New("it is there")
		}
		return nil
	})
	if err := w.heard(n, off); err != nil {
		t.Errorf("the taint went before the agent was back: %v", err)
	}
	t.Logf("from boot to the taint's end: %v", time.Since(on).Round(100*time.Millisecond))
	c.more()
	c.end()
	// Blocks of addresses outlive a boot: others of their own would be addresses lost.
	for _, block := range w.blocks(n) {
		if !slices.Contains(before, block) {
			t.Errorf("the node has taken block %s, and had %q", block, before)
		}
	}
}

// TestCredentialEnds: somebody replaces the kubeconfig of one node, such as by one of a backup
// whose token has expired. Then the ServiceAccount is another, which ends all tokens before their
// time, and nothing in the kubeconfigs shows it. Both times the agents put it right.
func TestCredentialEnds(t *testing.T) {
	w := newWorld(t)
	w.private()
	c := w.churn()
	n := w.Nodes()[0]
	expired := w.expireKubeconfig(n)
	replaced := time.Now()
	w.eventually("the kubeconfig is put right", func() error { return w.renewed(expired) })
	t.Logf("%v after a kubeconfig was replaced it is right",
		time.Since(replaced).Round(100*time.Millisecond))

	before := w.kubeconfigs()
	accounts := w.Client().CoreV1().ServiceAccounts(namespace)
	account, err := accounts.Get(w.ctx, "braid-cni", metav1.GetOptions{})
	w.must(err)
	w.must(accounts.Delete(w.ctx, account.Name, metav1.DeleteOptions{}))
	again := &corev1.ServiceAccount{
		ObjectMeta: metav1.ObjectMeta{
			Name: account.Name, Labels: account.Labels, Annotations: account.Annotations,
		},
	}
	_, err = accounts.Create(w.ctx, again, metav1.CreateOptions{})
	w.must(err)
	ended := time.Now()
	w.eventually("both nodes have another credential", func() error { return w.renewed(before) })
	t.Logf("%v after their end both nodes have other credentials",
		time.Since(ended).Round(100*time.Millisecond))
	c.more()
	c.end()
}

// expireKubeconfig replaces the CNI plugin's kubeconfig by one that is the same but for the time at
// which its token ended, and returns its sum.
func (w *world) expireKubeconfig(n *lab.Node) map[string][32]byte {
	w.t.Helper()
	good, err := os.ReadFile(n.Path(kubeconfig))
	w.must(err)
	token := regexp.MustCompile(`(?m)^ *token: (\S+)$`).FindSubmatch(good)
	if token == nil {
		w.t.Fatal("the kubeconfig has no token")
	}
	old, err := w.ExpiredToken(string(token[1]))
	w.must(err)
	expired := bytes.ReplaceAll(good, token[1], []byte(old))
	w.must(n.WriteFile(kubeconfig, expired, 0o600))
	return map[string][32]byte{n.Name: sha256.Sum256(expired)}
}

// TestSigningKeyChanges: the API server signs tokens with another key, and refuses all that it made
// before, the agent's among them. As soon as the kubelet has a new one for the agent, which is on
// one node when the kubelet is started anew and on the other when the agent's pod is, the agent
// gets one for the plugin.
func TestSigningKeyChanges(t *testing.T) {
	w := newWorld(t)
	w.private()
	before := w.kubeconfigs()
	c := w.churn()
	w.must(w.ChangeServiceAccountKey(w.ctx))
	n := w.Nodes()[0]
	n.KillKubelet()
	w.must(n.StartKubelet())
	for _, agent := range w.agents() {
		if agent.Spec.NodeName != n.Name {
			w.must(w.Client().CoreV1().Pods(namespace).Delete(w.ctx, agent.Name, metav1.DeleteOptions{}))
		}
	}
	// As every program of the cluster, the controller needs another token, too.
	_, err := w.Kubectl(w.ctx, "rollout", "restart", "--namespace="+namespace,
		"deployment/braid-controller")
	w.must(err)
	changed := time.Now()
	w.eventually("both nodes have another credential", func() error { return w.renewed(before) })
	t.Logf("after %v both nodes have other credentials",
		time.Since(changed).Round(100*time.Millisecond))
	c.more()
	c.end()
	w.eventually("agents are back", w.rolledOut)
}

// stopAPIServer takes the API server away. A test that fails before it is back has it back, too.
func (w *world) stopAPIServer() {
	w.t.Helper()
	w.StopAPIServer()
	w.t.Cleanup(func() {
		if _, err := w.Client().Discovery().ServerVersion(); err == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := w.StartAPIServer(ctx); err != nil {
			w.t.Error(err)
		}
	})
}

// killAgent kills the agent's process on a node.
func (w *world) killAgent(n *lab.Node) {
	w.t.Helper()
	pid, err := agentPID(n)
	w.must(err)
	_, err = n.Run(w.ctx, "kill", "-KILL", pid)
	w.must(err)
}

// agentPID returns the process ID of the agent, as its node sees it.
func agentPID(n *lab.Node) (string, error) {
	files, err := filepath.Glob(n.Path("/proc") + "/[0-9]*/cmdline")
	if err != nil {
		return "", err
	}
	for _, file := range files {
		if line, err := os.ReadFile(file); err == nil && strings.HasPrefix(string(line), "/braidd\x00") {
			return filepath.Base(filepath.Dir(file)), nil
		}
	}
	return "", fmt.Errorf("no agent runs on %s", n.Name)
}

// restarts returns how often the agent's container was started again, by node.
func (w *world) restarts() map[string]int {
	w.t.Helper()
	counts := map[string]int{}
	for _, agent := range w.agents() {
		for _, status := range agent.Status.ContainerStatuses {
			counts[agent.Spec.NodeName] = int(status.RestartCount)
		}
	}
	return counts
}

// heardSince returns an error unless all agents have said after that time that they are ready.
func (w *world) heardSince(since time.Time) error {
	for _, n := range w.Nodes() {
		if err := w.heard(n, since); err != nil {
			return err
		}
	}
	return nil
}

func (w *world) heard(n *lab.Node, since time.Time) error {
	node, err := w.Client().CoreV1().Nodes().Get(w.ctx, n.Name, metav1.GetOptions{})
	if err != nil {
		return err
	}
	for _, c := range node.Status.Conditions {
		if string(c.Type) == nodev1.Ready && c.Status == corev1.ConditionTrue &&
			!c.LastHeartbeatTime.Time.Before(since.Truncate(time.Second)) {
			return nil
		}
	}
	return fmt.Errorf("the agent of %s has not said that it is ready", n.Name)
}

// withoutLeader returns a node that the controller at work is not on.
func (w *world) withoutLeader() *lab.Node {
	w.t.Helper()
	var on string
	w.eventually("a controller is at work", func() error {
		lease, err := w.Client().CoordinationV1().Leases(namespace).
			Get(w.ctx, "braid-controller", metav1.GetOptions{})
		if err == nil && lease.Spec.HolderIdentity == nil {
			err = errors.New("the Lease has no holder")
		}
		if err != nil {
			return err
		}
		holder, _, _ := strings.Cut(*lease.Spec.HolderIdentity, "_")
		pod, err := w.Client().CoreV1().Pods(namespace).Get(w.ctx, holder, metav1.GetOptions{})
		if err == nil {
			on = pod.Spec.NodeName
		}
		return err
	})
	at := slices.IndexFunc(w.Nodes(), func(n *lab.Node) bool { return n.Name != on })
	return w.Nodes()[at]
}

func (w *world) taint(n *lab.Node) {
	w.t.Helper()
	_, err := w.Kubectl(w.ctx, "taint", "node", n.Name, nodev1.StartupTaint+"=:NoSchedule")
	w.must(err)
}

func (w *world) tainted(n *lab.Node) bool {
	w.t.Helper()
	node, err := w.Client().CoreV1().Nodes().Get(w.ctx, n.Name, metav1.GetOptions{})
	w.must(err)
	return slices.ContainsFunc(node.Spec.Taints, func(taint corev1.Taint) bool {
		return taint.Key == nodev1.StartupTaint
	})
}

// blocks returns the names of the blocks of addresses that a node owns.
func (w *world) blocks(n *lab.Node) (names []string) {
	w.t.Helper()
	var list v1alpha1.IPBlockList
	out, err := w.Kubectl(w.ctx, "get", v1alpha1.Resource, "--output=json")
	w.must(err)
	w.must(json.Unmarshal([]byte(out), &list))
	for _, block := range list.Items {
		if block.Spec.Owner != nil && block.Spec.Owner.NodeName == n.Name {
			names = append(names, block.Name)
		}
	}
	return names
}

// kubeconfigs returns the sums of the CNI plugin's kubeconfigs, by node.
func (w *world) kubeconfigs() map[string][32]byte {
	w.t.Helper()
	sums := map[string][32]byte{}
	for _, n := range w.Nodes() {
		content, err := os.ReadFile(n.Path(kubeconfig))
		w.must(err)
		sums[n.Name] = sha256.Sum256(content)
	}
	return sums
}

// renewed returns an error unless these kubeconfigs have been replaced.
func (w *world) renewed(before map[string][32]byte) error {
	for _, n := range w.Nodes() {
		content, err := os.ReadFile(n.Path(kubeconfig))
		if err != nil {
			return err
		}
		if sum, ok := before[n.Name]; ok && sha256.Sum256(content) == sum {
			return fmt.Errorf("the kubeconfig of %s is the former one", n.Name)
		}
	}
	return nil
}
