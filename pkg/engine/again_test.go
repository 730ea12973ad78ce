package engine_test

import (
	"errors"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/pkg/failure"
)

// An ADD whose result was lost is finished already: its result is repeated, and nothing is changed.
func TestAnAddWhoseResultWasLostIsRepeated(t *testing.T) {
	n := newNode(t)
	n.nads("a")
	p := n.pod("p", "a")
	want, err := n.engine.Add(t.Context(), n.request(p))
	n.must(err)
	before := p.Snapshot()
	n.plugin.called()
	req := n.request(p)
	req.Again = true
	got, err := n.engine.Add(t.Context(), req)
	n.must(err)
	same(t, "calls", n.plugin.called(), nil)
	same(t, "sandbox", p.Snapshot(), before)
	wanted, err := types100.NewResultFromResult(want)
	n.must(err)
	repeated, err := types100.NewResultFromResult(got)
	n.must(err)
	same(t, "interfaces", len(repeated.Interfaces), len(wanted.Interfaces))
	same(t, "version", repeated.CNIVersion, wanted.CNIVersion)
	n.left([]*pod{p}, p.whole("pods eth0", "a net1")...)
	other := n.sandbox("other")
	req.NetNS = other.Path
	_, err = n.engine.Add(t.Context(), req)
	n.fails(err, 4, "another network namespace")
	n.must(n.check(p))
	n.must(n.del(p))
	n.left([]*pod{p, other})
}

// An ADD that was half done is begun anew, whether its result may have been lost or not.
func TestAnUnfinishedAddIsBegunAnew(t *testing.T) {
	n := newNode(t)
	p := n.unfinished()
	n.plugin.on("DEL net1", nil)
	req := n.request(p)
	req.Again = true
	_, err := n.engine.Add(t.Context(), req)
	n.must(err)
	same(t, "calls", n.plugin.called(), []string{"DEL net1", "ADD eth0", "ADD net1", "ADD net2"})
	n.left([]*pod{p}, p.whole("pods eth0", "a net1", "b net2")...)
}

// An ADD for which nobody waits any more changes nothing: another may have done it by then.
func TestAnAddThatNobodyWaitsForIsNotDone(t *testing.T) {
	n := newNode(t)
	p := n.pod("p", "")
	gone := errors.New("the client has left")
	req := n.request(p)
	req.Still = func() error { return gone }
	if _, err := n.engine.Add(t.Context(), req); !errors.Is(err, gone) {
		t.Errorf("it ended with %v", err)
	}
	n.left([]*pod{p})
	n.must(n.add(p))
	before := p.Snapshot()
	_, err := n.engine.Add(t.Context(), req)
	if !errors.Is(err, gone) || failure.ReasonOf(err) == failure.InterfaceConflict {
		t.Errorf("after another ADD it ended with %v", err)
	}
	same(t, "sandbox", p.Snapshot(), before)
	n.must(n.check(p))
}
