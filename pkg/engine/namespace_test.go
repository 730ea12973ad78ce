package engine_test

import (
	"errors"
	"testing"
)

// unknown cannot find out what a path leads to.
type unknown struct{ namespaces }

func (unknown) Identity(string) (string, error) { return "", errors.New("too many open files") }

// A namespace that cannot be looked at is not gone: the DEL fails and removes nothing.
func TestR30UnknownIsNotGone(t *testing.T) {
	n := newNode(t)
	n.nads("a")
	p := n.pod("p", "a")
	n.must(n.add(p))
	n.plugin.called()
	n.engine.Namespaces = unknown{}
	n.fails(n.del(p), 4, "too many open files")
	n.fails(n.gc(), 4, "pod default/p", "too many open files")
	n.engine.Namespaces = namespaces{}
	n.left([]*pod{p}, p.whole("pods eth0", "a net1")...)
	n.must(n.del(p))
	n.left([]*pod{p})
}
