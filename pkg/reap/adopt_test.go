package reap_test

import (
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	wbv1 "github.com/braid-cni/braid/pkg/api/whereabouts/v1alpha1"
	"github.com/braid-cni/braid/pkg/ipam/block"
	"github.com/braid-cni/braid/pkg/reap"
)

type wbAllocation = wbv1.IPAllocation

var listAll = metav1.ListOptions{}

func given1(pod string) map[string]wbAllocation {
	return map[string]wbAllocation{"1": given(pod, "c1")}
}

func reservation(pod string) *wbv1.OverlappingRangeIPReservationSpec {
	return &wbv1.OverlappingRangeIPReservationSpec{PodRef: pod, IfName: "net1"}
}

// only is the space of a range that others may overlap.
func only(network, cidr string) string { return block.SpaceOf(network, cidr) }

// What is recorded is taken in the right space, once, until the pod is gone or whereabouts has
// given it back.
func TestAdopt(t *testing.T) {
	both(t, func(c *controller) {
		for _, name := range []string{"a", "b", "c"} {
			c.addPod(pod{namespace: "default", name: name})
		}
		c.setPool("10.9.0.0-24", "10.9.0.0/24", map[string]wbAllocation{
			"5": given("default/a", "c5"), "6": given("default/gone", "c6"), "17": given("default/b", "c17"),
		})
		c.setReservation("10.9.0.5", reservation("default/a"))
		c.setPool("blue-fd00---64", "fd00::/64",
			map[string]wbAllocation{"18446744073709551615": given("default/c", "c7")})
		c.setReservation("blue-fd00--9", reservation("default/b"))
		all := []string{
			"default-10-9-0-0-28 10.9.0.5=default/a",
			"default-10-9-0-16-28 10.9.0.17=default/b",
			only("", "10.9.0.0/24") + "-10-9-0-16-28 10.9.0.17=default/b",
			"blue-fd00-0000-0000-0000-0000-0000-0000-0000-124 fd00::9=default/b",
			"blue-fd00-0000-0000-0000-ffff-ffff-ffff-fff0-124 fd00::ffff:ffff:ffff:ffff=default/c",
			only("blue", "fd00::/64") +
				"-fd00-0000-0000-0000-ffff-ffff-ffff-fff0-124 fd00::ffff:ffff:ffff:ffff=default/c",
		}
		for range 2 {
			c.pass(time.Minute)
			c.want("adopted", all...)
		}
		versions := c.versions()
		c.pass(time.Minute)
		if again := c.versions(); again != versions {
			c.t.Errorf("a pass that had nothing to do wrote:\n%s\n%s", versions, again)
		}
		c.deletePod("default", "c")
		c.setPool("10.9.0.0-24", "10.9.0.0/24",
			map[string]wbAllocation{"5": given("default/a", "c5"), "4": given("default/a", "c4")})
		c.pass(time.Minute)
		c.want("pod gone, record gone, another record",
			"default-10-9-0-0-28 10.9.0.5=default/a 10.9.0.4=default/a",
			only("", "10.9.0.0/24")+"-10-9-0-0-28 10.9.0.4=default/a", all[3])
	})
}

func (c *controller) versions() string {
	c.t.Helper()
	list, err := c.src.Blocks(c.t.Context(), listAll)
	if err != nil {
		c.t.Fatal(err)
	}
	var all []string
	for i := range list {
		all = append(all, list[i].Name+"="+list[i].ResourceVersion)
	}
	return strings.Join(all, " ")
}

// Where the pools themselves are removed, what was adopted stays until its pods are gone.
func TestPoolsRemoved(t *testing.T) {
	for _, unserved := range []bool{false, true} {
		f := newFake()
		c := newController(t, f)
		f.addPod(pod{namespace: "default", name: "a"})
		f.setPool("10.9.0.0-24", "10.9.0.0/24", given1("default/a"))
		f.setReservation("10.9.0.1", reservation("default/a"))
		c.pass(0)
		f.setPool("10.9.0.0-24", "", nil)
		f.setReservation("10.9.0.1", nil)
		f.unserved = unserved
		c.pass(0)
		c.want("pools removed", "default-10-9-0-0-28 10.9.0.1=default/a")
		f.addPod(pod{namespace: "default", name: "a"}) // another one
		c.pass(0)
		c.want("pod replaced")
	}
}

// A pod of the same name is not the one that was given the address, unless whereabouts recorded it
// anew.
func TestPodReplaced(t *testing.T) {
	both(t, func(c *controller) {
		c.addPod(pod{namespace: "default", name: "db-0"})
		c.setPool("10.9.0.0-24", "10.9.0.0/24", given1("default/db-0"))
		c.setReservation("10.9.0.1", reservation("default/db-0"))
		c.pass(0)
		c.deletePod("default", "db-0")
		c.addPod(pod{namespace: "default", name: "db-0"})
		for range 2 {
			c.pass(0)
			c.want("replaced")
		}
		c.setPool("10.9.0.0-24", "10.9.0.0/24", map[string]wbAllocation{"1": given("default/db-0", "c2")})
		c.pass(0)
		c.want("recorded anew", "default-10-9-0-0-28 10.9.0.1=default/db-0")
	})
}

