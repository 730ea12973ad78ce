package engine_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/failure"
)

func TestAddAttachesEveryNetworkInOrder(t *testing.T) {
	n := newNode(t)
	n.nads("a", "b")
	p := n.pod("p", "b,a")
	result, err := n.engine.Add(t.Context(), n.request(p))
	n.must(err)
	same(t, "calls", n.plugin.called(), []string{"ADD eth0", "ADD net1", "ADD net2"})
	n.left([]*pod{p}, p.whole("pods eth0", "b net1", "a net2")...)
	defaultNetwork, err := types100.NewResultFromResult(result)
	n.must(err)
	same(t, "interface of the result", defaultNetwork.Interfaces[0].Name, "eth0")

	data, err := os.ReadFile(n.path("manifests", "default_p.network-status.json"))
	n.must(err)
	var list []nadv1.NetworkStatus
	n.must(json.Unmarshal(data, &list))
	var published []string
	for _, s := range list {
		published = append(published, s.Name+" "+s.Interface)
	}
	same(t, "network-status", published, []string{"pods eth0", "default/b net1", "default/a net2"})
}

// A pod's NADs are looked up at the same time, each once.
func TestAddLooksNADsUpAtTheSameTime(t *testing.T) {
	n := newNode(t)
	n.timeout("5s") // one after the other, they would wait for each other
	n.nads("a", "b", "c")
	var asked atomic.Int32
	all := make(chan struct{})
	n.source.asked = func(ctx context.Context) {
		if asked.Add(1) == 3 {
			close(all)
		}
		select {
		case <-all:
		case <-ctx.Done():
		}
	}
	n.must(n.add(n.pod("p", "a,b,c,a")))
	same(t, "look-ups", asked.Load(), 3)
}

func TestAddIsAllOrNothing(t *testing.T) {
	delegate := func(name string) func(*node) { return func(n *node) { n.plugin.fails(name, 111) } }
	undone := []string{"ADD eth0", "ADD net1", "ADD net2", "DEL net2", "DEL net1", "DEL eth0"}
	for name, test := range map[string]struct {
		prepare  func(*node)
		networks string
		code     uint
		words    []string
		calls    []string
	}{
		"default network": {
			delegate("ADD eth0"), "a,b", 111,
			[]string{"network pods", "plugin pair", "interface eth0"},
			[]string{"ADD eth0", "DEL eth0"},
		},
		"first network of the pod": {
			delegate("ADD net1"), "a,b", 111,
			[]string{"NAD default/a", "plugin pair", "interface net1"},
			[]string{"ADD eth0", "ADD net1", "DEL net1", "DEL eth0"},
		},
		"last network of the pod": {
			delegate("ADD net2"), "a,b", 111,
			[]string{"NAD default/b", "plugin pair", "interface net2"},
			undone,
		},
		"default route": {
			nil, `[{"name":"a"},{"name":"b","default-route":["192.0.2.1"]}]`, 5,
			[]string{"NAD default/b", "default-route"},
			undone,
		},
		"status of a pod that was deleted " +
			"meanwhile": {(*node).deletedMeanwhile, "a,b", 3, []string{"network-status"}, undone},
		"no such network": {nil, "a,nothing", 7, []string{"default/nothing"}, nil},
		"no such plugin": {
			(*node).withoutPlugin, "a,b", 7,
			[]string{"NAD default/b", "plugin", "absent"},
			nil,
		},
		"name that the sandbox has": {
			nil, "a,b@taken", 4,
			[]string{"NAD default/b", "interface taken"},
			nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.nads("a", "b")
			p := n.pod("p", test.networks)
			p.Veth("taken", p.Namespace, "taken"+farEnd)
			if test.prepare != nil {
				test.prepare(n)
			}
			n.fails(n.add(p), test.code, append(test.words, "pod default/p")...)
			same(t, "calls", n.plugin.called(), test.calls)
			n.left([]*pod{p}, "id-p taken")
		})
	}
}

// deletedMeanwhile has the pod deleted while its last network is attached.
func (n *node) deletedMeanwhile() {
	n.plugin.on("ADD net2", func(context.Context, *call) error {
		return os.Remove(n.path("manifests", "Pod-p.json"))
	})
}

// withoutPlugin makes b a network of a plugin that the node does not have.
func (n *node) withoutPlugin() {
	config := map[string]any{"config": `{"cniVersion":"1.0.0","type":"absent"}`}
	n.object("k8s.cni.cncf.io/v1", nadv1.Kind, "b", nil, config)
}

