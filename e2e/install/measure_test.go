package install_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/e2e/lab"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

const (
	// maxAgentMemory is what an agent may have resident.
	maxAgentMemory = 50 << 20
	// maxDelay is by how much an upgrade may delay the start of a pod.
	maxDelay = 2 * time.Second
)

// TestAgentMemory: an agent is small, before pods come and go and after.
func TestAgentMemory(t *testing.T) {
	w := newWorld(t)
	w.private()
	before := w.agentMemory()
	c := w.churn()
	c.more()
	c.end()
	after := w.agentMemory()
	for _, n := range w.Nodes() {
		t.Logf("agent of %s: %.1f MB resident, %.1f MB after the churn",
			n.Name, megabytes(before[n.Name]), megabytes(after[n.Name]))
		if max(before[n.Name], after[n.Name]) > maxAgentMemory {
			t.Errorf("more than %.0f MB", megabytes(maxAgentMemory))
		}
	}
}

func megabytes(bytes int) float64 { return float64(bytes) / (1 << 20) }

// agentMemory returns the resident memory of the agents, in bytes, by node.
func (w *world) agentMemory() map[string]int {
	w.t.Helper()
	memory := map[string]int{}
	for _, n := range w.Nodes() {
		w.eventually("the agent's memory is known", func() (err error) {
			memory[n.Name], err = resident(n)
			return err
		})
	}
	return memory
}

func resident(n *lab.Node) (int, error) {
	pid, err := agentPID(n)
	if err != nil {
		return 0, err
	}
	return memoryOf(n, pid, "VmRSS")
}

// memoryOf returns a field of a process's status, in bytes.
func memoryOf(n *lab.Node, pid, field string) (int, error) {
	status, err := os.ReadFile(n.Path("/proc/" + pid + "/status"))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(status), "\n"+field+":")
	kilobytes := 0
	if _, err := fmt.Sscan(rest, &kilobytes); err != nil {
		return 0, fmt.Errorf("read %s of process %s: %w", field, pid, err)
	}
	return kilobytes << 10, nil
}

// TestPodsDuringAnUpgrade: no pod that starts while agents are replaced runs without its network,
// or starts much later than others. As a busy machine only adds to the time, one upgrade of three
// is enough to show it.
func TestPodsDuringAnUpgrade(t *testing.T) {
	w := newWorld(t)
	w.private()
	c := w.churn()
	for try := 1; ; try++ {
		begun := time.Now()
		c.more()
		c.more()
		upgrade := time.Now()
		w.upgrade()
		w.eventually("agents are replaced", w.rolledOut)
		c.more()
		calm, busy := c.took(begun, upgrade), c.took(upgrade, time.Now())
		usual, slowest := calm[len(calm)-1], busy[len(busy)-1]
		t.Logf("a pod takes %v at most; %v while agents are replaced, of %d",
			usual.Round(10*time.Millisecond), slowest.Round(10*time.Millisecond), len(busy))
		if slowest <= usual+maxDelay {
			break
		}
		if try == 3 {
			t.Errorf("a pod started %v later than usual", slowest-usual)
			break
		}
	}
	c.end()
}

// upgrade replaces all agents by others of the same image.
func (w *world) upgrade() {
	w.t.Helper()
	sets := w.Client().AppsV1().DaemonSets(namespace)
	d, err := sets.Get(w.ctx, "braid-agent", metav1.GetOptions{})
	w.must(err)
	if d.Spec.Template.Annotations == nil {
		d.Spec.Template.Annotations = map[string]string{}
	}
	d.Spec.Template.Annotations["test/upgraded"] = time.Now().String()
	_, err = sets.Update(w.ctx, d, metav1.UpdateOptions{})
	w.must(err)
}

// TestAdmissionDelay prints how much longer pods with networks take because they are judged: until
// they are made, and until they run. Pods are made by turns with and without.
func TestAdmissionDelay(t *testing.T) {
	w := newWorld(t)
	w.installed()
	defer w.judging(true)
	made, run := map[bool][]time.Duration{}, map[bool][]time.Duration{}
	for round := range 4 {
		judged := round%2 == 0
		w.judging(judged)
		for i := range 5 {
			name := fmt.Sprintf("delay-%d-%d", round, i)
			pod := lab.Pod("default", name, map[string]string{nadv1.NetworksAnnotation: "data-plane"})
			pod.Spec.NodeName = "node-1"
			start := time.Now()
			w.must(w.create(w.ctx, pod))
			made[judged] = append(made[judged], time.Since(start))
			w.running(name)
			run[judged] = append(run[judged], time.Since(start))
			w.gone(name)
		}
	}
	for what, took := range map[string]map[bool][]time.Duration{"made": made, "running": run} {
		with, without := median(took[true]), median(took[false])
		t.Logf("a pod with networks is %s after %v, and after %v without admission: %.2f times", what,
			with.Round(100*time.Microsecond), without.Round(100*time.Microsecond),
			float64(with)/float64(without))
	}
}

