package reap_test

import (
	"errors"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	"github.com/braid-cni/braid/pkg/reap"
)

const (
	grace        = reap.DefaultGrace
	outOfService = "node.kubernetes.io/out-of-service"
)

// A node that was deleted loses its blocks and addresses after the grace, when no pod of it is
// left; a node that is there loses nothing.
func TestDeletedNode(t *testing.T) {
	both(t, func(r *rig) {
		here, gone := owner("here", r.addNode("here")), owner("gone", r.addNode("gone"))
		r.addPod(pod{namespace: "default", name: "p", node: "gone"})
		r.addPod(pod{namespace: "default", name: "proxy", node: "gone", host: true})
		r.block("s", "10.0.0.0/28", here)
		r.block("s", "10.0.0.16/28", gone)
		r.block("s", "10.0.0.32/28", nil, use("10.0.0.33", "default/p", gone, nil),
			use("10.0.0.34", "default/gone-pod", here, nil))
		r.block("s", "10.0.0.48/28", nil, use("10.0.0.49", "default/p", gone, nil))
		before := r.blocks()
		r.pass(0)
		r.deleteNode("gone")
		r.pass(time.Hour)
		r.pass(grace - time.Second)
		r.want("within the grace", before...)
		r.pass(time.Second)
		r.want("with a pod that is listed", before...)
		r.deletePod("default", "p")
		r.pass(0)
		r.want("at the end", "s-10-0-0-0-28 here", "s-10-0-0-32-28 10.0.0.34=default/gone-pod")
	})
}

// The Node object of the same name is another, and no pod is on it.
func TestReplacedNode(t *testing.T) {
	both(t, func(r *rig) {
		old := owner("n", r.addNode("n"))
		r.block("s", "10.0.0.0/28", old)
		r.deleteNode("n")
		current := owner("n", r.addNode("n"))
		r.block("s", "10.0.0.16/28", current)
		r.addPod(pod{namespace: "default", name: "p", node: "n"})
		r.pass(0)
		r.pass(grace)
		r.want("with a pod", "s-10-0-0-0-28 n", "s-10-0-0-16-28 n")
		r.deletePod("default", "p")
		r.pass(0)
		r.want("without", "s-10-0-0-16-28 n")
	})
}

func TestOutOfService(t *testing.T) {
	both(t, func(r *rig) {
		r.block("s", "10.0.0.0/28", owner("down", r.addNode("down", outOfService)))
		r.block("s", "10.0.0.16/28",
			owner("unready", r.addNode("unready", "node.kubernetes.io/not-ready",
				"node.kubernetes.io/unreachable")))
		r.pass(0)
		r.pass(grace)
		r.want("after the grace", "s-10-0-0-16-28 unready")
		r.taint("unready", outOfService)
		r.pass(0)
		r.taint("unready")
		r.pass(grace)
		r.taint("unready", outOfService)
		r.pass(grace)
		r.want("tainted again", "s-10-0-0-16-28 unready")
		r.pass(grace)
		r.want("after the grace again")
	})
}

// A node that comes back begins a new grace when it is lost again; one that has written its new uid
// is not lost.
func TestNodeComesBack(t *testing.T) {
	both(t, func(r *rig) {
		r.block("s", "10.0.0.0/28", owner("n", r.addNode("n")))
		r.deleteNode("n")
		r.pass(0)
		r.pass(grace - time.Second)
		uid := r.addNode("n")
		list, err := r.src.Blocks(r.t.Context(), listAll)
		if err != nil {
			r.t.Fatal(err)
		}
		list[0].Spec.Owner = owner("n", uid)
		if _, err := r.src.UpdateBlock(r.t.Context(), &list[0]); err != nil {
			r.t.Fatal(err)
		}
		r.pass(time.Second)
		r.pass(grace)
		r.deleteNode("n")
		r.pass(time.Hour)
		r.pass(grace - time.Second)
		r.want("after the second loss", "s-10-0-0-0-28 n")
		r.pass(time.Second)
		r.want("after the second grace")
	})
}

// Another instance knows nothing of how long a node was lost.
func TestNewLeaderWaits(t *testing.T) {
	r := newRig(t, newFake())
	r.block("s", "10.0.0.0/28", owner("n", "u"))
	r.pass(0)
	r.Reaper = r.reaper()
	r.pass(grace)
	r.want("first pass", "s-10-0-0-0-28 n")
	r.pass(grace)
	r.want("after the grace")
}

