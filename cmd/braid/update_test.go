package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/braid-cni/braid/cmd/internal/node"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/engine"
	"github.com/braid-cni/braid/pkg/failure"
)

// update is the command by which a test binary does what an agent does for a running pod: it brings
// the pod's networks to those of its annotation.
const update = "UPDATE"

// updateOnce is a process with that command and the environment of a CNI plugin.
func updateOnce() int {
	err := updatePod(context.Background())
	if err == nil {
		return 0
	}
	if err := json.NewEncoder(os.Stdout).Encode(failure.CNI(err)); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
	return 1
}

func updatePod(ctx context.Context) error {
	stdin, err := io.ReadAll(os.Stdin)
	if err != nil {
		return err
	}
	cfg, err := conf.Load(stdin)
	if err != nil {
		return err
	}
	req, err := engine.NewRequest(&skel.CmdArgs{ContainerID: os.Getenv("CNI_CONTAINERID")}, &cfg.Call)
	if err != nil {
		return err
	}
	e, closeLog, err := node.NewEngine(node.Options{
		Node: &cfg.Node, Policy: &cfg.Policy, Trace: fault(),
	})
	if err != nil {
		return err
	}
	defer closeLog() //nolint:errcheck // a test
	_, args, _ := strings.Cut(os.Getenv("CNI_ARGS"), "K8S_POD_NAMESPACE=")
	namespace, name, _ := strings.Cut(args, ";K8S_POD_NAME=")
	pod, err := e.Source.Pod(ctx, namespace, name)
	if err != nil {
		return err
	}
	return e.Update(ctx, req, pod)
}

// asks changes the annotation of a pod.
func (h *host) asks(p *pod, networks string) {
	h.t.Helper()
	h.object("v1", "Pod", p.namespace+"/"+p.name, map[string]any{},
		[]string{nadv1.NetworksAnnotation, networks})
}

// hotplugHost is a node with a pod of faultHost that has other networks: default route and device
// come with an update, and one network goes.
func hotplugHost(t *testing.T) (h *host, p *pod, before, after string) {
	t.Helper()
	h, p = faultHost(t)
	h.setBraid("hotplug", true)
	h.nad("gone", h.macvlan(14, ""))
	return h, p, "gone@old,a@net1", `[{"name":"a"},{"name":"b","default-route":["10.12.0.1"]},` +
		`{"name":"c"}]`
}

// TestM10HotPlug: a running pod gets networks with an address, a default route and a device, and
// all of that goes with the pod.
func TestM10HotPlug(t *testing.T) {
	t.Parallel()
	h, p, before, after := hotplugHost(t)
	h.asks(p, before)
	h.add(p)
	h.has(p, "eth0", "net1", "old")
	h.asks(p, after)
	h.must(update, p)
	h.must("CHECK", p)
	h.updated(p)
	p.Unmount()
	h.must("DEL", p)
	h.clean()
}

// updated fails the test unless the pod has what hotplugHost asks for after the update.
func (h *host) updated(p *pod) {
	h.t.Helper()
	var names, networks []string
	for _, s := range h.status(p) {
		names = append(names, s.Name+" "+s.Interface)
	}
	slices.Sort(names)
	want := []string{"default/a net1", "default/b net2", "default/c net3", "pods eth0"}
	if !slices.Equal(names, want) {
		h.t.Errorf("network-status of %q, want %q", names, want)
	}
	h.has(p, "eth0", "net1", "net2", "net3")
	for _, lease := range h.leases() {
		network, _, _ := strings.Cut(lease, "/")
		networks = append(networks, network)
	}
	if want := []string{"a", "b", "c", "pods"}; !slices.Equal(networks, want) {
		h.t.Errorf("leases of %v, want one of each of %v", networks, want)
	}
	if routes := p.Routes(); !strings.Contains(routes, "default via 10.12.0.1 dev net2") {
		h.t.Errorf("routes %s, want the default one via net2", routes)
	}
}

