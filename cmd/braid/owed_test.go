package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
)

// owedHost is a node with a pod that has a network of two plugins in a chain: "meta" after "link".
func owedHost(t *testing.T) (*host, *pod) {
	t.Helper()
	h := statusHost(t, "")
	h.fake("link", "")
	h.fake("meta", "")
	h.nad("a", `{"cniVersion":"1.0.0","plugins":[{"type":"link"},{"type":"meta"}]}`)
	h.nad("b", h.macvlan(11, ""))
	return h, h.pod("p", "a,b")
}

// told are the messages of a pod's events of this reason, which are warnings.
func (h *host) told(p *pod, reason string) (told []string) {
	h.t.Helper()
	for _, e := range h.events(p) {
		if e.Reason == reason {
			same(h.t, "type of event "+reason, e.Type, "Warning")
			told = append(told, e.Message)
		}
	}
	return told
}

// refusing is the body of a fake that refuses its configuration, whatever it is asked, but VERSION.
func refusing(code int) string {
	return failing("ADD", code, "no such mode") + "\n" + failing("DEL", code, "no such mode") + "\n" +
		failing("GC", code, "no such mode")
}

// TestR12NeverAdded: a plugin refuses its configuration on DEL as it did on ADD. There is nothing
// to remove, and the others are asked.
func TestR12NeverAdded(t *testing.T) {
	t.Parallel()
	for _, refuser := range []string{"link", "meta"} {
		for _, code := range []int{1, 2, 7} {
			h, p := owedHost(t)
			h.fake(refuser, refusing(code))
			h.fails("ADD", p, uint(code), "default/a", "no such mode")
			calls := h.calls()
			if !slices.Contains(calls, "link DEL net1") || !slices.Contains(calls, "meta DEL net1") ||
				!slices.Contains(calls, "main DEL eth0") {
				t.Errorf("%s, code %d: the roll-back did not ask all: %q", refuser, code, calls)
			}
			h.must("DEL", p)
			h.must("DEL", p)
			h.clean(p)
		}
	}
}

// TestR12FailsAsItsADD: many plugins say with a code of no meaning what they cannot use. What was
// never added, and fails with the very words of the ADD, is waited out for ten minutes.
func TestR12FailsAsItsADD(t *testing.T) {
	t.Parallel()
	for _, code := range []int{100, 999} {
		h, p := owedHost(t)
		h.fake("link", refusing(code))
		h.fails("ADD", p, uint(code), "default/a", "no such mode")
		h.env = []string{later + "=9m"}
		h.fails("DEL", p, uint(code), "default/a", "no such mode")
		h.env = []string{later + "=11m"}
		h.must("DEL", p)
		h.must("DEL", p)
		same(t, "events", len(h.told(p, "CleanupOwed")), 1)
		h.fake("link", "")
		h.valid()
		h.must("GC", nil)
		h.clean(p)
	}
}

// What fails in other words than the ADD, or with a code that has a meaning, may be over with the
// next DEL.
func TestR12NeverAddedWithoutRefusal(t *testing.T) {
	t.Parallel()
	for code, del := range map[int]string{
		5: "no such mode", 11: "no such mode", 100: "the disk fails: no such mode",
		999: "the disk fails: no such mode",
	} {
		h, p := owedHost(t)
		h.fake("link", failing("ADD", code, "no such mode")+"\n"+failing("DEL", code, del))
		h.fails("ADD", p, uint(code), "roll-back is not complete")
		for range 2 {
			h.fails("DEL", p, uint(code), "default/a", "no such mode")
		}
		p.Unmount()
		for _, after := range []string{"0s", "11m", "24h"} {
			h.env = []string{later + "=" + after}
			h.fails("DEL", p, uint(code), "default/a")
		}
		h.fake("link", "")
		h.must("DEL", p)
		h.clean()
	}
}

// An ADD that was killed when libcni had written its entry had succeeded, although the record does
// not say so.
func TestR12AddedAndKilled(t *testing.T) {
	t.Parallel()
	h, p := owedHost(t)
	points, failed := h.points("ADD", p)
	if failed != nil {
		t.Fatal(failed)
	}
	h.must("DEL", p)
	h.killedAt("ADD", p, points, slices.Index(points, "after ADD net1"))
	h.fake("link", refusing(7))
	for range 2 {
		h.fails("DEL", p, 7, "default/a", "no such mode")
	}
	h.fake("link", "")
	h.must("DEL", p)
	h.clean(p)
}