// What a claim keeps stays while it exists, by its uid; what a container uses stays without it.
func TestClaims(t *testing.T) {
	both(t, func(r *rig) {
		here, gone := owner("here", r.addNode("here")), owner("gone", "u")
		kept := claim("default", "kept", r.addClaim("default", "kept"))
		old := claim("default", "old", r.addClaim("default", "old"))
		r.block("s", "10.0.0.0/28", nil,
			use("10.0.0.1", "", nil, kept), use("10.0.0.2", "default/a", here, kept),
			use("10.0.0.3", "default/b", gone, kept),
			use("10.0.0.4", "", nil, old), use("10.0.0.5", "default/c", here, old),
			use("10.0.0.6", "default/d", gone, old))
		r.block("s", "10.0.0.16/28", nil, use("10.0.0.17", "", nil, old))
		before := r.blocks()
		r.pass(0)
		r.want("while both exist", before...)
		r.deleteClaim("default", "old")
		r.addClaim("default", "old")
		r.pass(time.Second)
		r.want("one replaced", "s-10-0-0-0-28 10.0.0.1=+kept 10.0.0.2=default/a+kept "+
			"10.0.0.3=default/b+kept 10.0.0.5=default/c 10.0.0.6=default/d")
		r.pass(grace)
		r.want("node lost", "s-10-0-0-0-28 10.0.0.1=+kept 10.0.0.2=default/a+kept 10.0.0.3=+kept "+
			"10.0.0.5=default/c")
		r.deleteClaim("default", "kept")
		r.pass(0)
		r.want("both gone", "s-10-0-0-0-28 10.0.0.2=default/a 10.0.0.5=default/c")
	})
}

// TestR6ClaimThatIsBeingDeleted: the addresses of a claim are free when the object is gone, not
// when it is being deleted. Of two sandboxes of a migration each goes with its own node.
func TestR6ClaimThatIsBeingDeleted(t *testing.T) {
	f := newFake()
	r := newRig(t, f)
	here, gone := owner("here", f.addNode("here")), owner("gone", "u")
	vm := claim("default", "vm", f.addClaim("default", "vm"))
	now := metav1.Now()
	f.deleting = map[types.UID]*metav1.Time{vm.UID: &now}
	source := use("10.0.0.1", "default/source", gone, vm)
	source.Second = &v1alpha1.Sandbox{
		Network: "net", ContainerID: "target", IfName: "net1", Pod: "default/target", Node: here,
	}
	target := use("10.0.0.2", "default/source2", here, vm)
	target.Second = &v1alpha1.Sandbox{
		Network: "net", ContainerID: "target2", IfName: "net1", Pod: "default/target2", Node: gone,
	}
	r.block("s", "10.0.0.0/28", nil, source, target, use("10.0.0.3", "", nil, vm))
	r.pass(0)
	r.pass(grace)
	r.want("a node lost", "s-10-0-0-0-28 10.0.0.1=default/target+vm 10.0.0.2=default/source2+vm "+
		"10.0.0.3=+vm")
	for _, e := range f.All()[0].Spec.Allocations {
		if e.Second != nil {
			t.Errorf("%s has a second sandbox, of a node that is lost: %+v", e.Address, e.Second)
		}
	}
	f.deleteClaim("default", "vm")
	r.pass(0)
	r.want("the claim is gone", "s-10-0-0-0-28 10.0.0.1=default/target 10.0.0.2=default/source2")
}

// Addresses are the node's to give back while it is there, whatever became of the pod: it may be
// pending, and its status not written yet.
func TestPodsOfLiveNodes(t *testing.T) {
	both(t, func(r *rig) {
		n := owner("n", r.addNode("n"))
		r.addPod(pod{namespace: "default", name: "pending", node: "n"})
		r.block("s", "10.0.0.0/28", nil, use("10.0.0.1", "default/pending", n, nil),
			use("10.0.0.2", "default/none", n, nil))
		before := r.blocks()
		r.pass(0)
		r.pass(time.Hour)
		r.want("after an hour", before...)
	})
}

func TestEmptyShared(t *testing.T) {
	both(t, func(r *rig) {
		r.block("s", "10.0.0.0/28", nil)
		r.pass(0)
		r.want("after a pass")
	})
}

var errDown = errors.New("down")

