package engine_test

import (
	"context"
	"os"
	"slices"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

func TestDelGoesNewestFirstPastErrorsAndRetriesWhatIsLeft(t *testing.T) {
	n := newNode(t)
	n.nads("a", "b", "c")
	p := n.pod("p", "a,b,c")
	n.must(n.add(p))
	n.plugin.called()
	n.plugin.fails("DEL net3", 113)
	n.plugin.fails("DEL net1", 111)
	n.fails(n.del(p), 113, "pod default/p", "NAD default/c: interface net3: plugin pair",
		"NAD default/a: interface net1: plugin pair")
	same(t, "calls", n.plugin.called(), []string{"DEL net3", "DEL net2", "DEL net1", "DEL eth0"})
	left := []string{
		"id-p net1", "id-p net3", "id-p.json", "id-p.json.lock", "a-id-p-net1", "c-id-p-net3",
	}
	n.left([]*pod{p}, left...)

	n.fails(n.del(p), 113, "NAD default/c", "NAD default/a")
	same(t, "calls of a retry", n.plugin.called(), []string{"DEL net3", "DEL net1"})
	n.left([]*pod{p}, left...)

	n.plugin.on("DEL net3", nil)
	n.fails(n.del(p), 111, "NAD default/a")
	same(t, "calls of a retry that does more", n.plugin.called(), []string{"DEL net3", "DEL net1"})
	n.left([]*pod{p}, "id-p net1", "id-p.json", "id-p.json.lock", "a-id-p-net1")

	n.plugin.on("DEL net1", nil)
	n.must(n.del(p))
	same(t, "calls of the last", n.plugin.called(), []string{"DEL net1"})
	n.left([]*pod{p})
}

// Its plugins are asked all the same: what they hold may have outlived the record.
func TestDelOfUnknownSandboxSucceeds(t *testing.T) {
	n := newNode(t)
	n.nads("a")
	gone := n.sandbox("id-gone")
	gone.name = "gone"
	for _, test := range []struct {
		pod   *pod
		calls []string
	}{
		{n.pod("known", "a"), []string{"DEL net1", "DEL eth0"}},
		{gone, []string{"DEL eth0"}},
		{n.sandbox("id-nameless"), []string{"DEL eth0"}},
	} {
		if err := n.del(test.pod); err != nil {
			t.Errorf("%s: %v", test.pod.id, err)
		}
		same(t, "calls for "+test.pod.id, n.plugin.called(), test.calls)
		n.left([]*pod{test.pod})
	}
}

// A DEL that could not remove anything is unfinished, too: another sandbox's DEL goes on with it
// once the namespace is gone, and a new ADD clears it away.
func TestDelThatRemovedNothingIsUnfinished(t *testing.T) {
	for _, next := range []string{"DEL of another", "ADD"} {
		t.Run(next, func(t *testing.T) {
			n := newNode(t)
			p, other := n.pod("p", ""), n.pod("other", "")
			n.must(n.add(p))
			n.plugin.fails("DEL eth0", 111)
			n.fails(n.del(p), 111)
			n.left([]*pod{p}, "id-p eth0", "id-p.json", "id-p.json.lock", "pods-id-p-eth0")
			n.plugin.on("DEL eth0", nil)
			if next == "ADD" {
				n.must(n.add(p))
				n.left([]*pod{p}, p.whole("pods eth0")...)
				return
			}
			p.Unmount()
			n.must(n.del(other))
			n.left(nil)
		})
	}
}

// What a DEL failed at it does not try once more as somebody else's left-over: its error would be
// of what is gone.
func TestDelTriesOnce(t *testing.T) {
	n := newNode(t)
	n.nads("a")
	p := n.pod("p", "a")
	n.must(n.add(p))
	p.Unmount()
	n.plugin.called()
	n.plugin.fails("DEL net1", 111)
	n.fails(n.del(p), 111)
	// Twice: with no namespace, and with an empty one.
	same(t, "calls", n.plugin.called(), []string{"DEL net1", "DEL net1", "DEL eth0"})
	n.left(nil, "id-p.json", "id-p.json.lock", "a-id-p-net1")
}

// Where nothing but a damaged entry of the cache is left, it may be of either of two networks of
// one CNI name. Both are asked, and the one that failed is asked again.
func TestDelOfOneInterfaceOfTwoNetworks(t *testing.T) {
	n := newNode(t)
	for _, name := range []string{"a", "b"} {
		config := `{"cniVersion":"1.1.0","name":"shared","type":"pair","tag":"` + name + `"}`
		n.object("k8s.cni.cncf.io/v1", nadv1.Kind, name, nil, map[string]any{"config": config})
	}
	p, q := n.pod("p", "a"), n.pod("q", "b")
	n.must(n.add(p))
	n.must(n.add(q)) // the node remembers both networks
	n.must(os.Truncate(n.path("state/cni/results/shared-id-p-net1"), 10))
	n.must(os.Remove(n.path("state/sandboxes/id-p.json")))
	n.must(os.Remove(n.path("manifests/Pod-p.json")))
	asked := 0
	n.plugin.on("DEL net1", func(_ context.Context, c *call) error {
		if asked++; asked == 1 {
			return types.NewError(111, "the one that made it", "")
		}
		c.ifname = "none" // the other has nothing of that name
		return nil
	})
	n.fails(n.del(p), 111)
	n.plugin.on("DEL net1", nil)
	n.must(n.del(p))
	same(t, "links", p.interfaces(), nil)
}

// The links of a sandbox go in one step, before the plugins' own DEL, which is called all the same.
func TestDelRemovesLinksInOneStep(t *testing.T) {
	n := newNode(t)
	n.plugin.group = linkGroup
	n.nads("a", "b")
	p := n.pod("p", "a,b")
	n.must(n.add(p))
	n.plugin.called()
	n.plugin.fails("DEL net1", 111)
	n.fails(n.del(p), 111, "NAD default/a")
	same(t, "calls", n.plugin.called(), []string{"DEL net2", "DEL net1", "DEL eth0"})
	n.left([]*pod{p}, "id-p.json", "id-p.json.lock", "a-id-p-net1")
	n.plugin.on("DEL net1", nil)
	n.must(n.del(p))
	n.left([]*pod{p})
}

// A plugin that is exec'd may look at the link that one in-process made: then each link goes with
// its own chain.
func TestDelOfMixedChainsRemovesLinksOneByOne(t *testing.T) {
	n := newNode(t)
	n.plugin.group = linkGroup
	n.nads("b")
	script := "#!/bin/sh\n[ $CNI_COMMAND = ADD ] && echo " +
		"'{\"cniVersion\":\"1.1.0\",\"interfaces\":[]}'; exit 0\n"
	n.must(os.Mkdir(n.path("bin"), 0o700))
	n.must(os.WriteFile(n.path("bin", "meta"), []byte(script), 0o700))
	n.object("k8s.cni.cncf.io/v1", nadv1.Kind, "a", nil, map[string]any{
		"config": `{"cniVersion":"1.1.0","name":"a","plugins":[{"type":"pair"},{"type":"meta"}]}`,
	})
	p := n.pod("p", "a,b")
	n.must(n.add(p))
	n.plugin.fails("DEL net1", 111)
	n.fails(n.del(p), 111, "NAD default/a")
	n.left([]*pod{p}, "id-p net1", "id-p.json", "id-p.json.lock", "a-id-p-net1")
	n.plugin.on("DEL net1", nil)
	n.must(n.del(p))
	n.left([]*pod{p})
}

// The kubelet removes each sandbox once more, a while after its pod. That asks nobody: the API may
// be away, and the pod's name taken.
func TestDelOnceMoreAsksNobody(t *testing.T) {
	for _, added := range []bool{true, false} {
		n := newNode(t)
		n.nads("a")
		p := n.pod("p", "a")
		if added {
			n.must(n.add(p))
			n.must(n.del(p))
		} else { // the runtime's DEL after an ADD that was rolled back
			n.plugin.fails("ADD net1", 111)
			n.fails(n.add(p), 111)
		}
		n.plugin.called()
		n.must(os.RemoveAll(n.path("manifests")))
		n.must(os.WriteFile(n.path("manifests"), nil, 0o600))
		n.must(n.del(p))
		same(t, "calls", n.plugin.called(), nil)
	}
}

// While the API is away, no more can be known of a sandbox without a record. If its namespace is
// empty, nothing was attached: the ADD was refused for the same reason. Else the DEL has to be
// tried again.
func TestDelWithoutRecordAndAPI(t *testing.T) {
	n := newNode(t)
	n.nads("a")
	p, lost, unmounted := n.pod("p", "a"), n.pod("lost", "a"), n.pod("unmounted", "a")
	n.must(n.add(lost))
	n.must(os.RemoveAll(n.path("state")))
	unmounted.Unmount()
	n.plugin.called()
	n.source.away = true
	n.fails(n.add(p), 11)
	n.must(n.del(p))
	for _, p := range []*pod{lost, unmounted} {
		n.fails(n.del(p), 11)
	}
	same(t, "calls", n.plugin.called(), nil)
	n.source.away = false
	n.must(n.del(lost))
	n.must(n.del(unmounted))
	n.left([]*pod{lost})
}

// TestR28DelWithoutRecordPastWhatIsGone: a pod's record is lost, and so is one of its NADs. The
// others are asked all the same, by the interface names that they had; of the one that is gone the
// node may remember what it was.
func TestR28DelWithoutRecordPastWhatIsGone(t *testing.T) {
	for _, remembered := range []bool{true, false} {
		n := newNode(t)
		n.nads("a", "b", "c")
		p := n.pod("p", "a,b,c")
		n.must(n.add(p))
		n.must(os.Remove(n.path("manifests/NetworkAttachmentDefinition-b.json")))
		n.must(os.RemoveAll(n.path("state/sandboxes")))
		n.must(os.RemoveAll(n.path("state/cni")))
		want := []string{"DEL net3", "DEL net2", "DEL net1", "DEL eth0"}
		if !remembered {
			n.must(os.RemoveAll(n.path("state")))
			want = slices.Delete(want, 1, 2)
		}
		n.plugin.called()
		n.must(n.del(p))
		same(t, "calls", n.plugin.called(), want)
	}
}
