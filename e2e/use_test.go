package e2e_test

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/e2e/lab"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

// Names with and without a namespace, the same network twice, a name for the interface.
func TestU9Annotation(t *testing.T) {
	w := newWorkspace(t)
	w.nad("blue", macvlan("10.9.1.0/24"))
	w.nad("green", macvlan("10.9.2.0/24"))
	w.create(
		w.pod("short", "blue, "+w.namespace+"/green,blue"),
		w.pod("named", "blue@data0,green"),
		w.pod("json", fmt.Sprintf(
			`[{"name": "green", "interface": "data0"}, {"name": "blue", "namespace": %q}]`, w.namespace)),
		w.pod("blank", " "),
	)
	for _, pod := range []string{"short", "named", "json", "blank"} {
		w.running(w.namespace, pod)
	}
	w.hasLinks("short", "net1 10.9.1.0/24", "net2 10.9.2.0/24", "net3 10.9.1.0/24")
	w.hasLinks("named", "data0 10.9.1.0/24", "net2 10.9.2.0/24")
	w.hasLinks("json", "data0 10.9.2.0/24", "net2 10.9.1.0/24")
	w.hasLinks("blank")
}

// A NAD is for the pods of its namespace; one of "default" is for all.
func TestU13Isolation(t *testing.T) {
	w := newWorkspace(t)
	other := w.newNamespace("u13-other")
	w.nad(other+"/theirs", macvlan("10.13.1.0/24"))
	w.nad("default/everybodys", macvlan("10.13.2.0/24"))
	w.create(w.pod("thief", other+"/theirs"), w.pod("guest", "default/everybodys"))
	w.create(lab.Pod(other, "owner", map[string]string{nadv1.NetworksAnnotation: "theirs"}))

	message := w.refused("thief", "NADForbidden")
	for _, word := range []string{other + "/theirs", "namespace " + w.namespace, "globalNamespaces"} {
		if !strings.Contains(message, word) {
			t.Errorf("the event does not say %q: %s", word, message)
		}
	}
	w.running(w.namespace, "guest")
	w.hasLinks("guest", "net1 10.13.2.0/24")
	w.running(other, "owner")
	_, err := w.node.PodRun(w.ctx, other, "owner", "ip", "link", "show", "net1")
	w.must(err)
}

// A user sees lo, eth0, net1, net2 with their addresses.
func TestU21Interfaces(t *testing.T) {
	w := newWorkspace(t)
	w.nad("blue", macvlan("10.21.1.0/24"))
	w.nad("green", macvlan("10.21.2.0/24"))
	w.run(w.pod("p", "blue,green"))

	// What a user types, through the API server and the kubelet. The image has no ip; its tool prints
	// the same.
	out, err := w.cluster.Exec(w.ctx, w.namespace, "p", "/tool", "addrs")
	w.must(err)
	links := w.hasLinks("p", "net1 10.21.1.0/24", "net2 10.21.2.0/24")
	for _, l := range links {
		if !strings.Contains(out, fmt.Sprintf("%q", l.global()[0])) || !strings.Contains(out, l.MAC) {
			t.Errorf("in the pod one does not see %s with %s: %s", l.Name, l.global()[0], out)
		}
	}
	names := []string{"lo"}
	for _, line := range w.ip("p", "-oneline link")[1:] {
		name, _, _ := strings.Cut(strings.Fields(line)[1], "@")
		names = append(names, strings.TrimSuffix(name, ":"))
	}
	if want := []string{"lo", "eth0", "net1", "net2"}; !slices.Equal(names, want) {
		t.Errorf("interfaces are %q, want %q in this order", names, want)
	}
}

// The annotation is readable and exact, to the last space.
func TestU22NetworkStatus(t *testing.T) {
	w := newWorkspace(t)
	w.nad("blue", macvlan("10.22.1.0/24"))
	pod := w.run(w.pod("p", "blue"))
	links := w.hasLinks("p", "net1 10.22.1.0/24")
	eth0, net1 := links["eth0"], links["net1"]
	want := fmt.Sprintf(`[{
    "name": "pods",
    "interface": "eth0",
    "ips": ["%s"],
    "mac": "%s",
    "default": true,
    "dns": {},
    "gateway": ["10.244.0.1"]
},{
    "name": "%s/blue",
    "interface": "net1",
    "ips": ["%s"],
    "mac": "%s",
    "dns": {}
}]`, pod.Status.PodIP, eth0.MAC, w.namespace, net1.Addresses[0].Local, net1.MAC)
	if got := w.statusText("p"); got != want {
		t.Errorf("network-status is\n%s\nwant\n%s", got, want)
	}
}

// The control plane stays on eth0 while net1 carries multicast between pods.
func TestU1Multicast(t *testing.T) {
	w := newWorkspace(t)
	w.nad("data", macvlan("10.1.1.0/24"))
	w.create(w.pod("sender", "data"), w.pod("receiver", "data"))
	w.running(w.namespace, "sender")
	w.running(w.namespace, "receiver")

	group := &net.UDPAddr{IP: net.IPv4(239, 1, 2, 3), Port: 7001}
	onNet1 := w.receiveMulticast("receiver", "net1", group)
	onEth0 := w.receiveMulticast("receiver", "eth0", group)
	w.sendMulticast("sender", "net1", group, "from net1")
	if got := <-onNet1; got != "from net1" {
		t.Errorf("received on net1: %q, want what was sent", got)
	}
	if got := <-onEth0; got != "" {
		t.Errorf("received on eth0: %q, want nothing", got)
	}
}

// Three steps and nothing else: the cluster has Braid, an operator declares a network, a user
// annotates a pod. And what is taken out of the annotation's hands: kubectl finds the objects by
// their short names.
func TestU3ThreeSteps(t *testing.T) {
	w := newWorkspace(t)
	w.apply("samples/01-macvlan.yaml")
	w.running(w.namespace, "macvlan")
	w.hasLinks("macvlan", "net1 10.51.0.0/16")
	for _, name := range []string{"nad", "net-attach-def", "network-attachment-definition"} {
		out, err := w.cluster.Kubectl(w.ctx, "get", name, "--namespace="+w.namespace, "--output=name")
		want := "networkattachmentdefinition.k8s.cni.cncf.io/macvlan-lan\n"
		if err != nil || out != want {
			t.Errorf("kubectl get %s: %q, %v, want %q", name, out, err, want)
		}
	}
	pod, err := w.cluster.Client().CoreV1().Pods(w.namespace).
		Get(w.ctx, "macvlan", metav1.GetOptions{})
	w.must(err)
	if got := pod.Status.PodIPs; len(got) != 1 || !strings.HasPrefix(got[0].IP, "10.244.") {
		t.Errorf("podIPs are %v, want that of eth0 alone", got)
	}
}
