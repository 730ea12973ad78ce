package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// apiBudget is how long Braid tries one call: braid.timeouts.api in README.md.
const apiBudget = 20 * time.Second

// The API server goes away while an ADD is between its first and its last call, and comes back
// soon: the ADD goes on where it was.
func TestAPIServerAwayDuringADD(t *testing.T) {
	r := newRig(t)
	g := r.gate()
	r.nad("blue", macvlan("10.70.1.0/24"))
	r.create(r.pod("p", "gate,blue"))
	g.waitBegun()

	r.stopAPIServer()
	g.open()
	time.Sleep(apiBudget / 4) // it finds out
	r.startAPIServer()

	r.running(r.namespace, "p")
	r.attachedOnce("p")
	if failed := r.logLines(`msg="ADD failed"`, "pod="+r.namespace+"/p"); len(failed) > 0 {
		t.Errorf("an ADD did not hold out: %q", failed)
	}
}

// The same, for longer than Braid tries: the ADD is rolled back, the kubelet tries anew, and in the
// end everything is there once.
func TestAPIServerAwayForLong(t *testing.T) {
	r := newRig(t)
	g := r.gate()
	r.nad("blue", macvlan("10.70.2.0/24"))
	r.create(r.pod("p", "gate,blue"))
	g.waitBegun()

	r.stopAPIServer()
	g.open()
	var failed []string
	r.eventually("a failed ADD in the log", func() error {
		if failed = r.logLines(`msg="ADD failed"`, "pod="+r.namespace+"/p"); len(failed) == 0 {
			return errors.New("there is none")
		}
		return nil
	})
	if !strings.Contains(failed[0], "reason=APIUnavailable") ||
		!strings.Contains(failed[0], "code=11") {
		t.Errorf("an ADD failed for another reason than the API server, or not with code 11, try again "+
			"later: %s", failed[0])
	}
	r.nothingAttached()
	r.startAPIServer()

	r.running(r.namespace, "p")
	r.attachedOnce("p")
}

// While the API server is away, the sandbox of a pod without networks dies. The pod has another
// soon: nothing of that needs the API server.
func TestAPIAwayWithoutNetworks(t *testing.T) {
	r := newRig(t)
	r.run(r.pod("p", ""))
	before := r.netns("p")
	r.stopAPIServer()
	pids, err := r.node.Run(r.ctx, "ip", "netns", "pids", filepath.Base(before))
	r.must(err)
	_, err = r.node.Run(r.ctx, append([]string{"kill", "-KILL"}, strings.Fields(pids)...)...)
	r.must(err)
	r.eventually("another sandbox of the pod", func() error {
		all, err := records(r.node, r.namespace)
		if err == nil && (len(all) != 1 || !all[0].Complete || all[0].NetNS == before) {
			err = fmt.Errorf("the records are %+v", all)
		}
		return err
	})
	if failed := r.logLines(`msg="ADD failed"`, "pod="+r.namespace+"/p"); len(failed) > 0 {
		t.Errorf("an ADD failed: %q", failed)
	}
	r.startAPIServer()
	r.running(r.namespace, "p")
	r.hasLinks("p")
}

// netns is the path of the network namespace of the test's only pod of that name.
func (r *rig) netns(pod string) string {
	r.t.Helper()
	all, err := records(r.node, r.namespace)
	r.must(err)
	for _, rec := range all {
		if rec.Pod.Name == pod {
			return rec.NetNS
		}
	}
	r.t.Fatalf("there is no record of pod %s", pod)
	return ""
}

