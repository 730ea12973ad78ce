package main

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
)

// owedRig is a node with a pod that has a network of two plugins in a chain: "meta" after "link".
func owedRig(t *testing.T) (*rig, *pod) {
	t.Helper()
	r := statusRig(t, "")
	r.fake("link", "")
	r.fake("meta", "")
	r.nad("a", `{"cniVersion":"1.0.0","plugins":[{"type":"link"},{"type":"meta"}]}`)
	r.nad("b", r.macvlan(11, ""))
	return r, r.pod("p", "a,b")
}

// told are the messages of a pod's events of this reason, which are warnings.
func (r *rig) told(p *pod, reason string) (told []string) {
	r.t.Helper()
	for _, e := range r.events(p) {
		if e.Reason == reason {
			same(r.t, "type of event "+reason, e.Type, "Warning")
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
			r, p := owedRig(t)
			r.fake(refuser, refusing(code))
			r.fails("ADD", p, uint(code), "default/a", "no such mode")
			calls := r.calls()
			if !slices.Contains(calls, "link DEL net1") || !slices.Contains(calls, "meta DEL net1") ||
				!slices.Contains(calls, "main DEL eth0") {
				t.Errorf("%s, code %d: the roll-back did not ask all: %q", refuser, code, calls)
			}
			r.must("DEL", p)
			r.must("DEL", p)
			r.clean(p)
		}
	}
}

// TestR12FailsAsItsADD: many plugins say with a code of no meaning what they cannot use. What was
// never added, and fails with the very words of the ADD, is waited out for ten minutes.
func TestR12FailsAsItsADD(t *testing.T) {
	t.Parallel()
	for _, code := range []int{100, 999} {
		r, p := owedRig(t)
		r.fake("link", refusing(code))
		r.fails("ADD", p, uint(code), "default/a", "no such mode")
		r.env = []string{later + "=9m"}
		r.fails("DEL", p, uint(code), "default/a", "no such mode")
		r.env = []string{later + "=11m"}
		r.must("DEL", p)
		r.must("DEL", p)
		same(t, "events", len(r.told(p, "CleanupOwed")), 1)
		r.fake("link", "")
		r.valid()
		r.must("GC", nil)
		r.clean(p)
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
		r, p := owedRig(t)
		r.fake("link", failing("ADD", code, "no such mode")+"\n"+failing("DEL", code, del))
		r.fails("ADD", p, uint(code), "roll-back is not complete")
		for range 2 {
			r.fails("DEL", p, uint(code), "default/a", "no such mode")
		}
		p.Unmount()
		for _, after := range []string{"0s", "11m", "24h"} {
			r.env = []string{later + "=" + after}
			r.fails("DEL", p, uint(code), "default/a")
		}
		r.fake("link", "")
		r.must("DEL", p)
		r.clean()
	}
}

// An ADD that was killed when libcni had written its entry had succeeded, although the record does
// not say so.
func TestR12AddedAndKilled(t *testing.T) {
	t.Parallel()
	r, p := owedRig(t)
	points, failed := r.points("ADD", p)
	if failed != nil {
		t.Fatal(failed)
	}
	r.must("DEL", p)
	r.killedAt("ADD", p, points, slices.Index(points, "after ADD net1"))
	r.fake("link", refusing(7))
	for range 2 {
		r.fails("DEL", p, 7, "default/a", "no such mode")
	}
	r.fake("link", "")
	r.must("DEL", p)
	r.clean(p)
}

