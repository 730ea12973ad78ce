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
	w := newWorkspace(t)
	g := w.gate()
	w.nad("blue", macvlan("10.70.1.0/24"))
	w.create(w.pod("p", "gate,blue"))
	g.waitBegun()

	w.stopAPIServer()
	g.open()
	time.Sleep(apiBudget / 4) // it finds out
	w.startAPIServer()

	w.running(w.namespace, "p")
	w.attachedOnce("p")
	if failed := w.logLines(`msg="ADD failed"`, "pod="+w.namespace+"/p"); len(failed) > 0 {
		t.Errorf("an ADD did not hold out: %q", failed)
	}
}

// The same, for longer than Braid tries: the ADD is rolled back, the kubelet tries anew, and in the
// end everything is there once.
func TestAPIServerAwayForLong(t *testing.T) {
	w := newWorkspace(t)
	g := w.gate()
	w.nad("blue", macvlan("10.70.2.0/24"))
	w.create(w.pod("p", "gate,blue"))
	g.waitBegun()

	w.stopAPIServer()
	g.open()
	var failed []string
	w.eventually("a failed ADD in the log", func() error {
		if failed = w.logLines(`msg="ADD failed"`, "pod="+w.namespace+"/p"); len(failed) == 0 {
			return errors.New("there is none")
		}
		return nil
	})
	if !strings.Contains(failed[0], "reason=APIUnavailable") ||
		!strings.Contains(failed[0], "code=11") {
		t.Errorf("an ADD failed for another reason than the API server, or not with code 11, try again "+
			"later: %s", failed[0])
	}
	w.nothingAttached()
	w.startAPIServer()

	w.running(w.namespace, "p")
	w.attachedOnce("p")
}

// While the API server is away, the sandbox of a pod without networks dies. The pod has another
// soon: nothing of that needs the API server.
func TestAPIAwayWithoutNetworks(t *testing.T) {
	w := newWorkspace(t)
	w.run(w.pod("p", ""))
	before := w.netns("p")
	w.stopAPIServer()
	pids, err := w.node.Run(w.ctx, "ip", "netns", "pids", filepath.Base(before))
	w.must(err)
	_, err = w.node.Run(w.ctx, append([]string{"kill", "-KILL"}, strings.Fields(pids)...)...)
	w.must(err)
	w.eventually("another sandbox of the pod", func() error {
		all, err := records(w.node, w.namespace)
		if err == nil && (len(all) != 1 || !all[0].Complete || all[0].NetNS == before) {
			err = fmt.Errorf("the records are %+v", all)
		}
		return err
	})
	if failed := w.logLines(`msg="ADD failed"`, "pod="+w.namespace+"/p"); len(failed) > 0 {
		t.Errorf("an ADD failed: %q", failed)
	}
	w.startAPIServer()
	w.running(w.namespace, "p")
	w.hasLinks("p")
}

// netns is the path of the network namespace of the test's only pod of that name.
func (w *workspace) netns(pod string) string {
	w.t.Helper()
	all, err := records(w.node, w.namespace)
	w.must(err)
	for _, rec := range all {
		if rec.Pod.Name == pod {
			return rec.NetNS
		}
	}
	w.t.Fatalf("there is no record of pod %s", pod)
	return ""
}