// The API server goes away between a pod's deletion and its DEL. DEL does without.
func TestAPIServerAwayDuringDEL(t *testing.T) {
	r := newRig(t)
	r.nad("blue", macvlan("10.70.3.0/24"))
	grace := int64(60)
	pod := r.pod("p", "blue,blue")
	pod.Spec.TerminationGracePeriodSeconds = &grace
	pod.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{
		PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 5}},
	}
	r.run(pod)
	pods := r.cluster.Client().CoreV1().Pods(r.namespace)
	r.must(pods.Delete(r.ctx, "p", metav1.DeleteOptions{}))
	r.eventually("the kubelet knows of the deletion", func() error {
		events, err := r.cluster.Client().CoreV1().Events(r.namespace).
			List(r.ctx, metav1.ListOptions{FieldSelector: "reason=Killing"})
		if err == nil && len(events.Items) == 0 {
			err = errors.New("there is no event that it kills the container")
		}
		return err
	})
	if lines := r.logLines("msg=DEL ", "pod="+r.namespace+"/p"); len(lines) != 0 {
		t.Fatalf("the test is too slow, DEL is done: %q", lines)
	}

	r.stopAPIServer()
	r.clean()
	if lines := r.logLines("msg=DEL ", "level=INFO", "pod="+r.namespace+"/p"); len(lines) != 1 {
		t.Errorf("%d successful lines of DEL, want 1: %q", len(lines), lines)
	}
	r.startAPIServer()
	r.must(r.cluster.WaitPodGone(r.ctx, r.namespace, "p"))
}

// stopAPIServer kills the API server; where the test does not start it again, its end does.
func (r *rig) stopAPIServer() {
	r.t.Helper()
	r.cluster.StopAPIServer()
	r.apiDown = true
	r.t.Cleanup(func() {
		if r.apiDown {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := r.cluster.StartAPIServer(ctx); err != nil {
				r.t.Error(err)
			}
		}
	})
}

func (r *rig) startAPIServer() {
	r.t.Helper()
	r.must(r.cluster.StartAPIServer(r.ctx))
	r.apiDown = false
}

// attachedOnce fails the test unless the pod has eth0 and net2 once, and the node no more than
// that.
func (r *rig) attachedOnce(pod string) {
	r.t.Helper()
	links := r.links(pod)
	if len(links) != 2 || len(links["net2"].global()) != 1 || len(links["eth0"].global()) != 1 {
		r.t.Errorf("pod %s has %v, want eth0 and net2 with an address each", pod, links)
	}
	status := r.status(pod)
	if len(status) != 3 || status[2].Interface != "net2" || len(status[2].IPs) != 1 {
		r.t.Errorf("network-status is %+v, want net2 third", status)
	}
	r.eventually("one sandbox, and leases for two addresses", func() error { return r.holds(1, 2) })
}

// nothingAttached fails the test unless the node soon has neither record nor lease.
func (r *rig) nothingAttached() {
	r.t.Helper()
	r.eventually("neither record nor lease", func() error { return r.holds(0, 0) })
}

// holds reports whether the node has so many records and leases beyond those it has without pods.
func (r *rig) holds(wantRecords, wantLeases int) error {
	left, err := leftovers(r.ctx, r.node)
	if err != nil {
		return err
	}
	records, leases := 0, 0
	left = beyond(left, clean)
	for _, item := range left {
		if strings.HasPrefix(item, "file run/braid/sandboxes/") && strings.HasSuffix(item, ".json") {
			records++
		}
		if strings.HasPrefix(item, "file var/lib/cni/networks/") {
			leases++
		}
	}
	if records != wantRecords || leases != wantLeases {
		return errors.New("there are\n  " + strings.Join(left, "\n  "))
	}
	return nil
}

// gate is a network of the plugin of that name, which holds up an ADD.
type gate struct{ r *rig }

// gate makes a closed gate and a NAD "gate" that leads through it.
func (r *rig) gate() *gate {
	r.t.Helper()
	g := &gate{r}
	for _, file := range []string{"begun", "open"} {
		if err := os.Remove(g.path(file)); err != nil && !os.IsNotExist(err) {
			r.t.Fatal(err)
		}
	}
	r.t.Cleanup(func() { // whatever has failed, nothing waits any more
		if err := os.WriteFile(g.path("open"), nil, 0o600); err != nil {
			r.t.Error(err)
		}
	})
	r.nad("gate", `{"cniVersion": "1.0.0", "type": "gate"}`)
	return g
}

func (g *gate) path(file string) string { return g.r.node.Path(gateDir + "/" + file) }

// waitBegun waits until an ADD stands before the gate.
func (g *gate) waitBegun() {
	g.r.t.Helper()
	g.r.eventually("an ADD at the gate", func() error {
		_, err := os.Stat(g.path("begun"))
		return err
	})
}

// open lets it, and all later ones, through.
func (g *gate) open() {
	g.r.t.Helper()
	g.r.must(os.WriteFile(g.path("open"), nil, 0o600))
}
