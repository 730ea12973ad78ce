package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	"github.com/braid-cni/braid/pkg/nettest"
)

// peer is another node of the same manifests.
func (r *rig) peer(name string) *rig {
	r.t.Helper()
	other := newRig(r.t)
	if err := os.Remove(other.path("manifests")); err != nil {
		r.t.Fatal(err)
	}
	if err := os.Symlink(r.path("manifests"), other.path("manifests")); err != nil {
		r.t.Fatal(err)
	}
	other.setBraid("manifests", r.path("manifests"))
	other.setBraid("nodeName", name)
	return other
}

// nodes makes manifests of so many nodes.
func (r *rig) nodes(n int) {
	for i := range n {
		r.object("v1", "Node", fmt.Sprint("node-", i+1), map[string]any{}, nil)
	}
}

// blocks are those of the cluster.
func (r *rig) blocks() (list []v1alpha1.IPBlock) {
	r.t.Helper()
	files, err := filepath.Glob(r.path("manifests", "ipblocks", "*.json"))
	if err != nil {
		r.t.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			r.t.Fatal(err)
		}
		var b v1alpha1.IPBlock
		if err := json.Unmarshal(data, &b); err != nil {
			r.t.Fatal(err)
		}
		list = append(list, b)
	}
	return list
}

// owners are the nodes of the blocks, each with the addresses that it has as the object tells it.
func (r *rig) owners() string {
	var all []string
	for _, b := range r.blocks() {
		if b.Spec.Owner != nil {
			all = append(all, b.Spec.CIDR+" of "+b.Spec.Owner.NodeName)
			continue
		}
		text := b.Spec.CIDR + " shared"
		for _, e := range b.Spec.Allocations {
			text += " " + e.ContainerID
		}
		all = append(all, text)
	}
	return strings.Join(all, ", ")
}

// after runs a command as if so much time had passed.
func (r *rig) after(passed, command string, p *pod) {
	r.t.Helper()
	r.must(command, p, later+"="+passed)
}

// cutOff makes each look at blocks fail, and nothing else, until the test calls the result.
func (r *rig) cutOff() (back func()) {
	r.t.Helper()
	blocks := r.path("manifests", "ipblocks")
	move := func(from, to string) {
		if err := os.Rename(from, to); err != nil {
			r.t.Fatal(err)
		}
	}
	move(blocks, blocks+".away")
	r.write("manifests/ipblocks", "no directory")
	return func() {
		if err := os.Remove(blocks); err != nil {
			r.t.Fatal(err)
		}
		move(blocks+".away", blocks)
	}
}

// TestR25NoAddressAfterTheLease: a node that cannot look whether its blocks are its own gives
// addresses of them for a while, and then none.
func TestR25NoAddressAfterTheLease(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.nad("a", `{"cniVersion":"1.0.0","plugins":[`+
		r.whereabouts("macvlan", `"range":"10.20.0.0/24"`, "")+`]}`)
	p := r.pod("p", "a")
	r.add(p)
	back := r.cutOff()
	r.add(r.pod("soon", "a"))
	r.after("12m", "ADD", r.pod("later", "a"))
	q := r.pod("q", "a")
	out, failed := r.call("ADD", q, later+"=19m")
	if failed == nil || failed.Code != 11 {
		t.Fatalf("ADD 19 minutes after the last look: %s, %v", out, failed)
	}
	for _, word := range []string{
		"default/q", "default/a", "field ", "node-1 has not seen", "its own", "ipblocks",
	} {
		if !strings.Contains(failed.Msg, word) {
			t.Errorf("%q is not in: %s", word, failed.Msg)
		}
	}
	r.after("19m", "DEL", p) // what is given back needs no look
	back()
	r.after("20m", "ADD", q)
}

// window is a range of four blocks, all of whose addresses are given.
const window = `"range":"10.20.0.0/16","range_start":"10.20.0.0","range_end":"10.20.0.63"`