// updatePoints is a node and the points of an update on it.
func updatePoints(t *testing.T) (h *host, p *pod, points []string, begin func(*host)) {
	t.Helper()
	h, p, before, after := hotplugHost(t)
	begin = func(h *host) {
		h.asks(p, before)
		h.add(p)
		h.asks(p, after)
	}
	begin(h)
	points, failed := h.points(update, p)
	if failed != nil {
		t.Fatal(failed)
	}
	h.updated(p)
	h.must("DEL", p)
	h.clean(p)
	covers(t, points, "lock ", "record leaving old", "DEL old", "record detached old",
		"remember network default/b", "record attempted net2",
		"ADD net2", "default route net2", "record attached net2", "copy device info net3", "ADD net3",
		"publish status", "record published", "unlock")
	return h, p, points, begin
}

// TestFaultUpdateThenDel kills an update at each point. The pod's DEL leaves nothing.
func TestFaultUpdateThenDel(t *testing.T) {
	t.Parallel()
	h, p, points, begin := updatePoints(t)
	h.eachPoint(points, 0, func(h *host, n int) {
		begin(h)
		h.killedAt(update, p, points, n)
		h.must("DEL", p)
		h.clean(p)
	})
}

// TestFaultUpdateThenUpdate kills an update at each point. The next one makes the pod what it asks
// for, each network once.
func TestFaultUpdateThenUpdate(t *testing.T) {
	t.Parallel()
	h, p, points, begin := updatePoints(t)
	h.eachPoint(points, 0, func(h *host, n int) {
		begin(h)
		h.killedAt(update, p, points, n)
		h.must(update, p)
		h.updated(p)
		h.must("CHECK", p)
		h.must("DEL", p)
		h.clean(p)
	})
}

// TestHotPlugDefaultRouteComesBack: when the network that had the default route goes, the default
// network has it again.
func TestHotPlugDefaultRouteComesBack(t *testing.T) {
	t.Parallel()
	h, p, _, after := hotplugHost(t)
	h.asks(p, after)
	h.add(p)
	h.asks(p, "a")
	h.must(update, p)
	h.has(p, "eth0", "net1")
	if routes := p.Routes(); !strings.Contains(routes, "default via 10.1.0.1 dev eth0") {
		t.Errorf("routes %s, want the default one via eth0", routes)
	}
	h.must("DEL", p)
	h.clean(p)
}

// TestR6HotPlugOfKubeVirt: the form in which KubeVirt asks for the networks of a virtual machine
// that runs. Its links are renamed by KubeVirt; the address of the claim is there again for the
// next pod.
func TestR6HotPlugOfKubeVirt(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.setBraid("hotplug", true)
	h.setBraid("aliases", map[string]any{"cnv-bridge": "bridge", "cnv-tuning": "tuning"})
	h.nad("red", `{"cniVersion":"0.3.1","name":"red","plugins":[{"type":"cnv-bridge","bridge":"br-red",
		"ipam":{"type":"whereabouts","range":"10.20.0.0/24"}},{"type":"cnv-tuning"}]}`)
	h.object("k8s.cni.cncf.io/v1alpha1", "IPAMClaim", "vm.red",
		map[string]any{"network": "red", "interface": "pod16367aacb67"}, nil)
	const networks = `[{"name":"red","namespace":"default","mac":"02:00:00:00:00:01",` +
		`"interface":"pod16367aacb67","ipam-claim-reference":"vm.red"}]`
	p := h.pod("virt-launcher-vm", "")
	h.add(p)
	h.asks(p, networks)
	h.must(update, p)
	h.has(p, "eth0", "pod16367aacb67")
	kept := h.address(p, "pod16367aacb67")
	status := h.status(p)
	if len(status) != 2 || status[1].Mac != "02:00:00:00:00:01" ||
		status[1].Interface != "pod16367aacb67" {
		t.Errorf("network-status %+v", status)
	}
	p.Rename("pod16367aacb67", "16367aacb67-nic")
	h.asks(p, "")
	h.must(update, p)
	h.has(p, "eth0")
	h.must("DEL", p)
	next := h.pod("virt-launcher-vm-2", networks)
	h.add(next)
	same(t, "address of the next pod", h.address(next, "pod16367aacb67"), kept)
	h.must("DEL", next)
}
