package engine_test

import "testing"

// TestDrain: of two sandboxes the one whose namespace is gone is removed, by its record alone.
func TestDrain(t *testing.T) {
	r := newRig(t)
	r.nads("a")
	p, q := r.pod("p", "a"), r.pod("q", "a")
	r.must(r.add(p))
	r.must(r.add(q))
	p.Unmount()
	r.plugin.called()
	left, err := r.engine.Drain(t.Context())
	r.must(err)
	same(t, "left", left, 1)
	same(t, "calls", r.plugin.called(), []string{"DEL net1", "DEL eth0"})
	r.must(r.del(q))
	left, err = r.engine.Drain(t.Context())
	r.must(err)
	same(t, "left after all DELs", left, 0)
	r.left([]*pod{q})
}
