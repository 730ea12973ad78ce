package install_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	admissionv1 "k8s.io/api/admissionregistration/v1"
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
	r := newRig(t)
	r.private()
	before := r.agentMemory()
	c := r.churn()
	c.more()
	c.end()
	after := r.agentMemory()
	for _, n := range r.Nodes() {
		t.Logf("agent of %s: %.1f MB resident, %.1f MB after the churn",
			n.Name, megabytes(before[n.Name]), megabytes(after[n.Name]))
		if max(before[n.Name], after[n.Name]) > maxAgentMemory {
			t.Errorf("more than %.0f MB", megabytes(maxAgentMemory))
		}
	}
}

func megabytes(bytes int) float64 { return float64(bytes) / (1 << 20) }

// agentMemory returns the resident memory of the agents, in bytes, by node.
func (r *rig) agentMemory() map[string]int {
	r.t.Helper()
	memory := map[string]int{}
	for _, n := range r.Nodes() {
		r.eventually("the agent's memory is known", func() (err error) {
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
	r := newRig(t)
	r.private()
	c := r.churn()
	for try := 1; ; try++ {
		begun := time.Now()
		c.more()
		c.more()
		upgrade := time.Now()
		r.upgrade()
		r.eventually("agents are replaced", r.rolledOut)
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
func (r *rig) upgrade() {
	r.t.Helper()
	sets := r.Client().AppsV1().DaemonSets(namespace)
	d, err := sets.Get(r.ctx, "braid-agent", metav1.GetOptions{})
	r.must(err)
	if d.Spec.Template.Annotations == nil {
		d.Spec.Template.Annotations = map[string]string{}
	}
	d.Spec.Template.Annotations["test/upgraded"] = time.Now().String()
	_, err = sets.Update(r.ctx, d, metav1.UpdateOptions{})
	r.must(err)
}

// TestAdmissionDelay prints how much longer pods with networks take because they are judged: until
// they are made, and until they run. Pods are made by turns with and without.
func TestAdmissionDelay(t *testing.T) {
	r := newRig(t)
	r.installed()
	defer r.judging(true)
	made, run := map[bool][]time.Duration{}, map[bool][]time.Duration{}
	for round := range 4 {
		judged := round%2 == 0
		r.judging(judged)
		for i := range 5 {
			name := fmt.Sprintf("delay-%d-%d", round, i)
			pod := lab.Pod("default", name, map[string]string{nadv1.NetworksAnnotation: "data-plane"})
			pod.Spec.NodeName = "node-1"
			start := time.Now()
			r.must(r.create(r.ctx, pod))
			made[judged] = append(made[judged], time.Since(start))
			r.running(name)
			run[judged] = append(run[judged], time.Since(start))
			r.gone(name)
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
func (r *rig) judging(wanted bool) {
	r.t.Helper()
	configs := r.Client().AdmissionregistrationV1().MutatingWebhookConfigurations()
	config, err := configs.Get(r.ctx, "braid-controller", metav1.GetOptions{})
	r.must(err)
	never := admissionv1.MatchCondition{Name: "never", Expression: "false"}
	conditions := &config.Webhooks[0].MatchConditions
	*conditions = slices.DeleteFunc(*conditions, func(c admissionv1.MatchCondition) bool {
		return c.Name == never.Name
	})
	if !wanted {
		*conditions = append(*conditions, never)
	}
	_, err = configs.Update(r.ctx, config, metav1.UpdateOptions{})
	r.must(err)
	time.Sleep(time.Second) // API servers hear of it
}
