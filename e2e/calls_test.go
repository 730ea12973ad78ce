package e2e_test

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/braid-cni/braid/e2e/lab"
)

// What attaching a pod costs the API server: a GET of each NAD, one PATCH, and an event for each
// attachment. A pod that asks for nothing costs nothing, as the runtime passes on what it asks for;
// taking a pod away costs nothing either.
func TestAPICalls(t *testing.T) {
	w := newWorkspace(t)
	w.nad("blue", macvlan("10.80.1.0/24"))
	w.nad("green", macvlan("10.80.2.0/24"))
	// The first pod finds out whether the namespace is a tenant's, which is known on the node for two
	// minutes. That the node's operator allowed no master is told by an event of the first pod of a
	// NAD.
	const getNAD, getLabel = "get network-attachment-definitions", "get namespaces"
	asked := time.Now()
	tests := []struct {
		pod, networks string
		want          map[string]int
	}{
		{"none", "", map[string]int{}},
		{"two", "blue,green", map[string]int{
			getNAD: 2, getLabel: 1, "patch pods/status": 1, "create events": 4,
		}},
		{"twice", "blue,blue", map[string]int{getNAD: 1, "patch pods/status": 1, "create events": 3}},
	}
	for _, test := range tests {
		made := w.requests(func() { w.run(w.pod(test.pod, test.networks)) })
		if test.pod == "twice" && time.Since(asked) > 2*time.Minute {
			delete(made, getLabel) // the machine was so slow that it had to be found out again
		}
		if !maps.Equal(made, test.want) {
			t.Errorf("ADD of pod %s made requests %v, want %v", test.pod, made, test.want)
		}
		made = w.requests(func() {
			w.delete(test.pod)
			w.clean()
		})
		if len(made) != 0 {
			t.Errorf("DEL of pod %s made requests %v, want none", test.pod, made)
		}
	}
}

// during are Braid's requests to the API server while fn ran.
func (w *workspace) during(fn func()) []lab.AuditEntry {
	w.t.Helper()
	all, err := w.cluster.RequestsDuring(w.ctx, account, func() error {
		fn()
		return nil
	})
	w.must(err)
	return all
}

// requests counts what Braid asked the API server for the pods while fn ran, by verb and resource.
// It asks nothing about other pods, though the kubelet removes sandboxes of pods that are long gone
// once a minute. What has no namespace, such as a ResourceSlice, is of no pod.
func (w *workspace) requests(fn func()) map[string]int {
	w.t.Helper()
	count := map[string]int{}
	for _, request := range w.during(fn) {
		if isUpkeep(request) {
			continue
		}
		count[describe(request)]++
		if (request.Namespace != w.namespace && request.Namespace != "") || request.Code >= 300 {
			w.t.Errorf("request %+v is outside of the test's namespace, or was refused", request)
		}
		if !strings.HasPrefix(request.UserAgent, "braid/") {
			w.t.Errorf("user agent is %q, want braid/VERSION", request.UserAgent)
		}
	}
	return count
}

// isUpkeep reports whether a request is of the look at the node's blocks of cluster-wide addresses,
// which an operation has in it now and then, whichever pod it is of.
func isUpkeep(request lab.AuditEntry) bool {
	return request.Resource == "ipblocks" || request.Resource == "nodes"
}

func describe(request lab.AuditEntry) string {
	what := request.Verb + " " + request.Resource
	if request.Subresource != "" {
		what += "/" + request.Subresource
	}
	return what
}

// The log is on by default, with one line for each attachment and detachment, and nothing in it is
// secret.
func TestU20Log(t *testing.T) {
	w := newWorkspace(t)
	w.nad("blue", macvlan("10.81.1.0/24"))
	w.run(w.pod("p", "blue,blue"))
	w.delete("p")
	w.clean()

	pod := "pod=" + w.namespace + "/p"
	for _, verb := range []string{"attach", "detach"} {
		want := []string{
			"network=pods interface=eth0", "network=" + w.namespace + "/blue interface=net1",
			"network=" + w.namespace + "/blue interface=net2",
		}
		if verb == "detach" {
			slices.Reverse(want)
		}
		lines := w.logLines("msg="+verb+" ", pod)
		if len(lines) != len(want) {
			t.Fatalf("%d lines of %s, want %d: %q", len(lines), verb, len(want), lines)
		}
		for i, line := range lines {
			if !strings.Contains(line, want[i]) || !strings.Contains(line, "duration=") {
				t.Errorf("line %d of %s does not say %q and the duration: %s", i, verb, want[i], line)
			}
		}
	}
	if lines := w.logLines("msg=ADD ", pod); len(lines) != 1 {
		t.Errorf("%d lines of ADD, want 1: %q", len(lines), lines)
	}
	// once a minute the kubelet has DELs repeated
	if lines := w.logLines("msg=DEL ", pod); len(lines) == 0 {
		t.Errorf("no line of DEL")
	}

	credential, err := os.ReadFile(w.node.Path(kubeconfig))
	w.must(err)
	_, token, _ := strings.Cut(string(credential), "token: ")
	token, _, _ = strings.Cut(token, "}")
	if len(token) < 100 {
		t.Fatalf("no token in %s", kubeconfig)
	}
	for _, secret := range []string{token, token[:40], "Bearer", "certificate-authority-data"} {
		if lines := w.logLines(secret); len(lines) > 0 {
			t.Errorf("the log has something of %s: %.200q", kubeconfig, lines[0])
		}
	}
	if lines := w.logLines("cniVersion"); len(lines) > 0 {
		t.Errorf("the log has configurations in it: %.200q", lines[0])
	}
	for _, file := range []string{logFile, kubeconfig} {
		info, err := os.Stat(w.node.Path(file))
		w.must(err)
		if info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v, want it for root only", file, info.Mode())
		}
	}
	if err := secretsLeft(w.node); err != nil {
		t.Error(err)
	}
}

// secretsLeft reports whether others than root can read the records: configurations may hold
// credentials.
func secretsLeft(node *lab.Node) error {
	info, err := os.Stat(node.Path(stateDir))
	if err == nil && info.Mode().Perm() != 0o700 {
		err = fmt.Errorf("%s has mode %v, want 0700", stateDir, info.Mode())
	}
	return err
}
