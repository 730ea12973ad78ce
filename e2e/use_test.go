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
	r := newRig(t)
	r.nad("blue", macvlan("10.9.1.0/24"))
	r.nad("green", macvlan("10.9.2.0/24"))
	r.create(
		r.pod("short", "blue, "+r.namespace+"/green,blue"),
		r.pod("named", "blue@data0,green"),
		r.pod("json", fmt.Sprintf(
			`[{"name": "green", "interface": "data0"}, {"name": "blue", "namespace": %q}]`, r.namespace)),
		r.pod("blank", " "),
	)
	for _, pod := range []string{"short", "named", "json", "blank"} {
		r.running(r.namespace, pod)
	}
	r.hasLinks("short", "net1 10.9.1.0/24", "net2 10.9.2.0/24", "net3 10.9.1.0/24")
	r.hasLinks("named", "data0 10.9.1.0/24", "net2 10.9.2.0/24")
	r.hasLinks("json", "data0 10.9.2.0/24", "net2 10.9.1.0/24")
	r.hasLinks("blank")
}

// A NAD is for the pods of its namespace; one of "default" is for all.
func TestU13Isolation(t *testing.T) {
	r := newRig(t)
	other := r.newNamespace("u13-other")
	r.nad(other+"/theirs", macvlan("10.13.1.0/24"))
	r.nad("default/everybodys", macvlan("10.13.2.0/24"))
	r.create(r.pod("thief", other+"/theirs"), r.pod("guest", "default/everybodys"))
	r.create(lab.Pod(other, "owner", map[string]string{nadv1.NetworksAnnotation: "theirs"}))

	message := r.refused("thief", "NADForbidden")
	for _, word := range []string{other + "/theirs", "namespace " + r.namespace, "globalNamespaces"} {
		if !strings.Contains(message, word) {
			t.Errorf("the event does not say %q: %s", word, message)
		}
	}
	r.running(r.namespace, "guest")
	r.hasLinks("guest", "net1 10.13.2.0/24")
	r.running(other, "owner")
	_, err := r.node.PodRun(r.ctx, other, "owner", "ip", "link", "show", "net1")
	r.must(err)
}

// A user sees lo, eth0, net1, net2 with their addresses.
func TestU21Interfaces(t *testing.T) {
	r := newRig(t)
	r.nad("blue", macvlan("10.21.1.0/24"))
	r.nad("green", macvlan("10.21.2.0/24"))
	r.run(r.pod("p", "blue,green"))

	// What a user types, through the API server and the kubelet. The image has no ip; its tool prints
	// the same.
	out, err := r.cluster.Exec(r.ctx, r.namespace, "p", "/tool", "addrs")
	r.must(err)
	links := r.hasLinks("p", "net1 10.21.1.0/24", "net2 10.21.2.0/24")
	for _, l := range links {
		if !strings.Contains(out, fmt.Sprintf("%q", l.global()[0])) || !strings.Contains(out, l.MAC) {
			t.Errorf("in the pod one does not see %s with %s: %s", l.Name, l.global()[0], out)
		}
	}
	names := []string{"lo"}
	for _, line := range r.ip("p", "-oneline link")[1:] {
		name, _, _ := strings.Cut(strings.Fields(line)[1], "@")
		names = append(names, strings.TrimSuffix(name, ":"))
	}
	if want := []string{"lo", "eth0", "net1", "net2"}; !slices.Equal(names, want) {
		t.Errorf("interfaces are %q, want %q in this order", names, want)
	}
}

// The annotation is readable and exact, to the last space.
func TestU22NetworkStatus(t *testing.T) {
	r := newRig(t)
	r.nad("blue", macvlan("10.22.1.0/24"))
	pod := r.run(r.pod("p", "blue"))
	links := r.hasLinks("p", "net1 10.22.1.0/24")
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
}]`, pod.Status.PodIP, eth0.MAC, r.namespace, net1.Addresses[0].Local, net1.MAC)
	if got := r.statusText("p"); got != want {
		t.Errorf("network-status is\n%s\nwant\n%s", got, want)
	}
}

// The control plane stays on eth0 while net1 carries multicast between pods.
func TestU1Multicast(t *testing.T) {
	r := newRig(t)
	r.nad("data", macvlan("10.1.1.0/24"))
	r.create(r.pod("sender", "data"), r.pod("receiver", "data"))
	r.running(r.namespace, "sender")
	r.running(r.namespace, "receiver")

	group := &net.UDPAddr{IP: net.IPv4(239, 1, 2, 3), Port: 7001}
	onNet1 := r.receiveMulticast("receiver", "net1", group)
	onEth0 := r.receiveMulticast("receiver", "eth0", group)
	r.sendMulticast("sender", "net1", group, "from net1")
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
	r := newRig(t)
	r.apply("samples/01-macvlan.yaml")
	r.running(r.namespace, "macvlan")
	r.hasLinks("macvlan", "net1 10.51.0.0/16")
	for _, name := range []string{"nad", "net-attach-def", "network-attachment-definition"} {
		out, err := r.cluster.Kubectl(r.ctx, "get", name, "--namespace="+r.namespace, "--output=name")
		want := "networkattachmentdefinition.k8s.cni.cncf.io/macvlan-lan\n"
		if err != nil || out != want {
			t.Errorf("kubectl get %s: %q, %v, want %q", name, out, err, want)
		}
	}
	pod, err := r.cluster.Client().CoreV1().Pods(r.namespace).
		Get(r.ctx, "macvlan", metav1.GetOptions{})
	r.must(err)
	if got := pod.Status.PodIPs; len(got) != 1 || !strings.HasPrefix(got[0].IP, "10.244.") {
		t.Errorf("podIPs are %v, want that of eth0 alone", got)
	}
}
