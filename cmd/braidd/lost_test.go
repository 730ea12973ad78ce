package main

import (
	"os"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/pkg/netns"
	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/record"
)

// onMaster makes a pod whose net1 is on a NIC of the node, and the record of it.
func (n *agentNode) onMaster(node *nettest.Namespace, name, nic string) {
	n.t.Helper()
	pod, err := n.server.Client().CoreV1().Pods("default").Create(n.t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "i"}}},
	}, metav1.CreateOptions{})
	must(n.t, err)
	inside := nettest.New(n.t)
	ns, err := netns.Open(inside.Path)
	must(n.t, err)
	defer ns.Close()
	must(n.t, node.Netlink().LinkAdd(&netlink.Macvlan{
		LinkAttrs: netlink.LinkAttrs{
			Name: "net1", ParentIndex: node.Link(nic).Attrs().Index, Namespace: netlink.NsFd(ns.Fd()),
		},
		Mode: netlink.MACVLAN_MODE_BRIDGE,
	}))
	sandbox, err := record.New(n.path("run/braid")).Lock(n.t.Context(), "c-"+name)
	must(n.t, err)
	defer sandbox.Unlock()
	must(n.t, sandbox.Save(&record.Record{
		NetNS: inside.Path, Complete: true,
		Pod: record.Pod{Namespace: "default", Name: name, UID: string(pod.UID)},
		Attachments: []record.Attachment{{
			Attachment: plan.Attachment{
				Name: "default/data", Network: "data", IfName: "net1",
				Conf: []byte(`{"cniVersion": "1.0.0", "name": "data", "plugins": [{"type": "macvlan", ` +
					`"master": "` + nic + `"}]}`),
			}, State: record.Added, Index: inside.Link("net1").Attrs().Index,
		}},
	}))
}

// eventsOf are those of a pod, in words.
func (n *agentNode) eventsOf(pod string) (messages []string) {
	n.t.Helper()
	list, err := n.server.Client().CoreV1().Events("default").List(n.t.Context(), metav1.ListOptions{
		FieldSelector: "involvedObject.kind=Pod,involvedObject.name=" + pod,
	})
	must(n.t, err)
	for _, e := range list.Items {
		messages = append(messages, e.Type+" "+e.Reason+": "+e.Message)
	}
	return messages
}

// TestU7LostInterface: a pod that runs loses its interface when the NIC below it goes. It is told,
// once, and the node says so until the pod is gone. Other pods are not told.
func TestU7LostInterface(t *testing.T) {
	node, lan := nettest.New(t), nettest.New(t)
	n := newAgentNode(t, "node-lost")
	n.netns = node.Path
	for _, nic := range []string{"ens224", "ens256", "ens257"} {
		node.Veth(nic, lan, "port-"+nic)
		n.onMaster(node, "on-"+nic, nic)
	}
	must(t, os.WriteFile(n.path("image/node-interfaces.json"), []byte(`[{"network": "data",
		"match": {"name": "ens224"}, "type": "static", "blocks": [{"netmask": "255.255.255.0",
		"gateway": "10.0.0.1", "ips": [{"ip": "10.0.0.2", "hostname": "node-lost"}]}]}]`), 0o600))
	must(t, node.Netlink().LinkDel(node.Link("ens257"))) // while there is no agent
	stop := n.start()
	n.await("ready", n.ready)
	told := func(pod, nic string) func() bool {
		return func() bool {
			events := n.eventsOf(pod)
			return len(events) == 1 && events[0] == "Warning InterfaceLost: interface net1 of network "+
				"default/data, on the node's "+nic+", is gone from the pod; see that the node has "+nic+
				", and delete the pod"
		}
	}
	says := func(pods string) func() bool {
		return func() bool {
			for _, w := range n.report().Report.Warnings {
				if strings.HasPrefix(w, "pods have lost ") {
					return pods != "" && strings.Contains(w, ": "+pods+"; see that the node has")
				}
			}
			return pods == ""
		}
	}
	is := func(state string) func() bool {
		return func() bool {
			all := n.report().Report.Interfaces
			return len(all) == 1 && all[0].State == state
		}
	}
	n.await("the pod is told that lost its interface before", told("on-ens257", "ens257"))
	n.await("the node says so", says("default/on-ens257 (net1 on ens257)"))
	n.await("the NIC is ready", is("Ready"))
	must(t, node.Netlink().LinkDel(node.Link("ens224")))
	node.Veth("ens224", lan, "port-new") // another NIC brings no interface back
	n.await("the pod is told", told("on-ens224", "ens224"))
	n.await("the node says so, too",
		says("default/on-ens224 (net1 on ens224), default/on-ens257 (net1 on ens257)"))
	must(t, stop())

	node.Rename("ens256", "ens999") // a NIC that is renamed keeps its interfaces
	stop = n.start()
	n.await("the NIC is ready again", is("Ready"))
	for _, pod := range []string{"on-ens224", "on-ens257"} {
		sandbox, err := record.New(n.path("run/braid")).Lock(t.Context(), "c-"+pod)
		must(t, err)
		must(t, sandbox.Remove())
		sandbox.Unlock()
	}
	must(t, node.Netlink().LinkDel(node.Link("ens224")))
	n.await("the node says nothing of pods that are gone", says(""))
	must(t, stop())
	for pod, count := range map[string]int{"on-ens224": 1, "on-ens256": 0, "on-ens257": 1} {
		if events := n.eventsOf(pod); len(events) != count {
			t.Errorf("events of %s: %q, want %d", pod, events, count)
		}
	}
}

// TestLostWhileDetached: a DEL at work removes a pod's links before its record, and takes nothing
// from the pod that it is told of.
func TestLostWhileDetached(t *testing.T) {
	store := record.New(t.TempDir())
	sandbox, err := store.Lock(t.Context(), "c-1")
	must(t, err)
	must(t, sandbox.Save(&record.Record{
		NetNS: nettest.New(t).Path, Complete: true,
		Attachments: []record.Attachment{{
			Attachment: plan.Attachment{
				Name: "default/data", Network: "data", IfName: "net1",
				Conf: []byte(`{"cniVersion": "1.0.0", "name": "data", "plugins": [{"type": "macvlan", ` +
					`"master": "ens224"}]}`),
			}, State: record.Added, Index: 1000,
		}},
	}))
	if lost, err := lostInterfaces(t.Context(), store); err != nil || len(lost) != 0 {
		t.Errorf("%v, %v while a DEL is at work", lost, err)
	}
	sandbox.Unlock()
	if lost, err := lostInterfaces(t.Context(), store); err != nil || len(lost) != 1 {
		t.Errorf("%v, %v at rest", lost, err)
	}
}
