package engine_test

import "testing"

// TestDrain: of two sandboxes the one whose namespace is gone is removed, by its record alone.
func TestDrain(t *testing.T) {
	n := newNode(t)
	n.nads("a")
	p, q := n.pod("p", "a"), n.pod("q", "a")
	n.must(n.add(p))
	n.must(n.add(q))
	p.Unmount()
	n.plugin.called()
	left, err := n.engine.Drain(t.Context())
	n.must(err)
	same(t, "left", left, 1)
	same(t, "calls", n.plugin.called(), []string{"DEL net1", "DEL eth0"})
	n.must(n.del(q))
	left, err = n.engine.Drain(t.Context())
	n.must(err)
	same(t, "left after all DELs", left, 0)
	n.left([]*pod{q})
}