func median(times []time.Duration) time.Duration {
	slices.Sort(times)
	return times[len(times)/2]
}

// judging has the API server ask about pods, or not.
func (w *world) judging(wanted bool) {
	w.t.Helper()
	configs := w.Client().AdmissionregistrationV1().MutatingWebhookConfigurations()
	config, err := configs.Get(w.ctx, "braid-controller", metav1.GetOptions{})
	w.must(err)
	never := admissionv1.MatchCondition{Name: "never", Expression: "false"}
	conditions := &config.Webhooks[0].MatchConditions
	*conditions = slices.DeleteFunc(*conditions, func(c admissionv1.MatchCondition) bool {
		return c.Name == never.Name
	})
	if !wanted {
		*conditions = append(*conditions, never)
	}
	_, err = configs.Update(w.ctx, config, metav1.UpdateOptions{})
	w.must(err)
	time.Sleep(time.Second) // API servers hear of it
}

// TestThirtyPodsWithFourNetworks prints how long thirty pods with four networks that are made at
// once take until they run, and until they are gone, beside the same pods with the default network
// alone. The kubelet goes on with so many pods for minutes after they are gone, so the cluster is
// one of its own.
func TestThirtyPodsWithFourNetworks(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	t.Cleanup(cancel)
	cluster, err := start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cluster.Stop(); err != nil {
			t.Error(err)
		}
	})
	w := &world{cluster, t, ctx}
	w.installed()
	var names []string
	for i := range 4 {
		name := fmt.Sprint("four-", i)
		w.must(w.Apply(w.ctx, w.nad(name, fmt.Sprintf(`{"cniVersion": "1.0.0", "type": "macvlan",
			"master": "eth1", "ipam": {"type": "whereabouts", "range": "10.%d.0.0/16"}}`, 84+i), "")))
		names = append(names, name)
	}
	for round := range 2 {
		bare := w.pace(fmt.Sprintf("bare-%d", round), "")
		four := w.pace(fmt.Sprintf("four-%d", round), strings.Join(names, ","))
		t.Logf("thirty pods, all running: %v with the default network alone, %v with four more, "+
			"%.2f times; all gone: %v and %v, %.2f times", bare.up, four.up,
			float64(four.up)/float64(bare.up), bare.down, four.down,
			float64(four.down)/float64(bare.down))
	}
}

// pace is how long it took until all pods ran, and until all were gone.
type pace struct{ up, down time.Duration }

// pace makes thirty pods at once and deletes them when all run. No two have an address in common,
// and no address is held at the end.
func (w *world) pace(name, networks string) (p pace) {
	w.t.Helper()
	const pods = 30
	var names []string
	start := time.Now()
	for i := range pods {
		pod := lab.Pod("default", fmt.Sprintf("%s-%d", name, i), nil)
		pod.Spec.NodeName = "node-1"
		if networks != "" {
			pod.Annotations = map[string]string{nadv1.NetworksAnnotation: networks}
		}
		w.must(w.create(w.ctx, pod))
		names = append(names, pod.Name)
	}
	var running []*corev1.Pod
	for _, name := range names {
		pod, err := w.WaitPodRunning(w.ctx, "default", name)
		w.must(err)
		running = append(running, pod)
	}
	p.up = time.Since(start).Round(time.Millisecond)
	if networks != "" {
		w.ownAddresses(running)
	}
	start = time.Now()
	w.gone(names...)
	p.down = time.Since(start).Round(time.Millisecond)
	w.eventually("no address is held", func() error {
		held, err := filepath.Glob(w.Nodes()[0].Path("/run/braid/ipam/held/*"))
		if err == nil && len(held) > 0 {
			err = fmt.Errorf("held: %q", held)
		}
		return err
	})
	return p
}

// ownAddresses reports an error unless each pod has five addresses that no other has.
func (w *world) ownAddresses(pods []*corev1.Pod) {
	w.t.Helper()
	owner := map[string]string{}
	for _, pod := range pods {
		for _, status := range networkStatus(w.t, pod.Annotations[nadv1.StatusAnnotation]) {
			for _, ip := range status.IPs {
				if other, taken := owner[ip]; taken {
					w.t.Errorf("%s and %s have address %s", pod.Name, other, ip)
				}
				owner[ip] = pod.Name
			}
		}
	}
	if want := 5 * len(pods); len(owner) != want {
		w.t.Errorf("%d pods have %d addresses, want %d", len(pods), len(owner), want)
	}
}