// TestR12Owed: what was added, and is refused for ten minutes with the namespace gone, is owed. GC
// goes on with it.
func TestR12Owed(t *testing.T) {
	t.Parallel()
	for name, refuse := range map[string]func(*rig){
		"refuses": func(r *rig) { r.fake("link", refusing(7)) },
		"is gone": func(r *rig) { r.remove("bin", "link") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, p := owedRig(t)
			r.add(p)
			refuse(r)
			r.calls()
			r.fails("DEL", p, 7, "default/a", "link")
			calls := r.calls()
			if !slices.Contains(calls, "meta DEL net1") || !slices.Contains(calls, "main DEL eth0") {
				t.Errorf("not all were asked: %q", calls)
			}
			r.env = []string{later + "=1h"}
			r.fails("DEL", p, 7, "default/a") // it is there: no time counts
			p.Unmount()
			r.env = nil
			r.fails("DEL", p, 7, "default/a")
			r.env = []string{later + "=9m"}
			r.fails("DEL", p, 7, "default/a")
			same(t, "events before", len(r.told(p, "CleanupOwed")), 0)
			r.must("DEL", r.pod("another", "")) // which counts for nothing
			r.env = []string{later + "=10m1s"}
			r.must("DEL", p)
			events := r.told(p, "CleanupOwed")
			if len(events) != 1 || !strings.Contains(events[0], "default/a") ||
				!strings.Contains(events[0], "net1") {
				t.Errorf("events %q", events)
			}
			same(t, "leases", len(r.leases()), 0)
			r.calls()
			r.must("DEL", p) // the kubelet's second
			same(t, "calls of another DEL", r.calls(), nil)
			r.must("DEL", r.pod("other", "")) // which resumes nothing of it
			same(t, "records", globbed(t, r.path("state/sandboxes/*")),
				[]string{r.path("state/sandboxes/id-p.json")})

			r.valid()
			r.fails("GC", nil, 7, "default/p", "default/a", "link")
			r.fake("link", "")
			r.calls()
			r.must("GC", nil)
			if calls := r.calls(); !slices.Contains(calls, "link DEL net1") {
				t.Errorf("GC does not go on: %q", calls)
			}
			r.clean()
		})
	}
}

// A sandbox of the same ID may be made while something is owed, as cnitool does. Nothing of either
// is lost.
func TestR12OwedAndAddedAgain(t *testing.T) {
	t.Parallel()
	r, p := owedRig(t)
	r.add(p)
	r.fake("link", refusing(7))
	p.Unmount()
	r.fails("DEL", p, 7)
	r.env = []string{later + "=11m"}
	r.must("DEL", p)
	again := r.pod("p", "b")
	r.add(again)
	r.has(again, "net1")
	r.must("CHECK", again)
	r.must("DEL", again)
	r.has(again)
	same(t, "records", globbed(t, r.path("state/sandboxes/*")),
		[]string{r.path("state/sandboxes/id-p.json")})
	r.fake("link", "")
	r.valid()
	r.must("GC", nil)
	r.clean(again)
}

func TestR12RetryDeleteOnErrorWaitsForEver(t *testing.T) {
	t.Parallel()
	r, p := owedRig(t)
	r.conf["retryDeleteOnError"] = true
	r.add(p)
	r.fake("link", refusing(7))
	p.Unmount()
	for _, after := range []string{"0s", "11m", "240h"} {
		r.env = []string{later + "=" + after}
		r.fails("DEL", p, 7, "default/a")
	}
	r.fake("link", "")
	r.must("DEL", p)
	r.clean()
}

// The ten minutes begin anew when the plugin fails in another way: it may be about to come back.
func TestR12RefusalMustLast(t *testing.T) {
	t.Parallel()
	r, p := owedRig(t)
	r.add(p)
	p.Unmount()
	for _, step := range []struct {
		after string
		code  int
	}{{"0s", 7}, {"9m", 11}, {"11m", 7}, {"20m", 7}} {
		r.env = []string{later + "=" + step.after}
		r.fake("link", refusing(step.code))
		r.fails("DEL", p, uint(step.code), "default/a")
	}
	r.env = []string{later + "=21m1s"}
	r.must("DEL", p)
	same(t, "events", len(r.told(p, "CleanupOwed")), 1)
}