// TestR12Owed: what was added, and is refused for ten minutes with the namespace gone, is owed. GC
// goes on with it.
func TestR12Owed(t *testing.T) {
	t.Parallel()
	for name, refuse := range map[string]func(*host){
		"refuses": func(h *host) { h.fake("link", refusing(7)) },
		"is gone": func(h *host) { h.remove("bin", "link") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, p := owedHost(t)
			h.add(p)
			refuse(h)
			h.calls()
			h.fails("DEL", p, 7, "default/a", "link")
			calls := h.calls()
			if !slices.Contains(calls, "meta DEL net1") || !slices.Contains(calls, "main DEL eth0") {
				t.Errorf("not all were asked: %q", calls)
			}
			h.env = []string{later + "=1h"}
			h.fails("DEL", p, 7, "default/a") // it is there: no time counts
			p.Unmount()
			h.env = nil
			h.fails("DEL", p, 7, "default/a")
			h.env = []string{later + "=9m"}
			h.fails("DEL", p, 7, "default/a")
			same(t, "events before", len(h.told(p, "CleanupOwed")), 0)
			h.must("DEL", h.pod("another", "")) // which counts for nothing
			h.env = []string{later + "=10m1s"}
			h.must("DEL", p)
			events := h.told(p, "CleanupOwed")
			if len(events) != 1 || !strings.Contains(events[0], "default/a") ||
				!strings.Contains(events[0], "net1") {
				t.Errorf("events %q", events)
			}
			same(t, "leases", len(h.leases()), 0)
			h.calls()
			h.must("DEL", p) // the kubelet's second
			same(t, "calls of another DEL", h.calls(), nil)
			h.must("DEL", h.pod("other", "")) // which resumes nothing of it
			same(t, "records", globbed(t, h.path("state/sandboxes/*")),
				[]string{h.path("state/sandboxes/id-p.json")})

			h.valid()
			h.fails("GC", nil, 7, "default/p", "default/a", "link")
			h.fake("link", "")
			h.calls()
			h.must("GC", nil)
			if calls := h.calls(); !slices.Contains(calls, "link DEL net1") {
				t.Errorf("GC does not go on: %q", calls)
			}
			h.clean()
		})
	}
}

// A sandbox of the same ID may be made while something is owed, as cnitool does. Nothing of either
// is lost.
func TestR12OwedAndAddedAgain(t *testing.T) {
	t.Parallel()
	h, p := owedHost(t)
	h.add(p)
	h.fake("link", refusing(7))
	p.Unmount()
	h.fails("DEL", p, 7)
	h.env = []string{later + "=11m"}
	h.must("DEL", p)
	again := h.pod("p", "b")
	h.add(again)
	h.has(again, "net1")
	h.must("CHECK", again)
	h.must("DEL", again)
	h.has(again)
	same(t, "records", globbed(t, h.path("state/sandboxes/*")),
		[]string{h.path("state/sandboxes/id-p.json")})
	h.fake("link", "")
	h.valid()
	h.must("GC", nil)
	h.clean(again)
}

func TestR12RetryDeleteOnErrorWaitsForEver(t *testing.T) {
	t.Parallel()
	h, p := owedHost(t)
	h.conf["retryDeleteOnError"] = true
	h.add(p)
	h.fake("link", refusing(7))
	p.Unmount()
	for _, after := range []string{"0s", "11m", "240h"} {
		h.env = []string{later + "=" + after}
		h.fails("DEL", p, 7, "default/a")
	}
	h.fake("link", "")
	h.must("DEL", p)
	h.clean()
}

// The ten minutes begin anew when the plugin fails in another way: it may be about to come back.
func TestR12RefusalMustLast(t *testing.T) {
	t.Parallel()
	h, p := owedHost(t)
	h.add(p)
	p.Unmount()
	for _, step := range []struct {
		after string
		code  int
	}{{"0s", 7}, {"9m", 11}, {"11m", 7}, {"20m", 7}} {
		h.env = []string{later + "=" + step.after}
		h.fake("link", refusing(step.code))
		h.fails("DEL", p, uint(step.code), "default/a")
	}
	h.env = []string{later + "=21m1s"}
	h.must("DEL", p)
	same(t, "events", len(h.told(p, "CleanupOwed")), 1)
}

