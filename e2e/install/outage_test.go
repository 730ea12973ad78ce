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
	r := newRig(t)
	r.private()
	c := r.churn()
	killed, boots := r.Nodes()[0], r.Nodes()[1]
	restarts := r.restarts()

	r.stopAPIServer()
	r.killAgent(killed)
	r.must(boots.PowerOff(r.ctx))
	c.lost(boots)
	r.must(boots.PowerOn(r.ctx))
	time.Sleep(outage(t))
	starts := time.Now() // an agent is heard as soon as the API server is half up
	r.must(r.StartAPIServer(r.ctx))
	back := time.Now()
	r.eventually("both nodes are ready", func() error { return r.heardSince(starts) })
	t.Logf("after %v without an API server both nodes are ready in %v",
		outage(t), time.Since(back).Round(100*time.Millisecond))
	c.more()
	for node, count := range r.restarts() {
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
	r := newRig(t)
	r.private()
	c := r.churn()
	n := r.withoutLeader()
	before := r.blocks(n)

	r.must(n.PowerOff(r.ctx))
	c.lost(n)
	off := time.Now()
	r.taint(n)
	for range 3 { // passes of the controller
		time.Sleep(5 * time.Second)
		if !r.tainted(n) {
			t.Fatal("a node that is off lost the start-up taint")
		}
	}
	r.must(n.PowerOn(r.ctx))
	on := time.Now()
	r.eventually("the taint goes", func() error {
		if r.tainted(n) {
			return errors.New("it is there")
		}
		return nil
	})
	if err := r.heard(n, off); err != nil {
		t.Errorf("the taint went before the agent was back: %v", err)
	}
	t.Logf("from boot to the taint's end: %v", time.Since(on).Round(100*time.Millisecond))
	c.more()
	c.end()
	// Blocks of addresses outlive a boot: others of their own would be addresses lost.
	for _, block := range r.blocks(n) {
		if !slices.Contains(before, block) {
			t.Errorf("the node has taken block %s, and had %q", block, before)
		}
	}
}

// TestCredentialEnds: somebody replaces the kubeconfig of one node, such as by one of a backup
// whose token has expired. Then the ServiceAccount is another, which ends all tokens before their
// time, and nothing in the kubeconfigs tells of it. Both times the agents put it right.
func TestCredentialEnds(t *testing.T) {
	r := newRig(t)
	r.private()
	c := r.churn()
	n := r.Nodes()[0]
	expired := r.expireKubeconfig(n)
	replaced := time.Now()
	r.eventually("the kubeconfig is put right", func() error { return r.renewed(expired) })
	t.Logf("%v after a kubeconfig was replaced it is right",
		time.Since(replaced).Round(100*time.Millisecond))

	before := r.kubeconfigs()
	accounts := r.Client().CoreV1().ServiceAccounts(namespace)
	account, err := accounts.Get(r.ctx, "braid-cni", metav1.GetOptions{})
	r.must(err)
	r.must(accounts.Delete(r.ctx, account.Name, metav1.DeleteOptions{}))
	again := &corev1.ServiceAccount{
		ObjectMeta: metav1.ObjectMeta{
			Name: account.Name, Labels: account.Labels, Annotations: account.Annotations,
		},
	}
	_, err = accounts.Create(r.ctx, again, metav1.CreateOptions{})
	r.must(err)
	ended := time.Now()
	r.eventually("both nodes have another credential", func() error { return r.renewed(before) })
	t.Logf("%v after their end both nodes have other credentials",
		time.Since(ended).Round(100*time.Millisecond))
	c.more()
	c.end()
}

// expireKubeconfig replaces the CNI plugin's kubeconfig by one that is the same but for the time at
// which its token ended, and returns its sum.
func (r *rig) expireKubeconfig(n *lab.Node) map[string][32]byte {
	r.t.Helper()
	good, err := os.ReadFile(n.Path(kubeconfig))
	r.must(err)
	token := regexp.MustCompile(`(?m)^ *token: (\S+)$`).FindSubmatch(good)
	if token == nil {
		r.t.Fatal("the kubeconfig has no token")
	}
	old, err := r.ExpiredToken(string(token[1]))
	r.must(err)
	expired := bytes.ReplaceAll(good, token[1], []byte(old))
	r.must(n.WriteFile(kubeconfig, expired, 0o600))
	return map[string][32]byte{n.Name: sha256.Sum256(expired)}
}