// TestR26RecallsAreAnsweredByAnyOperation: a node shares the addresses that it does not use when
// another node asks for them, whatever its own operations are of; and a node without any by a
// timer.
func TestR26RecallsAreAnsweredByAnyOperation(t *testing.T) {
	for name, operate := range map[string]func(r *rig, plain *pod, passed string){
		"ADD": func(r *rig, _ *pod, passed string) {
			r.after(passed, "ADD", r.pod("new"+passed, ""))
		},
		"CHECK":        func(r *rig, plain *pod, passed string) { r.after(passed, "CHECK", plain) },
		"DEL repeated": func(r *rig, plain *pod, passed string) { r.after(passed, "DEL", plain) },
		"GC": func(r *rig, plain *pod, passed string) {
			r.valid(plain)
			r.after(passed, "GC", nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.nodes(2)
			r.nad("a", `{"cniVersion":"1.0.0","plugins":[`+r.whereabouts("macvlan", window, "")+`]}`)
			for i := range 4 { // it has all blocks, and one address of each in use
				r.add(r.pod(fmt.Sprint("p", i),
					fmt.Sprintf(`[{"name":"a","cni-args":{"ips":["10.20.0.%d"]}}]`, 16*i+1)))
			}
			same(t, "blocks", strings.Count(r.owners(), " of node-1"), 4)
			plain := r.pod("plain", "")
			r.add(plain)
			if name == "DEL repeated" {
				r.must("DEL", plain)
			}
			other := r.peer("node-2")
			q := other.pod("q", "a")
			other.fails("ADD", q, 11, "node-1 was asked to share")
			operate(r, plain, "1m")
			other.add(q)
			if got := other.address(q, "net1"); !strings.HasPrefix(got, "10.20.0.") {
				t.Errorf("address %s", got)
			}
		})
	}
}

// TestR26StatusAsksNobody: STATUS tells what the node knows, and tends nothing.
func TestR26StatusAsksNobody(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	conf := fmt.Sprintf(`{"cniVersion":"1.1.0","name":"net","type":"macvlan","master":%q,`+
		`"ipam":{"type":"whereabouts","range":"10.20.0.1/32"}}`, nic)
	status := func() *types.Error {
		t.Helper()
		_, failed := r.standalone("whereabouts", "STATUS", nil, conf)
		return failed
	}
	p, q := &pod{Namespace: nettest.New(t), id: "id-p"}, &pod{Namespace: nettest.New(t), id: "id-q"}
	if _, failed := r.standalone("whereabouts", "ADD", p, conf); failed != nil {
		t.Fatal(failed)
	}
	if _, failed := r.standalone("whereabouts", "ADD", q, conf); failed == nil {
		t.Fatal("two of one address")
	}
	back := r.cutOff()
	r.env = []string{later + "=40s"}
	if failed := status(); failed == nil || failed.Code != 50 {
		t.Errorf("STATUS of a full range: %v", failed)
	}
	r.env = []string{later + "=30m"}
	if failed := status(); failed != nil {
		t.Errorf("STATUS when somebody may have given an address back: %v", failed)
	}
	back()
}

// TestR28StateLost: what the API holds in the name of a pod is given back though the node's state
// is gone, by DEL or by GC.
func TestR28StateLost(t *testing.T) {
	for _, lost := range []string{"state", "state/ipam"} {
		for _, command := range []string{"DEL", "GC"} {
			t.Run(command+" without "+lost, func(t *testing.T) {
				t.Parallel()
				r := newRig(t)
				r.nodes(2)
				r.nad("a", `{"cniVersion":"1.0.0","plugins":[`+
					r.whereabouts("macvlan", `"range":"10.20.0.0/29"`, "")+`]}`)
				p, q := r.pod("p", "a"), r.pod("q", "a")
				r.add(p)
				r.add(q)
				same(t, "blocks", r.owners(), "10.20.0.0/28 shared id-p id-q")
				if err := os.RemoveAll(r.path(lost)); err != nil {
					t.Fatal(err)
				}
				if command == "DEL" {
					r.must("DEL", p)
					same(t, "blocks", r.owners(), "10.20.0.0/28 shared id-q")
					r.must("DEL", q)
				} else {
					r.valid()
					r.must("GC", nil)
					if lost == "state" { // the engine knows of no network any more
						return
					}
				}
				same(t, "blocks", r.owners(), "")
			})
		}
	}
}

