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
	r := newRig(t)
	r.nads("a", "b", "c")
	p := r.pod("p", "a,b,c")
	r.must(r.add(p))
	r.plugin.called()
	r.plugin.fails("DEL net3", 113)
	r.plugin.fails("DEL net1", 111)
	r.fails(r.del(p), 113, "pod default/p", "NAD default/c: interface net3: plugin pair",
		"NAD default/a: interface net1: plugin pair")
	same(t, "calls", r.plugin.called(), []string{"DEL net3", "DEL net2", "DEL net1", "DEL eth0"})
	left := []string{
		"id-p net1", "id-p net3", "id-p.json", "id-p.json.lock", "a-id-p-net1", "c-id-p-net3",
	}
	r.left([]*pod{p}, left...)

	r.fails(r.del(p), 113, "NAD default/c", "NAD default/a")
	same(t, "calls of a retry", r.plugin.called(), []string{"DEL net3", "DEL net1"})
	r.left([]*pod{p}, left...)

	r.plugin.on("DEL net3", nil)
	r.fails(r.del(p), 111, "NAD default/a")
	same(t, "calls of a retry that does more", r.plugin.called(), []string{"DEL net3", "DEL net1"})
	r.left([]*pod{p}, "id-p net1", "id-p.json", "id-p.json.lock", "a-id-p-net1")

	r.plugin.on("DEL net1", nil)
	r.must(r.del(p))
	same(t, "calls of the last", r.plugin.called(), []string{"DEL net1"})
	r.left([]*pod{p})
}

// Its plugins are asked all the same: what they hold may have outlived the record.
func TestDelOfUnknownSandboxSucceeds(t *testing.T) {
	r := newRig(t)
	r.nads("a")
	gone := r.sandbox("id-gone")
	gone.name = "gone"
	for _, test := range []struct {
		pod   *pod
		calls []string
	}{
		{r.pod("known", "a"), []string{"DEL net1", "DEL eth0"}},
		{gone, []string{"DEL eth0"}},
		{r.sandbox("id-nameless"), []string{"DEL eth0"}},
	} {
		if err := r.del(test.pod); err != nil {
			t.Errorf("%s: %v", test.pod.id, err)
		}
		same(t, "calls for "+test.pod.id, r.plugin.called(), test.calls)
		r.left([]*pod{test.pod})
	}
}

// A DEL that could not remove anything is unfinished, too: another sandbox's DEL goes on with it
// once the namespace is gone, and a new ADD clears it away.
func TestDelThatRemovedNothingIsUnfinished(t *testing.T) {
	for _, next := range []string{"DEL of another", "ADD"} {
		t.Run(next, func(t *testing.T) {
			r := newRig(t)
			p, other := r.pod("p", ""), r.pod("other", "")
			r.must(r.add(p))
			r.plugin.fails("DEL eth0", 111)
			r.fails(r.del(p), 111)
			r.left([]*pod{p}, "id-p eth0", "id-p.json", "id-p.json.lock", "pods-id-p-eth0")
			r.plugin.on("DEL eth0", nil)
			if next == "ADD" {
				r.must(r.add(p))
				r.left([]*pod{p}, p.whole("pods eth0")...)
				return
			}
			p.Unmount()
			r.must(r.del(other))
			r.left(nil)
		})
	}
}

// What a DEL failed at it does not try once more as somebody else's left-over: its error would be
// of what is gone.
func TestDelTriesOnce(t *testing.T) {
	r := newRig(t)
	r.nads("a")
	p := r.pod("p", "a")
	r.must(r.add(p))
	p.Unmount()
	r.plugin.called()
	r.plugin.fails("DEL net1", 111)
	r.fails(r.del(p), 111)
	// Twice: with no namespace, and with an empty one.
	same(t, "calls", r.plugin.called(), []string{"DEL net1", "DEL net1", "DEL eth0"})
	r.left(nil, "id-p.json", "id-p.json.lock", "a-id-p-net1")
}

// Where nothing but a damaged entry of the cache is left, it may be of either of two networks of
// one CNI name. Both are asked, and the one that failed is asked again.
func TestDelOfOneInterfaceOfTwoNetworks(t *testing.T) {
	r := newRig(t)
	for _, name := range []string{"a", "b"} {
		config := `{"cniVersion":"1.1.0","name":"shared","type":"pair","tag":"` + name + `"}`
		r.object("k8s.cni.cncf.io/v1", nadv1.Kind, name, nil, map[string]any{"config": config})
	}
	p, q := r.pod("p", "a"), r.pod("q", "b")
	r.must(r.add(p))
	r.must(r.add(q)) // the node remembers both networks
	r.must(os.Truncate(r.path("state/cni/results/shared-id-p-net1"), 10))
	r.must(os.Remove(r.path("state/sandboxes/id-p.json")))
	r.must(os.Remove(r.path("manifests/Pod-p.json")))
	asked := 0
	r.plugin.on("DEL net1", func(_ context.Context, c *call) error {
		if asked++; asked == 1 {
			return types.NewError(111, "the one that made it", "")
		}
		c.ifname = "none" // the other has nothing of that name
		return nil
	})
	r.fails(r.del(p), 111)
	r.plugin.on("DEL net1", nil)
	r.must(r.del(p))
	same(t, "links", p.interfaces(), nil)
}

