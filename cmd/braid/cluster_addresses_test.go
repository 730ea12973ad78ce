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
func (h *host) peer(name string) *host {
	h.t.Helper()
	other := newHost(h.t)
	if err := os.Remove(other.path("manifests")); err != nil {
		h.t.Fatal(err)
	}
	if err := os.Symlink(h.path("manifests"), other.path("manifests")); err != nil {
		h.t.Fatal(err)
	}
	other.setBraid("manifests", h.path("manifests"))
	other.setBraid("nodeName", name)
	return other
}

// nodes makes manifests of so many nodes.
func (h *host) nodes(n int) {
	for i := range n {
		h.object("v1", "Node", fmt.Sprint("node-", i+1), map[string]any{}, nil)
	}
}

// blocks are those of the cluster.
func (h *host) blocks() (list []v1alpha1.IPBlock) {
	h.t.Helper()
	files, err := filepath.Glob(h.path("manifests", "ipblocks", "*.json"))
	if err != nil {
		h.t.Fatal(err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			h.t.Fatal(err)
		}
		var b v1alpha1.IPBlock
		if err := json.Unmarshal(data, &b); err != nil {
			h.t.Fatal(err)
		}
		list = append(list, b)
	}
	return list
}

// owners are the nodes of the blocks, each with the addresses that it has by the object.
func (h *host) owners() string {
	var all []string
	for _, b := range h.blocks() {
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
func (h *host) after(passed, command string, p *pod) {
	h.t.Helper()
	h.must(command, p, later+"="+passed)
}

// cutOff makes each look at blocks fail, and nothing else, until the test calls the result.
func (h *host) cutOff() (back func()) {
	h.t.Helper()
	blocks := h.path("manifests", "ipblocks")
	move := func(from, to string) {
		if err := os.Rename(from, to); err != nil {
			h.t.Fatal(err)
		}
	}
	move(blocks, blocks+".away")
	h.write("manifests/ipblocks", "no directory")
	return func() {
		if err := os.Remove(blocks); err != nil {
			h.t.Fatal(err)
		}
		move(blocks+".away", blocks)
	}
}

// TestR25NoAddressAfterTheLease: a node that cannot see that its blocks are its own assigns
// addresses of them for a while, and then none.
func TestR25NoAddressAfterTheLease(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("a", `{"cniVersion":"1.0.0","plugins":[`+
		h.whereabouts("macvlan", `"range":"10.20.0.0/24"`, "")+`]}`)
	p := h.pod("p", "a")
	h.add(p)
	back := h.cutOff()
	h.add(h.pod("soon", "a"))
	h.after("12m", "ADD", h.pod("later", "a"))
	q := h.pod("q", "a")
	out, failed := h.call("ADD", q, later+"=19m")
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
	h.after("19m", "DEL", p) // what is given back needs no look
	back()
	h.after("20m", "ADD", q)
}

// window is a range of four blocks, all of whose addresses are given.
const window = `"range":"10.20.0.0/16","range_start":"10.20.0.0","range_end":"10.20.0.63"`

// TestR26RecallsAreAnsweredByAnyOperation: a node shares the addresses that it does not use when
// another node asks for them, whatever its own operations are of; and a node without any by a
// timer.
func TestR26RecallsAreAnsweredByAnyOperation(t *testing.T) {
	for name, operate := range map[string]func(h *host, plain *pod, passed string){
		"ADD": func(h *host, _ *pod, passed string) {
			h.after(passed, "ADD", h.pod("new"+passed, ""))
		},
		"CHECK":        func(h *host, plain *pod, passed string) { h.after(passed, "CHECK", plain) },
		"DEL repeated": func(h *host, plain *pod, passed string) { h.after(passed, "DEL", plain) },
		"GC": func(h *host, plain *pod, passed string) {
			h.valid(plain)
			h.after(passed, "GC", nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.nodes(2)
			h.nad("a", `{"cniVersion":"1.0.0","plugins":[`+h.whereabouts("macvlan", window, "")+`]}`)
			for i := range 4 { // it has all blocks, and one address of each in use
				h.add(h.pod(fmt.Sprint("p", i),
					fmt.Sprintf(`[{"name":"a","cni-args":{"ips":["10.20.0.%d"]}}]`, 16*i+1)))
			}
			same(t, "blocks", strings.Count(h.owners(), " of node-1"), 4)
			plain := h.pod("plain", "")
			h.add(plain)
			if name == "DEL repeated" {
				h.must("DEL", plain)
			}
			other := h.peer("node-2")
			q := other.pod("q", "a")
			other.fails("ADD", q, 11, "node-1 was asked to share")
			operate(h, plain, "1m")
			other.add(q)
			if got := other.address(q, "net1"); !strings.HasPrefix(got, "10.20.0.") {
				t.Errorf("address %s", got)
			}
		})
	}
}

// TestR26StatusAsksNobody: STATUS reports what the node knows, and does no upkeep.
func TestR26StatusAsksNobody(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	conf := fmt.Sprintf(`{"cniVersion":"1.1.0","name":"net","type":"macvlan","master":%q,`+
		`"ipam":{"type":"whereabouts","range":"10.20.0.1/32"}}`, nic)
	status := func() *types.Error {
		t.Helper()
		_, failed := h.standalone("whereabouts", "STATUS", nil, conf)
		return failed
	}
	p, q := &pod{Namespace: nettest.New(t), id: "id-p"}, &pod{Namespace: nettest.New(t), id: "id-q"}
	if _, failed := h.standalone("whereabouts", "ADD", p, conf); failed != nil {
		t.Fatal(failed)
	}
	if _, failed := h.standalone("whereabouts", "ADD", q, conf); failed == nil {
		t.Fatal("two of one address")
	}
	back := h.cutOff()
	h.env = []string{later + "=40s"}
	if failed := status(); failed == nil || failed.Code != 50 {
		t.Errorf("STATUS of a full range: %v", failed)
	}
	h.env = []string{later + "=30m"}
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
				h := newHost(t)
				h.nodes(2)
				h.nad("a", `{"cniVersion":"1.0.0","plugins":[`+
					h.whereabouts("macvlan", `"range":"10.20.0.0/29"`, "")+`]}`)
				p, q := h.pod("p", "a"), h.pod("q", "a")
				h.add(p)
				h.add(q)
				same(t, "blocks", h.owners(), "10.20.0.0/28 shared id-p id-q")
				if err := os.RemoveAll(h.path(lost)); err != nil {
					t.Fatal(err)
				}
				if command == "DEL" {
					h.must("DEL", p)
					same(t, "blocks", h.owners(), "10.20.0.0/28 shared id-q")
					h.must("DEL", q)
				} else {
					h.valid()
					h.must("GC", nil)
					if lost == "state" { // the engine knows of no network any more
						return
					}
				}
				same(t, "blocks", h.owners(), "")
			})
		}
	}
}