// TestR28Renamed: a node that gets another name gives back what it holds under the earlier one.
func TestR28Renamed(t *testing.T) {
	for _, command := range []string{"DEL", "GC"} {
		for name, cidr := range map[string]string{"shared": "10.20.0.0/29", "own": "10.20.0.0/24"} {
			t.Run(command+" "+name, func(t *testing.T) {
				t.Parallel()
				r := newRig(t)
				r.nodes(2)
				r.nad("a", `{"cniVersion":"1.0.0","plugins":[`+
					r.whereabouts("macvlan", fmt.Sprintf(`"range":%q`, cidr), "")+`]}`)
				p := r.pod("p", "a")
				r.add(p)
				r.setBraid("nodeName", "node-new")
				if command == "DEL" {
					r.must("DEL", p)
				} else {
					r.valid()
					r.must("GC", nil)
				}
				// A block of its own is given back when it has been idle for a while.
				for _, passed := range []string{"1m", "10m", "20m"} {
					r.after(passed, "DEL", p)
				}
				same(t, "blocks", r.owners(), "")
				r.clean()
			})
		}
	}
}

// TestR31BlocksAreNotSharedForNodesThatDoNotUseThem: a range of sixteen blocks in a cluster of
// thirteen nodes belongs to those that use it.
func TestR31BlocksAreNotSharedForNodesThatDoNotUseThem(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.nodes(13)
	r.nad("a", `{"cniVersion":"1.0.0","plugins":[`+
		r.whereabouts("macvlan", `"range":"10.20.0.0/24"`, "")+`]}`)
	r.nad("small", `{"cniVersion":"1.0.0","plugins":[`+
		r.whereabouts("macvlan", `"range":"10.21.0.0/27"`, "")+`]}`)
	r.add(r.pod("p", "a"))
	same(t, "blocks", r.owners(), "10.20.0.0/28 of node-1")
	back := r.cutOff() // no request is needed for the next
	r.add(r.pod("q", "a"))
	back()
	s := r.pod("s", "small")
	r.add(s)
	got := r.owners()
	if !strings.Contains(got, "10.21.0.") || strings.Count(got, " shared id-s") != 1 {
		t.Errorf("blocks: %s, want that of the small range shared", got)
	}
}

// TestR6AllowPersistentIPs: a network as KubeVirt's users write it, of a built-in type, and two
// pods of one virtual machine during a migration.
func TestR6AllowPersistentIPs(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.nodes(2)
	r.nad("red", fmt.Sprintf(`{"cniVersion":"0.3.1","name":"tenantred","type":"macvlan","master":%q,"allowPersistentIPs":true,
		"ipam":{"type":"whereabouts","range":"10.20.0.0/24"}}`, nic))
	r.object("k8s.cni.cncf.io/v1alpha1", "IPAMClaim", "vm-a.tenantred",
		map[string]any{"network": "tenantred", "interface": "pod16367aacb67"}, nil)
	const networks = `[{"name":"red","interface":"pod16367aacb67",` +
		`"ipam-claim-reference":"vm-a.tenantred"}]`
	source := r.pod("source", networks)
	r.add(source)
	kept := r.address(source, "pod16367aacb67")
	other := r.peer("node-2")
	target := other.pod("target", networks)
	other.add(target)
	same(t, "address of the target", other.address(target, "pod16367aacb67"), kept)
	other.fails("ADD", other.pod("third", networks), 11, "the address is taken")
	r.must("DEL", source)
	other.must("CHECK", target)
	other.must("DEL", target)
	again := r.pod("again", networks)
	r.add(again)
	same(t, "address after a restart", r.address(again, "pod16367aacb67"), kept)
}