// What Braid has given away stays as it is; a node is asked to share a block that holds a recorded
// address.
func TestConflicts(t *testing.T) {
	both(t, func(c *controller) {
		n := owner("n", c.addNode("n"))
		c.addPod(pod{namespace: "default", name: "a"})
		c.block("default", "10.9.0.0/28", n)
		c.block("default", "10.9.0.16/28", nil, use("10.9.0.17", "default/other", n, nil))
		c.setPool("10.9.0.0-24", "10.9.0.0/24", map[string]wbAllocation{
			"1": given("default/a", "c1"), "17": given("default/a", "c17"), "18": given("default/a", "c18"),
		})
		for _, offset := range []string{"1", "17", "18"} {
			c.setReservation("10.9.0."+offset, reservation("default/a"))
		}
		want := []string{
			"default-10-9-0-0-28 n recalled by braid-controller",
			"default-10-9-0-16-28 10.9.0.17=default/other 10.9.0.18=default/a",
		}
		for range 2 {
			c.pass(0)
			c.want("conflicts", want...)
		}
		list, err := c.src.Blocks(c.t.Context(), listAll)
		if err != nil {
			c.t.Fatal(err)
		}
		list[0].Spec.Owner, list[0].Spec.Recall = nil, nil
		list[0].Spec.Allocations = []v1alpha1.Allocation{use("10.9.0.2", "default/own", n, nil)}
		if _, err := c.src.UpdateBlock(c.t.Context(), &list[0]); err != nil {
			c.t.Fatal(err)
		}
		c.pass(0)
		c.want("shared", "default-10-9-0-0-28 10.9.0.2=default/own 10.9.0.1=default/a", want[1])
	})
}

// Nodes assign the rest of a block that has adopted addresses, and never these; and those too when
// they are free.
func TestNodesGiveTheRest(t *testing.T) {
	f := newFake()
	c := newController(t, f)
	f.addPod(pod{namespace: "default", name: "w"})
	f.setPool("10.9.0.0-24", "10.9.0.0/24",
		map[string]wbAllocation{"4": given("default/w", "c4"), "9": given("default/w", "c9")})
	c.pass(0)
	m := newManaged(t, c, f, "n", "10.9.0.0/28")
	for range 12 {
		if a := m.giveText(); a == "10.9.0.4" || a == "10.9.0.9" || a == "full" {
			t.Fatal("got ", a)
		}
	}
	if a := m.giveText(); a != "full" {
		t.Fatal("got ", a)
	}
	f.setPool("10.9.0.0-24", "10.9.0.0/24", map[string]wbAllocation{"4": given("default/w", "c4")})
	c.pass(0)
	if a := m.giveText(); a != "10.9.0.9" {
		t.Fatal("got ", a)
	}
	f.deletePod("default", "w")
	c.pass(0)
	if a := m.giveText(); a != "10.9.0.4" {
		t.Fatal("got ", a)
	}
}