// TestR28Renamed: a node that gets another name frees what it holds under the earlier one.
func TestR28Renamed(t *testing.T) {
	for _, command := range []string{"DEL", "GC"} {
		for name, cidr := range map[string]string{"shared": "10.20.0.0/29", "own": "10.20.0.0/24"} {
			t.Run(command+" "+name, func(t *testing.T) {
				t.Parallel()
				h := newHost(t)
				h.nodes(2)
				h.nad("a", `{"cniVersion":"1.0.0","plugins":[`+
					h.whereabouts("macvlan", fmt.Sprintf(`"range":%q`, cidr), "")+`]}`)
				p := h.pod("p", "a")
				h.add(p)
				h.setBraid("nodeName", "node-new")
				if command == "DEL" {
					h.must("DEL", p)
				} else {
					h.valid()
					h.must("GC", nil)
				}
				// A block of its own is given back when it has been idle for a while.
				for _, passed := range []string{"1m", "10m", "20m"} {
					h.after(passed, "DEL", p)
				}
				same(t, "blocks", h.owners(), "")
				h.clean()
			})
		}
	}
}

// TestR31BlocksAreNotSharedForNodesThatDoNotUseThem: a range of sixteen blocks in a cluster of
// thirteen nodes belongs to those that use it.
func TestR31BlocksAreNotSharedForNodesThatDoNotUseThem(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nodes(13)
	h.nad("a", `{"cniVersion":"1.0.0","plugins":[`+
		h.whereabouts("macvlan", `"range":"10.20.0.0/24"`, "")+`]}`)
	h.nad("small", `{"cniVersion":"1.0.0","plugins":[`+
		h.whereabouts("macvlan", `"range":"10.21.0.0/27"`, "")+`]}`)
	h.add(h.pod("p", "a"))
	same(t, "blocks", h.owners(), "10.20.0.0/28 of node-1")
	back := h.cutOff() // no request is needed for the next
	h.add(h.pod("q", "a"))
	back()
	s := h.pod("s", "small")
	h.add(s)
	got := h.owners()
	if !strings.Contains(got, "10.21.0.") || strings.Count(got, " shared id-s") != 1 {
		t.Errorf("blocks: %s, want that of the small range shared", got)
	}
}

// TestR6AllowPersistentIPs: a network as KubeVirt's users write it, of a built-in type, and two
// pods of one virtual machine during a migration.
func TestR6AllowPersistentIPs(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nodes(2)
	h.nad("red", fmt.Sprintf(`{"cniVersion":"0.3.1","name":"tenantred","type":"macvlan","master":%q,"allowPersistentIPs":true,
		"ipam":{"type":"whereabouts","range":"10.20.0.0/24"}}`, nic))
	h.object("k8s.cni.cncf.io/v1alpha1", "IPAMClaim", "vm-a.tenantred",
		map[string]any{"network": "tenantred", "interface": "pod16367aacb67"}, nil)
	const networks = `[{"name":"red","interface":"pod16367aacb67",` +
		`"ipam-claim-reference":"vm-a.tenantred"}]`
	source := h.pod("source", networks)
	h.add(source)
	kept := h.address(source, "pod16367aacb67")
	other := h.peer("node-2")
	target := other.pod("target", networks)
	other.add(target)
	same(t, "address of the target", other.address(target, "pod16367aacb67"), kept)
	other.fails("ADD", other.pod("third", networks), 11, "the address is taken")
	h.must("DEL", source)
	other.must("CHECK", target)
	other.must("DEL", target)
	again := h.pod("again", networks)
	h.add(again)
	same(t, "address after a restart", h.address(again, "pod16367aacb67"), kept)
}