// TestR12Hangs: a plugin that hangs is stopped by the time of an operation, and never ends a DEL.
func TestR12Hangs(t *testing.T) {
	t.Parallel()
	for _, added := range []bool{true, false} {
		r, p := owedRig(t)
		patience := r.conf
		if !added {
			r.fake("meta", failing("ADD", 7, "no such mode"))
			r.fake("link", `if [ "$CNI_COMMAND" = DEL ]; then sleep 60; fi`)
			r.conf = with(r.conf, "braid",
				with(r.conf["braid"].(map[string]any), "timeouts",
					map[string]any{"operation": "2s", "rollback": "300ms"}))
			r.fails("ADD", p, 7, "roll-back is not complete")
		} else {
			r.add(p)
		}
		r.fake("link", `if [ "$CNI_COMMAND" = DEL ]; then sleep 60; fi`)
		p.Unmount()
		r.conf = with(r.conf, "braid",
			with(r.conf["braid"].(map[string]any), "timeouts", map[string]any{"operation": "500ms"}))
		for _, after := range []string{"0s", "11m", "22m"} {
			r.env = []string{later + "=" + after}
			start := time.Now()
			r.fails("DEL", p, types.ErrTryAgainLater, "default/a", "not finished within")
			if took := time.Since(start); took > 30*time.Second {
				t.Errorf("it took %v", took)
			}
		}
		same(t, "leases of what came after it", len(r.leases()), 0)
		r.conf = patience
		r.fake("link", "")
		r.must("DEL", p)
		r.clean()
	}
}

// What hangs keeps neither the other attachments of its pod nor, in a GC, other pods from being
// removed.
func TestR12HangsAlone(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.fake("link", "")
	r.nad("a", `{"cniVersion":"1.0.0","type":"link"}`)
	r.nad("b", r.macvlan(11, ""))
	p, q := r.pod("p", "b,a"), r.pod("q", "b")
	r.add(p)
	r.add(q)
	p.Unmount()
	q.Unmount()
	r.fake("link", `if [ "$CNI_COMMAND" = DEL ]; then sleep 60; fi`)
	patience := r.conf
	r.conf = with(r.conf, "braid",
		with(r.conf["braid"].(map[string]any), "timeouts", map[string]any{"operation": "2s"}))
	r.valid()
	r.fails("GC", nil, types.ErrTryAgainLater, "default/p", "default/a", "not finished within")
	same(t, "leases", len(r.leases()), 0)
	r.conf = patience
	r.fake("link", "")
	r.must("DEL", p)
	r.clean()
}

// TestFaultOwed kills the DEL that leaves something for GC at each point. The next DEL ends, and GC
// removes all.
func TestFaultOwed(t *testing.T) {
	t.Parallel()
	r, _ := owedRig(t)
	prepare := func(r *rig) *pod {
		r.fake("link", "")
		p := r.pod("p", "a,b")
		r.env = nil
		r.add(p)
		p.Unmount()
		r.fake("link", refusing(7))
		r.fails("DEL", p, 7)
		r.env = []string{later + "=11m"}
		return p
	}
	settled := func(r *rig) {
		r.fake("link", "")
		r.valid()
		r.must("GC", nil)
		r.clean()
	}
	p := prepare(r)
	points, failed := r.points("DEL", p)
	if failed != nil {
		t.Fatal(failed)
	}
	settled(r)
	covers(t, points, "record owed net1")
	r.eachPoint(points, 0, func(r *rig, n int) {
		p := prepare(r)
		r.killedAt("DEL", p, points, n)
		r.must("DEL", p)
		same(t, "records", globbed(t, r.path("state/sandboxes/*")),
			[]string{r.path("state/sandboxes/id-p.json")})
		settled(r)
	})
}

// TestFaultRefused kills the DEL that notes a refusal at each point. The ten minutes are over at
// the latest ten minutes after the next one, and nothing of what the others did is lost.
func TestFaultRefused(t *testing.T) {
	t.Parallel()
	r, _ := owedRig(t)
	prepare := func(r *rig) *pod {
		r.env = nil
		r.fake("link", "")
		p := r.pod("p", "a,b")
		r.add(p)
		p.Unmount()
		r.fake("link", refusing(7))
		return p
	}
	settled := func(r *rig) {
		r.fake("link", "")
		r.valid()
		r.must("GC", nil)
		r.clean()
	}
	p := prepare(r)
	points, failed := r.points("DEL", p)
	if failed == nil || failed.Code != 7 {
		t.Fatalf("the DEL should be refused: %v", failed)
	}
	settled(r)
	covers(t, points, "record refused net1", "record detached net2", "record detached eth0")
	r.eachPoint(points, 0, func(r *rig, n int) {
		p := prepare(r)
		r.killedAt("DEL", p, points, n)
		r.fails("DEL", p, 7, "default/a")
		r.env = []string{later + "=10m1s"}
		r.must("DEL", p)
		settled(r)
	})
}
