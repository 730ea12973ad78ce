package engine_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/braid-cni/braid/pkg/engine"
	"github.com/braid-cni/braid/pkg/failure"
)

// observer notes what it is told, each in a line.
type observer struct {
	mu   sync.Mutex
	told []string
}

func (o *observer) tell(done engine.Operation, words ...string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	words = append([]string{string(done.Verb)}, words...)
	if done.Err != nil {
		words = append(words, "failed")
	}
	if done.Duration <= 0 {
		words = append(words, "in no time")
	}
	o.told = append(o.told, strings.Join(words, " "))
}

func (o *observer) Operation(_ context.Context, done engine.Operation) { o.tell(done) }

func (o *observer) Attachment(_ context.Context, done engine.Attachment) {
	o.tell(done.Operation, append([]string{done.Planned.Name}, done.Plugins...)...)
}

func (o *observer) Violations(_ context.Context, all []engine.Violation) {
	o.mu.Lock()
	defer o.mu.Unlock()
	for _, v := range all {
		o.told = append(o.told, "policy "+v.Key+" "+string(v.Effect))
	}
}

// TestObserver: an observer is told of each operation once, and of its attachments before, whatever
// becomes of them.
func TestObserver(t *testing.T) {
	n := newNode(t)
	o := &observer{}
	n.engine.Observer = o
	n.nads("a", "b")
	p := n.pod("p", "a,b")
	for _, step := range []struct {
		what    string
		operate func() error
		fails   bool
		want    []string
	}{
		{"ADD that fails", func() error {
			n.plugin.on("ADD net2", func(context.Context, *call) error { return errors.New("no") })
			defer n.plugin.on("ADD net2", nil)
			return n.add(p)
		}, true, []string{
			"ADD pods pair", "ADD default/a pair", "ADD default/b pair failed", "DEL default/b pair",
			"DEL default/a pair", "DEL pods pair", "ADD failed",
		}},
		{"ADD", func() error {
			return n.add(p)
		}, false, []string{"ADD pods pair", "ADD default/a pair", "ADD default/b pair", "ADD"}},
		{"CHECK", func() error {
			return n.check(p)
		}, false, []string{"CHECK pods pair", "CHECK default/a pair", "CHECK default/b pair", "CHECK"}},
		{"GC without a list", func() error {
			return n.engine.GC(t.Context(), n.request(nil))
		}, true, []string{"GC failed"}},
		{"DEL", func() error {
			return n.del(p)
		}, false, []string{"DEL default/b pair", "DEL default/a pair", "DEL pods pair", "DEL"}},
		{"STATUS", func() error {
			return n.engine.Status(t.Context(), n.request(nil))
		}, false, []string{"STATUS"}},
		{"GC without a list and a record", func() error {
			return n.engine.GC(t.Context(), n.request(nil))
		}, false, []string{"GC"}},
	} {
		o.told = nil
		if err := step.operate(); (err != nil) != step.fails {
			t.Errorf("%s: %v", step.what, err)
		}
		same(t, step.what, o.told, step.want)
	}
}

// TestObserverOfThePolicy: an observer is told of what the policy does not allow, and nothing is
// recorded of an ADD that is refused.
func TestObserverOfThePolicy(t *testing.T) {
	n := newNode(t)
	o := &observer{}
	n.engine.Observer = engine.Observers{o}
	n.nads("a")
	n.conf["braid"].(map[string]any)["policy"] = []any{
		map[string]any{"namespaces": []string{"default"}},
	}
	if err := n.add(n.pod("p", "a")); failure.ReasonOf(err) != failure.PolicyRefused {
		t.Errorf("ADD: %v", err)
	}
	if got, want := strings.Join(o.told, ", "), "policy exec enforce, ADD failed"; got != want {
		t.Errorf("told %q, want %q", got, want)
	}
	if networks, err := n.engine.Records.Networks(); err != nil || len(networks) > 0 {
		t.Errorf("networks are remembered: %v, %v", networks, err)
	}
}

// said is what was said before.
type said map[string]bool

func (s said) First(_ context.Context, what string) bool {
	first := !s[what]
	s[what] = true
	return first
}

// TestAuditIsSaidOnce: what the policy has against a NAD is an event of one of its pods, and in the
// log for each.
func TestAuditIsSaidOnce(t *testing.T) {
	n := newNode(t)
	n.engine.Said = said{}
	n.conf["globalNamespaces"] = "elsewhere"
	n.nads("a", "b")
	for i, networks := range []string{"a", "a", "b", "a,b"} {
		if err := n.add(n.pod(fmt.Sprint("p", i), networks)); err != nil {
			t.Fatal(err)
		}
	}
	count := 0
	for _, w := range n.source.warnings() {
		if strings.HasPrefix(w, string(failure.PolicyAudited)) {
			count++
		}
	}
	if count != 2 {
		t.Errorf("%d events, want 2", count)
	}
}
