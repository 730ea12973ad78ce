package engine_test

import (
	"errors"
	"os"
	"testing"

	"github.com/braid-cni/braid/pkg/failure"
)

func TestCheckAsksAllAndJoins(t *testing.T) {
	r := newRig(t)
	r.nads("a", "b")
	p := r.pod("p", "a,b")
	r.must(r.add(p))
	r.must(r.check(p))
	r.plugin.called()
	r.must(p.Netlink().LinkDel(p.Link("net1")))
	r.plugin.fails("CHECK net2", 112)
	before := p.Snapshot()
	err := r.check(p)
	r.fails(err, 112, "pod default/p", "NAD default/a: interface net1: plugin pair: Link not found",
		"NAD default/b: interface net2: plugin pair")
	same(t, "calls", r.plugin.called(), []string{"CHECK eth0", "CHECK net1", "CHECK net2"})
	same(t, "sandbox", p.Snapshot(), before)
}

func TestCheckOfSandboxThatIsNotAttached(t *testing.T) {
	r := newRig(t)
	for _, p := range []*pod{r.unfinished(), r.pod("never", "")} {
		err := r.check(p)
		r.fails(err, 3, "pod default/"+p.name, "not attached")
		same(t, "reason", failure.ReasonOf(err), failure.UnknownSandbox)
	}
	same(t, "calls", r.plugin.called(), nil)
}

func TestStatusIs50OrTheDelegatesCode(t *testing.T) {
	for name, test := range map[string]struct {
		prepare func(*rig)
		code    uint
		words   []string
		calls   []string
	}{
		"healthy": {func(*rig) {}, 0, nil, []string{"STATUS pods"}},
		"not ready": {func(r *rig) {
			r.conf["readinessindicatorfile"] = r.path("ready")
		}, 50, []string{"not ready"}, nil},
		"no default plugin": {func(r *rig) {
			r.conf["delegates"] = []any{
				map[string]any{"cniVersion": "1.1.0", "name": "pods", "type": "absent"},
			}
		}, 50, []string{"absent"}, nil},
		"no default network": {func(r *rig) {
			delete(r.conf, "delegates")
			r.conf["clusterNetwork"], r.conf["confDir"] = "nothing", r.path("net.d")
		}, 50, []string{"nothing"}, nil},
		"delegate's code": {func(r *rig) {
			r.plugin.fails("STATUS pods", 51)
		}, 51, []string{"plugin pair", "told to fail"}, []string{"STATUS pods"}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			test.prepare(r)
			err := r.engine.Status(t.Context(), r.request(nil))
			if test.code != 0 {
				r.fails(err, test.code, test.words...)
			} else if err != nil {
				t.Error(err)
			}
			same(t, "calls", r.plugin.called(), test.calls)
			if _, err := os.Stat(r.path("state")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("state directory: %v", err)
			}
		})
	}
}
