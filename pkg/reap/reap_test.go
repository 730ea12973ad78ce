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
	both(t, func(c *controller) {
		here, gone := owner("here", c.addNode("here")), owner("gone", c.addNode("gone"))
		c.addPod(pod{namespace: "default", name: "p", node: "gone"})
		c.addPod(pod{namespace: "default", name: "proxy", node: "gone", host: true})
		c.block("s", "10.0.0.0/28", here)
		c.block("s", "10.0.0.16/28", gone)
		c.block("s", "10.0.0.32/28", nil, use("10.0.0.33", "default/p", gone, nil),
			use("10.0.0.34", "default/gone-pod", here, nil))
		c.block("s", "10.0.0.48/28", nil, use("10.0.0.49", "default/p", gone, nil))
		before := c.blocks()
		c.pass(0)
		c.deleteNode("gone")
		c.pass(time.Hour)
		c.pass(grace - time.Second)
		c.want("within the grace", before...)
		c.pass(time.Second)
		c.want("with a pod that is listed", before...)
		c.deletePod("default", "p")
		c.pass(0)
		c.want("at the end", "s-10-0-0-0-28 here", "s-10-0-0-32-28 10.0.0.34=default/gone-pod")
	})
}

// The Node object of the same name is another, and no pod is on it.
func TestReplacedNode(t *testing.T) {
	both(t, func(c *controller) {
		old := owner("n", c.addNode("n"))
		c.block("s", "10.0.0.0/28", old)
		c.deleteNode("n")
		current := owner("n", c.addNode("n"))
		c.block("s", "10.0.0.16/28", current)
		c.addPod(pod{namespace: "default", name: "p", node: "n"})
		c.pass(0)
		c.pass(grace)
		c.want("with a pod", "s-10-0-0-0-28 n", "s-10-0-0-16-28 n")
		c.deletePod("default", "p")
		c.pass(0)
		c.want("without", "s-10-0-0-16-28 n")
	})
}

func TestOutOfService(t *testing.T) {
	both(t, func(c *controller) {
		c.block("s", "10.0.0.0/28", owner("down", c.addNode("down", outOfService)))
		c.block("s", "10.0.0.16/28",
			owner("unready", c.addNode("unready", "node.kubernetes.io/not-ready",
				"node.kubernetes.io/unreachable")))
		c.pass(0)
		c.pass(grace)
		c.want("after the grace", "s-10-0-0-16-28 unready")
		c.taint("unready", outOfService)
		c.pass(0)
		c.taint("unready")
		c.pass(grace)
		c.taint("unready", outOfService)
		c.pass(grace)
		c.want("tainted again", "s-10-0-0-16-28 unready")
		c.pass(grace)
		c.want("after the grace again")
	})
}

// A node that comes back begins a new grace when it is lost again; one that has written its new uid
// is not lost.
func TestNodeComesBack(t *testing.T) {
	both(t, func(c *controller) {
		c.block("s", "10.0.0.0/28", owner("n", c.addNode("n")))
		c.deleteNode("n")
		c.pass(0)
		c.pass(grace - time.Second)
		uid := c.addNode("n")
		list, err := c.src.Blocks(c.t.Context(), listAll)
		if err != nil {
			c.t.Fatal(err)
		}
		list[0].Spec.Owner = owner("n", uid)
		if _, err := c.src.UpdateBlock(c.t.Context(), &list[0]); err != nil {
			c.t.Fatal(err)
		}
		c.pass(time.Second)
		c.pass(grace)
		c.deleteNode("n")
		c.pass(time.Hour)
		c.pass(grace - time.Second)
		c.want("after the second loss", "s-10-0-0-0-28 n")
		c.pass(time.Second)
		c.want("after the second grace")
	})
}

// Another instance knows nothing of how long a node was lost.
func TestNewLeaderWaits(t *testing.T) {
	c := newController(t, newFake())
	c.block("s", "10.0.0.0/28", owner("n", "u"))
	c.pass(0)
	c.Reaper = c.reaper()
	c.pass(grace)
	c.want("first pass", "s-10-0-0-0-28 n")
	c.pass(grace)
	c.want("after the grace")
}

// What a claim keeps stays while it exists, by its uid; what a container uses stays without it.
func TestClaims(t *testing.T) {
	both(t, func(c *controller) {
		here, gone := owner("here", c.addNode("here")), owner("gone", "u")
		kept := claim("default", "kept", c.addClaim("default", "kept"))
		old := claim("default", "old", c.addClaim("default", "old"))
		c.block("s", "10.0.0.0/28", nil,
			use("10.0.0.1", "", nil, kept), use("10.0.0.2", "default/a", here, kept),
			use("10.0.0.3", "default/b", gone, kept),
			use("10.0.0.4", "", nil, old), use("10.0.0.5", "default/c", here, old),
			use("10.0.0.6", "default/d", gone, old))
		c.block("s", "10.0.0.16/28", nil, use("10.0.0.17", "", nil, old))
		before := c.blocks()
		c.pass(0)
		c.want("while both exist", before...)
		c.deleteClaim("default", "old")
		c.addClaim("default", "old")
		c.pass(time.Second)
		c.want("one replaced", "s-10-0-0-0-28 10.0.0.1=+kept 10.0.0.2=default/a+kept "+
			"10.0.0.3=default/b+kept 10.0.0.5=default/c 10.0.0.6=default/d")
		c.pass(grace)
		c.want("node lost", "s-10-0-0-0-28 10.0.0.1=+kept 10.0.0.2=default/a+kept 10.0.0.3=+kept "+
			"10.0.0.5=default/c")
		c.deleteClaim("default", "kept")
		c.pass(0)
		c.want("both gone", "s-10-0-0-0-28 10.0.0.2=default/a 10.0.0.5=default/c")
	})
}

