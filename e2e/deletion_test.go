package e2e_test

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// While a pod lives, everything that it has on the node is seen by leftovers; when it is deleted,
// all of it is gone.
func TestDeletionLeavesNothing(t *testing.T) {
	w := newWorkspace(t)
	w.nad("blue", macvlan("10.90.1.0/24"))
	w.nad("bridged", `{"cniVersion": "1.0.0", "plugins": [
		{"type": "bridge", "bridge": "cni0", "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.90.2.0/24", "gateway": "10.90.2.254"}]]}},
		{"type": "tuning", "mtu": 1400}, {"type": "sbr"}]}`)
	w.nad("dumped", `{"cniVersion": "1.0.0", "type": "dump"}`)
	pod := w.pod("p", "blue,bridged,dumped")
	pod.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 8080}}
	w.run(pod)
	links := w.hasLinks("p", "net1 10.90.1.0/24", "net2 10.90.2.0/24")
	if links["net2"].MTU != 1400 {
		t.Errorf("net2 has MTU %d, want that of tuning, 1400", links["net2"].MTU)
	}

	left, err := leftovers(w.ctx, w.node)
	w.must(err)
	port := "dport 8080"
	if onCRIO() {
		port = "crio-hostports { elements = { tcp . 8080" // CRI-O's own
	}
	more := strings.Join(beyond(left, clean), "\n")
	for what, text := range map[string]string{
		"a link":               "link veth",
		"a network namespace":  "namespace /run/netns/",
		"a lease of eth0":      "file var/lib/cni/networks/pods/10.244.",
		"a lease of net1":      "file var/lib/cni/networks/blue/10.90.1.",
		"a lease of net2":      "file var/lib/cni/networks/bridged/10.90.2.",
		"a rule of the port":   port,
		"a masquerading rule":  "masquerade",
		"a record":             "file run/braid/sandboxes/",
		"a cache of net1":      "file run/braid/cni/results/blue-",
		"a cache of braid":     "file var/lib/cni/results/braid-",
		"a file of a delegate": "file run/e2e-dump/",
	} {
		if !strings.Contains(more, text) {
			t.Errorf("while the pod lives the node has not %s (%s):\n%s", what, text, more)
		}
	}
	w.delete("p")
	w.clean()
}