// Each request in turn fails, before or after it takes effect: nothing is freed that is in use, and
// the passes after that finish the work.
func TestRequestsFail(t *testing.T) {
	for _, when := range []string{"before", "after"} {
		for fails := 0; ; fails++ {
			f := newFake()
			r := newRig(t, f)
			here := owner("here", f.addNode("here"))
			kept := claim("default", "kept", f.addClaim("default", "kept"))
			f.addPod(pod{namespace: "default", name: "w"})
			f.setPool("10.9.0.0-24", "10.9.0.0/24", given1("default/w"))
			r.block("s", "10.0.0.0/28", here)
			r.block("s", "10.0.0.16/28", owner("gone", "u"))
			r.block("s", "10.0.0.32/28", nil, use("10.0.0.33", "default/a", owner("gone", "u"), kept),
				use("10.0.0.34", "default/b", here, nil),
				use("10.0.0.35", "", nil, claim("default", "old", "u")), use("10.0.0.36", "", nil, kept))
			n := 0
			f.fail = func(at, _ string) error {
				if at == when {
					if n++; n == fails+1 {
						return errDown
					}
				}
				return nil
			}
			r.clock = r.clock.Add(time.Second)
			failed := r.Pass(t.Context())
			for range 3 {
				r.clock = r.clock.Add(grace)
				failed = errors.Join(failed, r.Pass(t.Context()))
			}
			over := n <= fails
			if over != (failed == nil) {
				t.Errorf("%s %d: error %v", when, fails, failed)
			}
			f.fail = nil
			r.pass(grace)
			r.pass(grace)
			r.want(when, "s-10-0-0-0-28 here",
				"s-10-0-0-32-28 10.0.0.33=+kept 10.0.0.34=default/b 10.0.0.36=+kept",
				"default-10-9-0-0-28 10.9.0.1=default/w",
				only("", "10.9.0.0/24")+"-10-9-0-0-28 10.9.0.1=default/w")
			if over {
				break
			}
		}
	}
}

// While a list cannot be had, nothing that it might hold is taken for gone.
func TestNotKnownIsNotGone(t *testing.T) {
	for _, verb := range []string{"nodes", "pods of node", "claims", "pools", "reservations", "pods"} {
		f := newFake()
		r := newRig(t, f)
		f.addPod(pod{namespace: "default", name: "w"})
		f.setPool("10.9.0.0-24", "10.9.0.0/24", given1("default/w"))
		r.pass(0)
		r.block("s", "10.0.0.0/28", owner("gone", "u"))
		r.block("s", "10.0.0.16/28", nil, use("10.0.0.17", "", nil, claim("default", "old", "u")))
		f.setPool("10.9.0.0-24", "10.9.0.0/24", map[string]wbAllocation{})
		f.deletePod("default", "w")
		before := r.blocks()
		f.fail = func(_, v string) error {
			if v == verb {
				return errDown
			}
			return nil
		}
		for range 3 {
			r.clock = r.clock.Add(grace)
			if err := r.Pass(t.Context()); !errors.Is(err, errDown) {
				if verb != "pods of node" || err != nil {
					t.Errorf("%s: error %v", verb, err)
				}
			}
		}
		f.fail = nil
		kept := map[string]int{
			"nodes": 1, "pods of node": 1, "claims": 1, "pools": 2, "reservations": 2, "pods": 2,
		}[verb]
		if got := len(r.blocks()); got != kept {
			t.Errorf("%s: %d blocks are left of %v, want %d: %v", verb, got, before, kept, r.blocks())
		}
		r.pass(grace)
		r.pass(grace)
		r.want(verb)
	}
}

// A block that changed since it was read is left alone.
func TestChangedMeanwhile(t *testing.T) {
	f := newFake()
	r := newRig(t, f)
	r.block("s", "10.0.0.0/28", owner("gone", "u"))
	r.pass(0)
	f.fail = func(when, verb string) error {
		if when == "before" && verb == "delete" {
			f.fail = nil
			b, err := f.Block(t.Context(), "s-10-0-0-0-28")
			if err != nil {
				return err
			}
			b.Spec.Recall = &v1alpha1.Recall{By: "other"}
			_, err = f.UpdateBlock(t.Context(), b)
			return err
		}
		return nil
	}
	r.pass(grace)
	r.want("changed", "s-10-0-0-0-28 gone recalled by other")
	r.pass(0)
	r.want("after the next pass")
}
