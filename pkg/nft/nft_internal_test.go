package nft

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/netns"
	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/nl"
)

// The kernel lists rules twice while others prepare a change.
func TestRulesListedTwice(t *testing.T) {
	rule := func(handle byte) []byte {
		return nl.AppendAttr(nl.AppendAttr(make([]byte, headerLength), unix.NFTA_RULE_CHAIN,
			[]byte("c\x00")), unix.NFTA_RULE_HANDLE, []byte{handle})
	}
	rules := parse([][]byte{rule(1), rule(2), rule(1), rule(2), rule(3), {}})
	if len(rules) != 4 || rules[2].handle[0] != 3 || rules[0].chain != "c" || rules[3].handle != nil {
		t.Errorf("rules %v", rules)
	}
}

func namespace(t *testing.T) *netns.NS {
	t.Helper()
	ns, err := netns.Open(nettest.New(t).Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ns.Close)
	return ns
}

func open(t *testing.T, ns *netns.NS) *Conn {
	t.Helper()
	c, err := Open(ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// What was derived from rules that have changed meanwhile is derived again.
func TestChangesMeanwhile(t *testing.T) {
	ns := namespace(t)
	c := open(t, ns)
	other := open(t, ns)
	table := &Table{Family: INet, Name: "braid_test", Chains: []Chain{{Name: "c"}}}
	a, b := attachment.ID{Network: "net", ContainerID: "a", IfName: "net1"}, attachment.ID{
		Network: "net", ContainerID: "b", IfName: "net1",
	}
	if err := c.Set(t.Context(), table, a, NewRule("c", Drop())); err != nil {
		t.Fatal(err)
	}
	calls := 0
	err := c.change(t.Context(), table, func(have []found) (*batch, error) {
		if calls++; calls < 3 {
			// All rules but a's own one are another one's, and handles begin at 1 again.
			err := errors.Join(other.Delete(t.Context(), table, a),
				other.Set(t.Context(), table, b, NewRule("c", Drop())), other.Delete(t.Context(), table, b),
				other.Set(t.Context(), table, b, NewRule("c", Drop())))
			if err != nil {
				t.Error(err)
			}
		}
		changes := &batch{family: table.Family}
		for _, r := range have {
			if r.key == keyOf(a) {
				changes.deleteRule(table, r)
			}
		}
		changes.addRule(table, NewRule("c", Return()), commentOf(a))
		return changes, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if calls != 3 {
		t.Errorf("derived %d times, want 3", calls)
	}
	err = errors.Join(c.Check(t.Context(), table, b, NewRule("c", Drop())),
		c.Check(t.Context(), table, a, NewRule("c", Return())))
	if err != nil {
		t.Error(err)
	}
}

// A Set changes nothing of a table that is as it is to be but the attachment's rules: a rule that
// is deleted, and a chain that is added again, would have it wait for a grace period of the kernel.
func TestTableThatIsMade(t *testing.T) {
	c := open(t, namespace(t))
	table := &Table{Family: INet, Name: "braid_test", Chains: []Chain{
		{Name: "ports"},
		{Name: "prerouting", Hook: PreroutingNAT(), Rules: []Expr{Jump("ports")}},
		{Name: "output", Hook: OutputNAT()},
	}}
	made := func() bool {
		_, have, err := c.list(t.Context(), table)
		if err != nil {
			t.Fatal(err)
		}
		b := new(batch)
		b.ensure(table, have)
		return len(b.messages) == 0
	}
	if made() {
		t.Error("nothing is there")
	}
	set := func(chain string) {
		err := c.Set(t.Context(), table,
			attachment.ID{Network: "net", ContainerID: chain, IfName: "net1"}, NewRule(chain, Drop()))
		if err != nil {
			t.Fatal(err)
		}
	}
	if set("ports"); made() {
		t.Error("whether there is a chain output is not known")
	}
	if set("output"); !made() {
		t.Error("all is there")
	}
}

// Rules that nodes have are found by their comments: the form of these may not change.
func TestCommentStays(t *testing.T) {
	id := attachment.ID{Network: "net", ContainerID: "c", IfName: "net1"}
	const key = "a08a0fcbdeafd3c1-63889839ab2375c26da670d3e65b24dd"
	if got := commentOf(id); got != key+" net net1 c" {
		t.Errorf("comment %q", got)
	}
	if got, names := parseComment(userData(commentOf(id))); got != key || names != "net net1 c" {
		t.Errorf("key %q, names %q", got, names)
	}
}
