package engine_test

import (
	"errors"
	"os"
	"testing"

	"github.com/braid-cni/braid/pkg/failure"
)

func TestCheckAsksAllAndJoins(t *testing.T) {
	n := newNode(t)
	n.nads("a", "b")
	p := n.pod("p", "a,b")
	n.must(n.add(p))
	n.must(n.check(p))
	n.plugin.called()
	n.must(p.Netlink().LinkDel(p.Link("net1")))
	n.plugin.fails("CHECK net2", 112)
	before := p.Snapshot()
	err := n.check(p)
	n.fails(err, 112, "pod default/p", "NAD default/a: interface net1: plugin pair: Link not found",
		"NAD default/b: interface net2: plugin pair")
	same(t, "calls", n.plugin.called(), []string{"CHECK eth0", "CHECK net1", "CHECK net2"})
	same(t, "sandbox", p.Snapshot(), before)
}

func TestCheckOfSandboxThatIsNotAttached(t *testing.T) {
	n := newNode(t)
	for _, p := range []*pod{n.unfinished(), n.pod("never", "")} {
		err := n.check(p)
		n.fails(err, 3, "pod default/"+p.name, "not attached")
		same(t, "reason", failure.ReasonOf(err), failure.UnknownSandbox)
	}
	same(t, "calls", n.plugin.called(), nil)
}

func TestStatusIs50OrTheDelegatesCode(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(*node)
		code    uint
		words   []string
		calls   []string
	}{
		"healthy": {func(*node) {}, 0, nil, []string{"STATUS pods"}},
		"not ready": {func(n *node) {
			n.conf["readinessindicatorfile"] = n.path("ready")
		}, 50, []string{"not ready"}, nil},
		"no default plugin": {func(n *node) {
			n.conf["delegates"] = []any{
				map[string]any{"cniVersion": "1.1.0", "name": "pods", "type": "absent"},
			}
		}, 50, []string{"absent"}, nil},
		"no default network": {func(n *node) {
			delete(n.conf, "delegates")
			n.conf["clusterNetwork"], n.conf["confDir"] = "nothing", n.path("net.d")
		}, 50, []string{"nothing"}, nil},
		"delegate's code": {func(n *node) {
			n.plugin.fails("STATUS pods", 51)
		}, 51, []string{"plugin pair", "told to fail"}, []string{"STATUS pods"}},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			test.prepare(n)
			err := n.engine.Status(t.Context(), n.request(nil))
			if test.code != 0 {
				n.fails(err, test.code, test.words...)
			} else if err != nil {
				t.Error(err)
			}
			same(t, "calls", n.plugin.called(), test.calls)
			if _, err := os.Stat(n.path("state")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("state directory: %v", err)
			}
		})
	}
}
