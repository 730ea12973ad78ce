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
	r := newRig(t)
	r.nads("a")
	p := r.pod("p", "a")
	r.must(r.add(p))
	r.plugin.called()
	r.engine.Namespaces = unknown{}
	r.fails(r.del(p), 4, "too many open files")
	r.fails(r.gc(), 4, "pod default/p", "too many open files")
	r.engine.Namespaces = namespaces{}
	r.left([]*pod{p}, p.whole("pods eth0", "a net1")...)
	r.must(r.del(p))
	r.left([]*pod{p})
}