// The links of a sandbox go in one step, before the plugins' own DEL, which is called all the same.
func TestDelRemovesLinksInOneStep(t *testing.T) {
	r := newRig(t)
	r.plugin.group = linkGroup
	r.nads("a", "b")
	p := r.pod("p", "a,b")
	r.must(r.add(p))
	r.plugin.called()
	r.plugin.fails("DEL net1", 111)
	r.fails(r.del(p), 111, "NAD default/a")
	same(t, "calls", r.plugin.called(), []string{"DEL net2", "DEL net1", "DEL eth0"})
	r.left([]*pod{p}, "id-p.json", "id-p.json.lock", "a-id-p-net1")
	r.plugin.on("DEL net1", nil)
	r.must(r.del(p))
	r.left([]*pod{p})
}

// A plugin that is exec'd may look at the link that one in-process made: then each link goes with
// its own chain.
func TestDelOfMixedChainsRemovesLinksOneByOne(t *testing.T) {
	r := newRig(t)
	r.plugin.group = linkGroup
	r.nads("b")
	script := "#!/bin/sh\n[ $CNI_COMMAND = ADD ] && echo " +
		"'{\"cniVersion\":\"1.1.0\",\"interfaces\":[]}'; exit 0\n"
	r.must(os.Mkdir(r.path("bin"), 0o700))
	r.must(os.WriteFile(r.path("bin", "meta"), []byte(script), 0o700))
	r.object("k8s.cni.cncf.io/v1", nadv1.Kind, "a", nil, map[string]any{
		"config": `{"cniVersion":"1.1.0","name":"a","plugins":[{"type":"pair"},{"type":"meta"}]}`,
	})
	p := r.pod("p", "a,b")
	r.must(r.add(p))
	r.plugin.fails("DEL net1", 111)
	r.fails(r.del(p), 111, "NAD default/a")
	r.left([]*pod{p}, "id-p net1", "id-p.json", "id-p.json.lock", "a-id-p-net1")
	r.plugin.on("DEL net1", nil)
	r.must(r.del(p))
	r.left([]*pod{p})
}

// The kubelet removes each sandbox once more, a while after its pod. That asks nobody: the API may
// be away, and the pod's name taken.
func TestDelOnceMoreAsksNobody(t *testing.T) {
	for _, added := range []bool{true, false} {
		r := newRig(t)
		r.nads("a")
		p := r.pod("p", "a")
		if added {
			r.must(r.add(p))
			r.must(r.del(p))
		} else { // the runtime's DEL after an ADD that was rolled back
			r.plugin.fails("ADD net1", 111)
			r.fails(r.add(p), 111)
		}
		r.plugin.called()
		r.must(os.RemoveAll(r.path("manifests")))
		r.must(os.WriteFile(r.path("manifests"), nil, 0o600))
		r.must(r.del(p))
		same(t, "calls", r.plugin.called(), nil)
	}
}

// While the API is away, no more can be known of a sandbox without a record. If its namespace is
// empty, nothing was attached: the ADD was refused for the same reason. Else the DEL has to be
// tried again.
func TestDelWithoutRecordAndAPI(t *testing.T) {
	r := newRig(t)
	r.nads("a")
	p, lost, unmounted := r.pod("p", "a"), r.pod("lost", "a"), r.pod("unmounted", "a")
	r.must(r.add(lost))
	r.must(os.RemoveAll(r.path("state")))
	unmounted.Unmount()
	r.plugin.called()
	r.source.away = true
	r.fails(r.add(p), 11)
	r.must(r.del(p))
	for _, p := range []*pod{lost, unmounted} {
		r.fails(r.del(p), 11)
	}
	same(t, "calls", r.plugin.called(), nil)
	r.source.away = false
	r.must(r.del(lost))
	r.must(r.del(unmounted))
	r.left([]*pod{lost})
}

// TestR28DelWithoutRecordPastWhatIsGone: a pod's record is lost, and so is one of its NADs. The
// others are asked all the same, by the interface names that they had; of the one that is gone the
// node may remember what it was.
func TestR28DelWithoutRecordPastWhatIsGone(t *testing.T) {
	for _, remembered := range []bool{true, false} {
		r := newRig(t)
		r.nads("a", "b", "c")
		p := r.pod("p", "a,b,c")
		r.must(r.add(p))
		r.must(os.Remove(r.path("manifests/NetworkAttachmentDefinition-b.json")))
		r.must(os.RemoveAll(r.path("state/sandboxes")))
		r.must(os.RemoveAll(r.path("state/cni")))
		want := []string{"DEL net3", "DEL net2", "DEL net1", "DEL eth0"}
		if !remembered {
			r.must(os.RemoveAll(r.path("state")))
			want = slices.Delete(want, 1, 2)
		}
		r.plugin.called()
		r.must(r.del(p))
		same(t, "calls", r.plugin.called(), want)
	}
}
