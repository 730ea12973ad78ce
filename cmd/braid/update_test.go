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
func (r *rig) asks(p *pod, networks string) {
	r.t.Helper()
	r.object("v1", "Pod", p.namespace+"/"+p.name, map[string]any{},
		[]string{nadv1.NetworksAnnotation, networks})
}

// hotplugRig is a node with a pod of faultRig that has other networks: default route and device
// come with an update, and one network goes.
func hotplugRig(t *testing.T) (r *rig, p *pod, before, after string) {
	t.Helper()
	r, p = faultRig(t)
	r.setBraid("hotplug", true)
	r.nad("gone", r.macvlan(14, ""))
	return r, p, "gone@old,a@net1", `[{"name":"a"},{"name":"b","default-route":["10.12.0.1"]},` +
		`{"name":"c"}]`
}

// TestM10HotPlug: a running pod gets networks with an address, a default route and a device, and
// all of that goes with the pod.
func TestM10HotPlug(t *testing.T) {
	t.Parallel()
	r, p, before, after := hotplugRig(t)
	r.asks(p, before)
	r.add(p)
	r.has(p, "eth0", "net1", "old")
	r.asks(p, after)
	r.must(update, p)
	r.must("CHECK", p)
	r.updated(p)
	p.Unmount()
	r.must("DEL", p)
	r.clean()
}

// updated fails the test unless the pod has what hotplugRig asks for after the update.
func (r *rig) updated(p *pod) {
	r.t.Helper()
	var names, networks []string
	for _, s := range r.status(p) {
		names = append(names, s.Name+" "+s.Interface)
	}
	slices.Sort(names)
	want := []string{"default/a net1", "default/b net2", "default/c net3", "pods eth0"}
	if !slices.Equal(names, want) {
		r.t.Errorf("network-status of %q, want %q", names, want)
	}
	r.has(p, "eth0", "net1", "net2", "net3")
	for _, lease := range r.leases() {
		network, _, _ := strings.Cut(lease, "/")
		networks = append(networks, network)
	}
	if want := []string{"a", "b", "c", "pods"}; !slices.Equal(networks, want) {
		r.t.Errorf("leases of %v, want one of each of %v", networks, want)
	}
	if routes := p.Routes(); !strings.Contains(routes, "default via 10.12.0.1 dev net2") {
		r.t.Errorf("routes %s, want the default one via net2", routes)
	}
}

// updatePoints is a node and the points of an update on it.
func updatePoints(t *testing.T) (r *rig, p *pod, points []string, begin func(*rig)) {
	t.Helper()
	r, p, before, after := hotplugRig(t)
	begin = func(r *rig) {
		r.asks(p, before)
		r.add(p)
		r.asks(p, after)
	}
	begin(r)
	points, failed := r.points(update, p)
	if failed != nil {
		t.Fatal(failed)
	}
	r.updated(p)
	r.must("DEL", p)
	r.clean(p)
	covers(t, points, "lock ", "record leaving old", "DEL old", "record detached old",
		"remember network default/b", "record attempted net2",
		"ADD net2", "default route net2", "record attached net2", "copy device info net3", "ADD net3",
		"publish status", "record published", "unlock")
	return r, p, points, begin
}

// TestFaultUpdateThenDel kills an update at each point. The pod's DEL leaves nothing.
func TestFaultUpdateThenDel(t *testing.T) {
	t.Parallel()
	r, p, points, begin := updatePoints(t)
	r.eachPoint(points, 0, func(r *rig, n int) {
		begin(r)
		r.killedAt(update, p, points, n)
		r.must("DEL", p)
		r.clean(p)
	})
}

// TestFaultUpdateThenUpdate kills an update at each point. The next one makes the pod what it asks
// for, each network once.
func TestFaultUpdateThenUpdate(t *testing.T) {
	t.Parallel()
	r, p, points, begin := updatePoints(t)
	r.eachPoint(points, 0, func(r *rig, n int) {
		begin(r)
		r.killedAt(update, p, points, n)
		r.must(update, p)
		r.updated(p)
		r.must("CHECK", p)
		r.must("DEL", p)
		r.clean(p)
	})
}

// TestHotPlugDefaultRouteComesBack: when the network that had the default route goes, the default
// network has it again.
func TestHotPlugDefaultRouteComesBack(t *testing.T) {
	t.Parallel()
	r, p, _, after := hotplugRig(t)
	r.asks(p, after)
	r.add(p)
	r.asks(p, "a")
	r.must(update, p)
	r.has(p, "eth0", "net1")
	if routes := p.Routes(); !strings.Contains(routes, "default via 10.1.0.1 dev eth0") {
		t.Errorf("routes %s, want the default one via eth0", routes)
	}
	r.must("DEL", p)
	r.clean(p)
}

// TestR6HotPlugOfKubeVirt: the form in which KubeVirt asks for the networks of a virtual machine
// that runs. Its links are renamed by KubeVirt; the address of the claim is there again for the
// next pod.
func TestR6HotPlugOfKubeVirt(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.setBraid("hotplug", true)
	r.setBraid("aliases", map[string]any{"cnv-bridge": "bridge", "cnv-tuning": "tuning"})
	r.nad("red", `{"cniVersion":"0.3.1","name":"red","plugins":[{"type":"cnv-bridge","bridge":"br-red",
		"ipam":{"type":"whereabouts","range":"10.20.0.0/24"}},{"type":"cnv-tuning"}]}`)
	r.object("k8s.cni.cncf.io/v1alpha1", "IPAMClaim", "vm.red",
		map[string]any{"network": "red", "interface": "pod16367aacb67"}, nil)
	const networks = `[{"name":"red","namespace":"default","mac":"02:00:00:00:00:01",` +
		`"interface":"pod16367aacb67","ipam-claim-reference":"vm.red"}]`
	p := r.pod("virt-launcher-vm", "")
	r.add(p)
	r.asks(p, networks)
	r.must(update, p)
	r.has(p, "eth0", "pod16367aacb67")
	kept := r.address(p, "pod16367aacb67")
	status := r.status(p)
	if len(status) != 2 || status[1].Mac != "02:00:00:00:00:01" ||
		status[1].Interface != "pod16367aacb67" {
		t.Errorf("network-status %+v", status)
	}
	p.Rename("pod16367aacb67", "16367aacb67-nic")
	r.asks(p, "")
	r.must(update, p)
	r.has(p, "eth0")
	r.must("DEL", p)
	next := r.pod("virt-launcher-vm-2", networks)
	r.add(next)
	same(t, "address of the next pod", r.address(next, "pod16367aacb67"), kept)
	r.must("DEL", next)
}