// TestR6ClaimThatIsBeingDeleted: the addresses of a claim are free when the object is gone, not
// when it is being deleted. Of two sandboxes of a migration each goes with its own node.
func TestR6ClaimThatIsBeingDeleted(t *testing.T) {
	f := newFake()
	c := newController(t, f)
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
	c.block("s", "10.0.0.0/28", nil, source, target, use("10.0.0.3", "", nil, vm))
	c.pass(0)
	c.pass(grace)
	c.want("a node lost", "s-10-0-0-0-28 10.0.0.1=default/target+vm 10.0.0.2=default/source2+vm "+
		"10.0.0.3=+vm")
	for _, e := range f.All()[0].Spec.Allocations {
		if e.Second != nil {
			t.Errorf("%s has a second sandbox, of a node that is lost: %+v", e.Address, e.Second)
		}
	}
	f.deleteClaim("default", "vm")
	c.pass(0)
	c.want("the claim is gone", "s-10-0-0-0-28 10.0.0.1=default/target 10.0.0.2=default/source2")
}

// Addresses are the node's to free while it is there, whatever became of the pod: it may be
// pending, and its status not written yet.
func TestPodsOfLiveNodes(t *testing.T) {
	both(t, func(c *controller) {
		n := owner("n", c.addNode("n"))
		c.addPod(pod{namespace: "default", name: "pending", node: "n"})
		c.block("s", "10.0.0.0/28", nil, use("10.0.0.1", "default/pending", n, nil),
			use("10.0.0.2", "default/none", n, nil))
		before := c.blocks()
		c.pass(0)
		c.pass(time.Hour)
		c.want("after an hour", before...)
	})
}

func TestEmptyShared(t *testing.T) {
	both(t, func(c *controller) {
		c.block("s", "10.0.0.0/28", nil)
		c.pass(0)
		c.want("after a pass")
	})
}

var errDown = errors.New("down")

// Each request in turn fails, before or after it takes effect: nothing is freed that is in use, and
// the passes after that finish the work.
func TestRequestsFail(t *testing.T) {
	for _, when := range []string{"before", "after"} {
		for fails := 0; ; fails++ {
			f := newFake()
			c := newController(t, f)
			here := owner("here", f.addNode("here"))
			kept := claim("default", "kept", f.addClaim("default", "kept"))
			f.addPod(pod{namespace: "default", name: "w"})
			f.setPool("10.9.0.0-24", "10.9.0.0/24", given1("default/w"))
			c.block("s", "10.0.0.0/28", here)
			c.block("s", "10.0.0.16/28", owner("gone", "u"))
			c.block("s", "10.0.0.32/28", nil, use("10.0.0.33", "default/a", owner("gone", "u"), kept),
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
			c.clock = c.clock.Add(time.Second)
			failed := c.Pass(t.Context())
			for range 3 {
				c.clock = c.clock.Add(grace)
				failed = errors.Join(failed, c.Pass(t.Context()))
			}
			over := n <= fails
			if over != (failed == nil) {
				t.Errorf("%s %d: error %v", when, fails, failed)
			}
			f.fail = nil
			c.pass(grace)
			c.pass(grace)
			c.want(when, "s-10-0-0-0-28 here",
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
		c := newController(t, f)
		f.addPod(pod{namespace: "default", name: "w"})
		f.setPool("10.9.0.0-24", "10.9.0.0/24", given1("default/w"))
		c.pass(0)
		c.block("s", "10.0.0.0/28", owner("gone", "u"))
		c.block("s", "10.0.0.16/28", nil, use("10.0.0.17", "", nil, claim("default", "old", "u")))
		f.setPool("10.9.0.0-24", "10.9.0.0/24", map[string]wbAllocation{})
		f.deletePod("default", "w")
		before := c.blocks()
		f.fail = func(_, v string) error {
			if v == verb {
				return errDown
			}
			return nil
		}
		for range 3 {
			c.clock = c.clock.Add(grace)
			if err := c.Pass(t.Context()); !errors.Is(err, errDown) {
				if verb != "pods of node" || err != nil {
					t.Errorf("%s: error %v", verb, err)
				}
			}
		}
		f.fail = nil
		kept := map[string]int{
			"nodes": 1, "pods of node": 1, "claims": 1, "pools": 2, "reservations": 2, "pods": 2,
		}[verb]
		if got := len(c.blocks()); got != kept {
			t.Errorf("%s: %d blocks are left of %v, want %d: %v", verb, got, before, kept, c.blocks())
		}
		c.pass(grace)
		c.pass(grace)
		c.want(verb)
	}
}

// A block that changed since it was read is left alone.
func TestChangedMeanwhile(t *testing.T) {
	f := newFake()
	c := newController(t, f)
	c.block("s", "10.0.0.0/28", owner("gone", "u"))
	c.pass(0)
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
	c.pass(grace)
	c.want("changed", "s-10-0-0-0-28 gone recalled by other")
	c.pass(0)
	c.want("after the next pass")
}
