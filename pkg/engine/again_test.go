package engine_test

import (
	"errors"
	"testing"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/pkg/failure"
)

// An ADD whose result was lost is finished already: its result is repeated, and nothing is changed.
func TestAnAddWhoseResultWasLostIsRepeated(t *testing.T) {
	r := newRig(t)
	r.nads("a")
	p := r.pod("p", "a")
	want, err := r.engine.Add(t.Context(), r.request(p))
	r.must(err)
	before := p.Snapshot()
	r.plugin.called()
	req := r.request(p)
	req.Again = true
	got, err := r.engine.Add(t.Context(), req)
	r.must(err)
	same(t, "calls", r.plugin.called(), nil)
	same(t, "sandbox", p.Snapshot(), before)
	wanted, err := types100.NewResultFromResult(want)
	r.must(err)
	repeated, err := types100.NewResultFromResult(got)
	r.must(err)
	same(t, "interfaces", len(repeated.Interfaces), len(wanted.Interfaces))
	same(t, "version", repeated.CNIVersion, wanted.CNIVersion)
	r.left([]*pod{p}, p.whole("pods eth0", "a net1")...)
	other := r.sandbox("other")
	req.NetNS = other.Path
	_, err = r.engine.Add(t.Context(), req)
	r.fails(err, 4, "another network namespace")
	r.must(r.check(p))
	r.must(r.del(p))
	r.left([]*pod{p, other})
}

// An ADD that was half done is begun anew, whether its result may have been lost or not.
func TestAnUnfinishedAddIsBegunAnew(t *testing.T) {
	r := newRig(t)
	p := r.unfinished()
	r.plugin.on("DEL net1", nil)
	req := r.request(p)
	req.Again = true
	_, err := r.engine.Add(t.Context(), req)
	r.must(err)
	same(t, "calls", r.plugin.called(), []string{"DEL net1", "ADD eth0", "ADD net1", "ADD net2"})
	r.left([]*pod{p}, p.whole("pods eth0", "a net1", "b net2")...)
}

// An ADD for which nobody waits any more changes nothing: another may have done it by then.
func TestAnAddThatNobodyWaitsForIsNotDone(t *testing.T) {
	r := newRig(t)
	p := r.pod("p", "")
	gone := errors.New("the client has left")
	req := r.request(p)
	req.Still = func() error { return gone }
	if _, err := r.engine.Add(t.Context(), req); !errors.Is(err, gone) {
		t.Errorf("it ended with %v", err)
	}
	r.left([]*pod{p})
	r.must(r.add(p))
	before := p.Snapshot()
	_, err := r.engine.Add(t.Context(), req)
	if !errors.Is(err, gone) || failure.ReasonOf(err) == failure.InterfaceConflict {
		t.Errorf("after another ADD it ended with %v", err)
	}
	same(t, "sandbox", p.Snapshot(), before)
	r.must(r.check(p))
}
