package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/braid-cni/braid/pkg/agent/cri/critest"
)

// A CRI-O that starts takes the network from pods that another file of its directory made. As long
// as there is one, the node's report says so, and the log once. Of containerd nothing is said.
func TestRestartOfCRIO(t *testing.T) {
	a := newAgentNode(t, "node-crio")
	comm, err := os.ReadFile("/proc/self/comm") // by which the agent knows who listens
	must(t, err)
	t.Cleanup(func() { must(t, os.WriteFile("/proc/self/comm", comm, 0o600)) })
	must(t, os.MkdirAll(a.path("run/crio"), 0o700))
	critest.Listen(t, a.path("run/crio/crio.sock")).Run("own", a.uid)
	const takes = "when CRI-O starts, it takes the network from the pods that "
	warns := func(want string) func() bool {
		return func() bool {
			report := a.report().Report
			said := slices.DeleteFunc(slices.Clone(report.Warnings),
				func(w string) bool { return !strings.HasPrefix(w, takes) })
			return want == "" && len(said) == 0 ||
				len(said) == 1 && strings.HasPrefix(said[0], takes+want+" of "+a.path("conf")+" made; set "+
					"cni.moveDefaultNetwork")
		}
	}

	must(t, os.WriteFile("/proc/self/comm", []byte("containerd"), 0o600))
	a.run = a.path("run")
	stop := a.start()
	a.await("ready", a.ready)
	if !warns("")() || strings.Contains(a.log.String(), takes) {
		t.Errorf("with containerd the report is %+v", a.report().Report)
	}
	must(t, stop())

	must(t, os.WriteFile("/proc/self/comm", []byte("crio"), 0o600))
	stop = a.start()
	a.await("a warning", warns("10-pods.conflist"))
	multus := a.path("conf/05-multus.conf")
	must(t, os.WriteFile(multus, []byte(`{"name": "m", "type": "multus"}`), 0o600))
	a.await("Multus is named", warns("05-multus.conf, 10-pods.conflist"))
	must(t, os.Remove(multus))
	a.await("Multus is not named any more", warns("10-pods.conflist"))
	must(t, stop())
	if n := strings.Count(a.log.String(), takes); n != 3 {
		t.Errorf("%d warnings in the log, want one for each change:\n%s", n, a.log.String())
	}

	a.move = true
	stop = a.start()
	a.await("no warning with the network in a directory of its own", warns(""))
	must(t, stop())
}