// The API server goes away between a pod's deletion and its DEL. DEL does without.
func TestAPIServerAwayDuringDEL(t *testing.T) {
	w := newWorkspace(t)
	w.nad("blue", macvlan("10.70.3.0/24"))
	grace := int64(60)
	pod := w.pod("p", "blue,blue")
	pod.Spec.TerminationGracePeriodSeconds = &grace
	pod.Spec.Containers[0].Lifecycle = &corev1.Lifecycle{
		PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 5}},
	}
	w.run(pod)
	pods := w.cluster.Client().CoreV1().Pods(w.namespace)
	w.must(pods.Delete(w.ctx, "p", metav1.DeleteOptions{}))
	w.eventually("the kubelet knows of the deletion", func() error {
		events, err := w.cluster.Client().CoreV1().Events(w.namespace).
			List(w.ctx, metav1.ListOptions{FieldSelector: "reason=Killing"})
		if err == nil && len(events.Items) == 0 {
			err = errors.New("there is no event that it kills the container")
		}
		return err
	})
	if lines := w.logLines("msg=DEL ", "pod="+w.namespace+"/p"); len(lines) != 0 {
		t.Fatalf("the test is too slow, DEL is done: %q", lines)
	}

	w.stopAPIServer()
	w.clean()
	if lines := w.logLines("msg=DEL ", "level=INFO", "pod="+w.namespace+"/p"); len(lines) != 1 {
		t.Errorf("%d successful lines of DEL, want 1: %q", len(lines), lines)
	}
	w.startAPIServer()
	w.must(w.cluster.WaitPodGone(w.ctx, w.namespace, "p"))
}

// stopAPIServer kills the API server; where the test does not start it again, its end does.
func (w *workspace) stopAPIServer() {
	w.t.Helper()
	w.cluster.StopAPIServer()
	w.apiDown = true
	w.t.Cleanup(func() {
		if w.apiDown {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			if err := w.cluster.StartAPIServer(ctx); err != nil {
				w.t.Error(err)
			}
		}
	})
}

func (w *workspace) startAPIServer() {
	w.t.Helper()
	w.must(w.cluster.StartAPIServer(w.ctx))
	w.apiDown = false
}

// attachedOnce fails the test unless the pod has eth0 and net2 once, and the node no more than
// that.
func (w *workspace) attachedOnce(pod string) {
	w.t.Helper()
	links := w.links(pod)
	if len(links) != 2 || len(links["net2"].global()) != 1 || len(links["eth0"].global()) != 1 {
		w.t.Errorf("pod %s has %v, want eth0 and net2 with an address each", pod, links)
	}
	status := w.status(pod)
	if len(status) != 3 || status[2].Interface != "net2" || len(status[2].IPs) != 1 {
		w.t.Errorf("network-status is %+v, want net2 third", status)
	}
	w.eventually("one sandbox, and leases for two addresses", func() error { return w.holds(1, 2) })
}

// nothingAttached fails the test unless the node soon has neither record nor lease.
func (w *workspace) nothingAttached() {
	w.t.Helper()
	w.eventually("neither record nor lease", func() error { return w.holds(0, 0) })
}

// holds reports whether the node has so many records and leases beyond those it has without pods.
func (w *workspace) holds(wantRecords, wantLeases int) error {
	left, err := leftovers(w.ctx, w.node)
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
type gate struct{ w *workspace }

// gate makes a closed gate and a NAD "gate" that leads through it.
func (w *workspace) gate() *gate {
	w.t.Helper()
	g := &gate{w}
	for _, file := range []string{"begun", "open"} {
		if err := os.Remove(g.path(file)); err != nil && !os.IsNotExist(err) {
			w.t.Fatal(err)
		}
	}
	w.t.Cleanup(func() { // whatever has failed, nothing waits any more
		if err := os.WriteFile(g.path("open"), nil, 0o600); err != nil {
			w.t.Error(err)
		}
	})
	w.nad("gate", `{"cniVersion": "1.0.0", "type": "gate"}`)
	return g
}

func (g *gate) path(file string) string { return g.w.node.Path(gateDir + "/" + file) }

// waitBegun waits until an ADD stands before the gate.
func (g *gate) waitBegun() {
	g.w.t.Helper()
	g.w.eventually("an ADD at the gate", func() error {
		_, err := os.Stat(g.path("begun"))
		return err
	})
}

// open lets it, and all later ones, through.
func (g *gate) open() {
	g.w.t.Helper()
	g.w.must(os.WriteFile(g.path("open"), nil, 0o600))
}