// TestR12Hangs: a plugin that hangs is stopped by the time of an operation, and never ends a DEL.
func TestR12Hangs(t *testing.T) {
	t.Parallel()
	for _, added := range []bool{true, false} {
		h, p := owedHost(t)
		patience := h.conf
		if !added {
			h.fake("meta", failing("ADD", 7, "no such mode"))
			h.fake("link", `if [ "$CNI_COMMAND" = DEL ]; then sleep 60; fi`)
			h.conf = with(h.conf, "braid",
				with(h.conf["braid"].(map[string]any), "timeouts",
					map[string]any{"operation": "2s", "rollback": "300ms"}))
			h.fails("ADD", p, 7, "roll-back is not complete")
		} else {
			h.add(p)
		}
		h.fake("link", `if [ "$CNI_COMMAND" = DEL ]; then sleep 60; fi`)
		p.Unmount()
		h.conf = with(h.conf, "braid",
			with(h.conf["braid"].(map[string]any), "timeouts", map[string]any{"operation": "500ms"}))
		for _, after := range []string{"0s", "11m", "22m"} {
			h.env = []string{later + "=" + after}
			start := time.Now()
			h.fails("DEL", p, types.ErrTryAgainLater, "default/a", "not finished within")
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("it took %v", took)
			}
		}
		same(t, "leases of what came after it", len(h.leases()), 0)
		h.conf = patience
		h.fake("link", "")
		h.must("DEL", p)
		h.clean()
	}
}

// What hangs keeps neither the other attachments of its pod nor, in a GC, other pods from being
// removed.
func TestR12HangsAlone(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.fake("link", "")
	h.nad("a", `{"cniVersion":"1.0.0","type":"link"}`)
	h.nad("b", h.macvlan(11, ""))
	p, q := h.pod("p", "b,a"), h.pod("q", "b")
	h.add(p)
	h.add(q)
	p.Unmount()
	q.Unmount()
	h.fake("link", `if [ "$CNI_COMMAND" = DEL ]; then sleep 60; fi`)
	patience := h.conf
	h.conf = with(h.conf, "braid",
		with(h.conf["braid"].(map[string]any), "timeouts", map[string]any{"operation": "2s"}))
	h.valid()
	h.fails("GC", nil, types.ErrTryAgainLater, "default/p", "default/a", "not finished within")
	same(t, "leases", len(h.leases()), 0)
	h.conf = patience
	h.fake("link", "")
	h.must("DEL", p)
	h.clean()
}

// TestFaultOwed kills the DEL that leaves something for GC at each point. The next DEL ends, and GC
// removes all.
func TestFaultOwed(t *testing.T) {
	t.Parallel()
	h, _ := owedHost(t)
	prepare := func(h *host) *pod {
		h.fake("link", "")
		p := h.pod("p", "a,b")
		h.env = nil
		h.add(p)
		p.Unmount()
		h.fake("link", refusing(7))
		h.fails("DEL", p, 7)
		h.env = []string{later + "=11m"}
		return p
	}
	settled := func(h *host) {
		h.fake("link", "")
		h.valid()
		h.must("GC", nil)
		h.clean()
	}
	p := prepare(h)
	points, failed := h.points("DEL", p)
	if failed != nil {
		t.Fatal(failed)
	}
	settled(h)
	covers(t, points, "record owed net1")
	h.eachPoint(points, 0, func(h *host, n int) {
		p := prepare(h)
		h.killedAt("DEL", p, points, n)
		h.must("DEL", p)
		same(t, "records", globbed(t, h.path("state/sandboxes/*")),
			[]string{h.path("state/sandboxes/id-p.json")})
		settled(h)
	})
}

// TestFaultRefused kills the DEL that notes a refusal at each point. The ten minutes are over at
// the latest ten minutes after the next one, and nothing of what the others did is lost.
func TestFaultRefused(t *testing.T) {
	t.Parallel()
	h, _ := owedHost(t)
	prepare := func(h *host) *pod {
		h.env = nil
		h.fake("link", "")
		p := h.pod("p", "a,b")
		h.add(p)
		p.Unmount()
		h.fake("link", refusing(7))
		return p
	}
	settled := func(h *host) {
		h.fake("link", "")
		h.valid()
		h.must("GC", nil)
		h.clean()
	}
	p := prepare(h)
	points, failed := h.points("DEL", p)
	if failed == nil || failed.Code != 7 {
		t.Fatalf("the DEL should be refused: %v", failed)
	}
	settled(h)
	covers(t, points, "record refused net1", "record detached net2", "record detached eth0")
	h.eachPoint(points, 0, func(h *host, n int) {
		p := prepare(h)
		h.killedAt("DEL", p, points, n)
		h.fails("DEL", p, 7, "default/a")
		h.env = []string{later + "=10m1s"}
		h.must("DEL", p)
		settled(h)
	})
}