// unfinished is a pod whose ADD failed and whose roll-back could not remove net1, which can be
// removed again afterwards.
func (n *node) unfinished() *pod {
	n.t.Helper()
	n.nads("a", "b")
	p := n.pod("p", "a,b")
	n.plugin.fails("ADD net2", 111)
	n.plugin.fails("DEL net1", 112)
	n.fails(n.add(p), 111, "pod default/p", "NAD default/b", "roll-back is not complete")
	same(n.t, "calls", n.plugin.called(),
		[]string{"ADD eth0", "ADD net1", "ADD net2", "DEL net2", "DEL net1", "DEL eth0"})
	n.left([]*pod{p}, "id-p net1", "id-p.json", "id-p.json.lock", "a-id-p-net1")
	n.plugin.on("ADD net2", nil)
	return p
}

func TestWhatRollBackCannotRemoveIsLeftToDel(t *testing.T) {
	n := newNode(t)
	p := n.unfinished()
	n.plugin.on("DEL net1", nil)
	n.must(n.del(p))
	same(t, "calls", n.plugin.called(), []string{"DEL net1"})
	n.left([]*pod{p})
}

func TestSecondAddIsRefusedAndChangesNothing(t *testing.T) {
	n := newNode(t)
	n.nads("a")
	p := n.pod("p", "a")
	n.must(n.add(p))
	before := p.Snapshot()
	n.plugin.called()
	err := n.add(p)
	n.fails(err, 4, "pod default/p", "attached already")
	same(t, "reason", failure.ReasonOf(err), failure.InterfaceConflict)
	same(t, "calls", n.plugin.called(), nil)
	same(t, "sandbox", p.Snapshot(), before)
	n.left([]*pod{p}, p.whole("pods eth0", "a net1")...)
	n.must(n.check(p))
}

func TestAddRemovesFirstWhatAnUnfinishedOneLeft(t *testing.T) {
	n := newNode(t)
	p := n.unfinished()
	n.fails(n.add(p), 112, "pod default/p", "NAD default/a", "unfinished")
	same(t, "calls", n.plugin.called(), []string{"DEL net1"})
	n.left([]*pod{p}, "id-p net1", "id-p.json", "id-p.json.lock", "a-id-p-net1")

	n.plugin.on("DEL net1", nil)
	n.must(n.add(p))
	same(t, "calls", n.plugin.called(), []string{"DEL net1", "ADD eth0", "ADD net1", "ADD net2"})
	n.left([]*pod{p}, p.whole("pods eth0", "a net1", "b net2")...)
}

// A runtime may come back with the same container in another namespace: what was left is removed
// where it is.
func TestAddRemovesWhatAnUnfinishedOneLeftInAnotherNamespace(t *testing.T) {
	n := newNode(t)
	p := n.unfinished()
	n.plugin.on("DEL net1", nil)
	again := n.sandbox(p.id)
	again.name = p.name
	n.must(n.add(again))
	same(t, "links in the first namespace", p.interfaces(), nil)
	n.left([]*pod{again}, again.whole("pods eth0", "a net1", "b net2")...)
}

// The roll-back has time of its own.
func TestDeadlineEndsAddThatHangs(t *testing.T) {
	n := newNode(t)
	n.timeout("2s")
	n.nads("a", "b")
	p := n.pod("p", "a,b")
	start := time.Now()
	n.plugin.on("ADD net1", func(ctx context.Context, _ *call) error {
		deadline, ok := ctx.Deadline()
		if !ok || deadline.Before(start) || deadline.After(time.Now().Add(2*time.Second)) {
			return fmt.Errorf("begun at %v with deadline %v", start, deadline)
		}
		<-ctx.Done()
		return context.Cause(ctx)
	})
	for _, name := range []string{"DEL net1", "DEL eth0"} {
		n.plugin.on(name, func(ctx context.Context, _ *call) error { return ctx.Err() })
	}
	err := n.add(p)
	n.fails(err, 11, "pod default/p", "NAD default/a", "plugin pair", "braid.timeouts.operation", "2s")
	same(t, "reason", failure.ReasonOf(err), failure.TimedOut)
	same(t, "calls", n.plugin.called(), []string{"ADD eth0", "ADD net1", "DEL net1", "DEL eth0"})
	n.left([]*pod{p})
}