// TestSigningKeyChanges: the API server signs tokens with another key, and refuses all that it made
// before, the agent's among them. As soon as the kubelet has a new one for the agent, which is on
// one node when the kubelet is started anew and on the other when the agent's pod is, the agent
// gets one for the plugin.
func TestSigningKeyChanges(t *testing.T) {
	r := newRig(t)
	r.private()
	before := r.kubeconfigs()
	c := r.churn()
	r.must(r.ChangeServiceAccountKey(r.ctx))
	n := r.Nodes()[0]
	n.KillKubelet()
	r.must(n.StartKubelet())
	for _, agent := range r.agents() {
		if agent.Spec.NodeName != n.Name {
			r.must(r.Client().CoreV1().Pods(namespace).Delete(r.ctx, agent.Name, metav1.DeleteOptions{}))
		}
	}
	// As every program of the cluster, the controller needs another token, too.
	_, err := r.Kubectl(r.ctx, "rollout", "restart", "--namespace="+namespace,
		"deployment/braid-controller")
	r.must(err)
	changed := time.Now()
	r.eventually("both nodes have another credential", func() error { return r.renewed(before) })
	t.Logf("after %v both nodes have other credentials",
		time.Since(changed).Round(100*time.Millisecond))
	c.more()
	c.end()
	r.eventually("agents are back", r.rolledOut)
}

// stopAPIServer takes the API server away. A test that fails before it is back has it back, too.
func (r *rig) stopAPIServer() {
	r.t.Helper()
	r.StopAPIServer()
	r.t.Cleanup(func() {
		if _, err := r.Client().Discovery().ServerVersion(); err == nil {
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := r.StartAPIServer(ctx); err != nil {
			r.t.Error(err)
		}
	})
}

// killAgent kills the agent's process on a node.
func (r *rig) killAgent(n *lab.Node) {
	r.t.Helper()
	pid, err := agentPID(n)
	r.must(err)
	_, err = n.Run(r.ctx, "kill", "-KILL", pid)
	r.must(err)
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
func (r *rig) restarts() map[string]int {
	r.t.Helper()
	counts := map[string]int{}
	for _, agent := range r.agents() {
		for _, status := range agent.Status.ContainerStatuses {
			counts[agent.Spec.NodeName] = int(status.RestartCount)
		}
	}
	return counts
}

// heardSince returns an error unless all agents have said after that time that they are ready.
func (r *rig) heardSince(since time.Time) error {
	for _, n := range r.Nodes() {
		if err := r.heard(n, since); err != nil {
			return err
		}
	}
	return nil
}

func (r *rig) heard(n *lab.Node, since time.Time) error {
	node, err := r.Client().CoreV1().Nodes().Get(r.ctx, n.Name, metav1.GetOptions{})
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
func (r *rig) withoutLeader() *lab.Node {
	r.t.Helper()
	var on string
	r.eventually("a controller is at work", func() error {
		lease, err := r.Client().CoordinationV1().Leases(namespace).
			Get(r.ctx, "braid-controller", metav1.GetOptions{})
		if err == nil && lease.Spec.HolderIdentity == nil {
			err = errors.New("the Lease has no holder")
		}
		if err != nil {
			return err
		}
		holder, _, _ := strings.Cut(*lease.Spec.HolderIdentity, "_")
		pod, err := r.Client().CoreV1().Pods(namespace).Get(r.ctx, holder, metav1.GetOptions{})
		if err == nil {
			on = pod.Spec.NodeName
		}
		return err
	})
	at := slices.IndexFunc(r.Nodes(), func(n *lab.Node) bool { return n.Name != on })
	return r.Nodes()[at]
}

func (r *rig) taint(n *lab.Node) {
	r.t.Helper()
	_, err := r.Kubectl(r.ctx, "taint", "node", n.Name, nodev1.StartupTaint+"=:NoSchedule")
	r.must(err)
}

func (r *rig) tainted(n *lab.Node) bool {
	r.t.Helper()
	node, err := r.Client().CoreV1().Nodes().Get(r.ctx, n.Name, metav1.GetOptions{})
	r.must(err)
	return slices.ContainsFunc(node.Spec.Taints, func(taint corev1.Taint) bool {
		return taint.Key == nodev1.StartupTaint
	})
}

// blocks returns the names of the blocks of addresses that a node owns.
func (r *rig) blocks(n *lab.Node) (names []string) {
	r.t.Helper()
	var list v1alpha1.IPBlockList
	out, err := r.Kubectl(r.ctx, "get", v1alpha1.Resource, "--output=json")
	r.must(err)
	r.must(json.Unmarshal([]byte(out), &list))
	for _, block := range list.Items {
		if block.Spec.Owner != nil && block.Spec.Owner.NodeName == n.Name {
			names = append(names, block.Name)
		}
	}
	return names
}

// kubeconfigs returns the sums of the CNI plugin's kubeconfigs, by node.
func (r *rig) kubeconfigs() map[string][32]byte {
	r.t.Helper()
	sums := map[string][32]byte{}
	for _, n := range r.Nodes() {
		content, err := os.ReadFile(n.Path(kubeconfig))
		r.must(err)
		sums[n.Name] = sha256.Sum256(content)
	}
	return sums
}

// renewed returns an error unless these kubeconfigs have been replaced.
func (r *rig) renewed(before map[string][32]byte) error {
	for _, n := range r.Nodes() {
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