// A node that gave addresses before the records were seen shares its block; what it gave stays
// given.
func TestNodeSharesRecorded(t *testing.T) {
	f := newFake()
	c := newController(t, f)
	m := newManaged(t, c, f, "n", "10.9.0.0/28")
	taken := m.giveText()
	f.addPod(pod{namespace: "default", name: "w"})
	f.setPool("10.9.0.0-24", "10.9.0.0/24", map[string]wbAllocation{
		"9": given("default/w", "c9"), strings.TrimPrefix(taken, "10.9.0."): given("default/w", "c1"),
	})
	f.setReservation("10.9.0.9", reservation("default/w"))
	f.setReservation(taken, reservation("default/w"))
	c.pass(0)
	if err := m.Answer(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.pass(0)
	for pod := range m.has {
		c.want("shared", "default-10-9-0-0-28 "+taken+"="+pod+" 10.9.0.9=default/w")
	}
	for range 12 {
		if a := m.giveText(); a == "10.9.0.9" || a == taken || a == "full" {
			t.Fatal("got ", a)
		}
	}
}

func TestAudit(t *testing.T) {
	both(t, func(c *controller) {
		n := owner("n", c.addNode("n"))
		for name, ips := range map[string]string{
			"a": `"10.9.0.5","10.9.0.40"`, "b": `"10.9.0.6","10.9.0.33"`,
			"c": `"10.9.1.1","192.0.2.1","10.9.0.18"`,
		} {
			c.addPod(pod{namespace: "default", name: name, annotations: status(ips)})
		}
		c.block("default", "10.9.0.32/28", n)
		c.block("default", "10.9.0.16/28", nil, use("10.9.0.17", "default/other", n, nil),
			use("10.9.0.18", "default/c", n, nil))
		c.setPool("10.9.0.0-24", "10.9.0.0/24", map[string]wbAllocation{
			"5": given("default/a", "c5"), "6": given("default/gone", "c6"), "7": given("default/a", "c7"),
			"8":  given("default/a", "c8"),
			"17": given("default/a", "c17"), "33": given("default/b", "c33"),
			"900": given("default/a", "c9"), "x": given("default/a", "c10"),
		})
		c.setPool("10.9.0.0-16", "10.9.0.0/16", map[string]wbAllocation{
			"7": given("default/b", "c7"), "8": given("default/b", "c8"), "256": given("", "c11"),
		})
		c.setPool("10.9.0.0-99", "10.9.0.0/99", map[string]wbAllocation{})
		c.setReservation("10.9.0.7", reservation("default/a"))
		c.setReservation("nonsense", reservation("default/a"))
		before := c.versions()
		got := c.audit()
		want := map[string]reap.State{
			"10.9.0.5 default/a 24": reap.OK, "10.9.0.6 default/gone 24": reap.Orphan,
			"10.9.0.7 default/a 24": reap.Duplicate, "10.9.0.7 default/b 16": reap.Duplicate,
			"10.9.0.8 default/a 24": reap.OK, "10.9.0.8 default/b 16": reap.OK,
			"10.9.0.17 default/a 24": reap.Conflict, "10.9.0.33 default/b 24": reap.Conflict,
			" default/a 24": reap.Unreadable, "  99": reap.Unreadable, "10.9.1.0  16": reap.OK,
			" default/a OverlappingRangeIPReservation kube-system/nonsense": reap.Unreadable,
			"10.9.0.6 default/b ": reap.Unrecorded, "10.9.1.1 default/c ": reap.Unrecorded,
		}
		for key, state := range want {
			if got[key] != state {
				c.t.Errorf("%q is %q, want %q", key, got[key], state)
			}
			delete(got, key)
		}
		if len(got) > 0 {
			c.t.Errorf("beside: %v", got)
		}
		if after := c.versions(); after != before {
			c.t.Error("the audit has changed blocks")
		}
		c.pass(0)
		if state := c.audit()["10.9.0.5 default/a 24"]; state != reap.OK {
			c.t.Errorf("what was adopted is %q", state)
		}
	})
}

// audit returns the states by address, pod and record.
func (c *controller) audit() map[string]reap.State {
	c.t.Helper()
	entries, err := reap.Audit(c.t.Context(), c.src, c.src)
	if err != nil {
		c.t.Fatal(err)
	}
	states := map[string]reap.State{}
	for _, e := range entries {
		states[strings.Join([]string{
			e.Address, e.Pod, strings.TrimPrefix(e.Record, "IPPool kube-system/10.9.0.0-"),
		}, " ")] = e.State
	}
	return states
}

// Names that hold an address, and a network.
func TestReservationNames(t *testing.T) {
	for name, want := range map[string]string{
		"10.9.0.5": "default-10-9-0-0-28 10.9.0.5", "blue-10.9.0.5": "blue-10-9-0-0-28 10.9.0.5",
		"a-b-10.9.0.5": "a-b-10-9-0-0-28 10.9.0.5",
		"fd00--5":      "default-fd00-0000-0000-0000-0000-0000-0000-0000-124 fd00::5",
		"fd00--0":      "default-fd00-0000-0000-0000-0000-0000-0000-0000-124 fd00::",
		// there is a pool of that network
		"cafe-fd00--5": "cafe-fd00-0000-0000-0000-0000-0000-0000-0000-124 fd00::5",
	} {
		f := newFake()
		c := newController(t, f)
		f.addPod(pod{namespace: "default", name: "a"})
		f.setPool("cafe-fd00---64", "fd00::/64", map[string]wbAllocation{})
		f.setReservation(name, reservation("default/a"))
		c.pass(0)
		c.want(name, want+"=default/a")
	}
}

// An offset counts from the address as it is written, in 128 bits.
func TestPoolAddresses(t *testing.T) {
	for _, c := range []struct{ cidr, offset, want string }{
		{"192.168.2.225/28", "3", "192.168.2.228"},
		{"10.9.0.0/24", "0", "10.9.0.0"},
		{"10.9.0.0/24", "256", ""},
		{"255.255.255.0/24", "256", ""},
		{"10.9.0.0/24", "-1", ""},
		{"10.9.0.0/24", "18446744073709551615", ""},
		{"fd00::8000:0:0:1/60", "9223372036854775808", "fd00:0:0:1::1"},
		{"fd00::/64", "18446744073709551615", "fd00::ffff:ffff:ffff:ffff"},
		{"::ffff:10.9.0.0/120", "7", "10.9.0.7"},
	} {
		f := newFake()
		f.setPool("p", c.cidr, map[string]wbAllocation{c.offset: given("", "c")})
		entries, err := reap.Audit(t.Context(), f, f)
		if err != nil || len(entries) != 1 || entries[0].Address != c.want ||
			(entries[0].State == reap.Unreadable) != (c.want == "") {
			t.Errorf("%s + %s: %+v, %v", c.cidr, c.offset, entries, err)
		}
	}
}
