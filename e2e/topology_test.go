package e2e_test

import "testing"

// The four topologies, as conf/samples shows them.

// U18, "four topologies".
func TestU18ManyPodsOnOneAttachment(t *testing.T) {
	w := newWorkspace(t)
	w.apply("samples/08-many-pods.yaml")
	seen := map[string]string{}
	for _, pod := range []string{"shared-1", "shared-2"} {
		w.running(w.namespace, pod)
		net1 := w.hasLinks(pod, "net1 10.58.0.0/24")["net1"]
		address := w.addressIn(net1, "10.58.0.0/24")
		if seen[address] != "" || seen[net1.MAC] != "" {
			t.Errorf("%s has %s and %s, as %s has", pod, address, net1.MAC, seen[address]+seen[net1.MAC])
		}
		seen[address], seen[net1.MAC] = pod, pod
	}
}

func TestU18OnePodWithMany(t *testing.T) {
	w := newWorkspace(t)
	w.apply("samples/09-many-networks.yaml")
	w.running(w.namespace, "many-networks")
	w.hasLinks("many-networks", "net1 10.59.1.0/24", "net2 10.59.2.0/24")
}

func TestU18SameNodeInterface(t *testing.T) {
	w := newWorkspace(t)
	w.apply("samples/10-same-node-interface.yaml")
	w.running(w.namespace, "same-node-interface")
	w.hasLinks("same-node-interface", "net1 10.60.1.0/24", "net2 10.60.2.0/24")
}

func TestU18SameAttachmentTwice(t *testing.T) {
	w := newWorkspace(t)
	w.apply("samples/11-same-network-twice.yaml")
	w.running(w.namespace, "same-network-twice")
	links := w.hasLinks("same-network-twice", "net1 10.61.0.0/24", "net2 10.61.0.0/24")
	if links["net1"].MAC == links["net2"].MAC ||
		links["net1"].Addresses[0].Local == links["net2"].Addresses[0].Local {
		t.Errorf("net1 and net2 share an address: %v", links)
	}
	status := w.status("same-network-twice")
	if len(status) != 3 || status[1].Name != w.namespace+"/twice" || status[2].Name != status[1].Name {
		t.Errorf("network-status is %+v, want twice under the same name", status)
	}
}
