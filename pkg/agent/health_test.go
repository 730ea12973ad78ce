package agent_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/pkg/agent"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	nodev1 "github.com/braid-cni/braid/pkg/api/node/v1"
	"github.com/braid-cni/braid/pkg/cnicache"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/kube"
	"github.com/braid-cni/braid/pkg/record"
)

// node keeps what is reported, as an API server does, and can be away.
type node struct {
	mu      sync.Mutex
	began   time.Time
	away    bool
	current kube.NodeReport
	// written are the reports, each in a line, with the seconds since the beginning.
	written []string
}

func (n *node) NodeReport(context.Context, string) (kube.NodeReport, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.away {
		return kube.NodeReport{}, errors.New("away")
	}
	return n.current, nil
}

func (n *node) ReportNode(
	_ context.Context, name string, c nodev1.Condition, r nodev1.Report,
) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.away {
		return errors.New("away")
	}
	n.current = kube.NodeReport{
		Node: name, Condition: &c, Report: &r, StartupTaint: n.current.StartupTaint,
	}
	since := func(at metav1.Time) int { return int(at.Sub(n.began).Seconds()) }
	n.written = append(n.written, fmt.Sprintf("%d: %s %s since %d: %s; config %s",
		since(c.LastHeartbeatTime), c.Status, c.Reason, since(c.LastTransitionTime), c.Message, r.Config))
	return nil
}

// leave has the API server go away, or come back.
func (n *node) leave(away bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.away = away
}

// taint sets or removes the start-up taint.
func (n *node) taint(tainted bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.current.StartupTaint = tainted
}

func (n *node) wrote(t *testing.T, when string, want ...string) {
	t.Helper()
	synctest.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	if !slices.Equal(n.written, want) {
		t.Errorf("%s: written\n%s\nwant\n%s",
			when, strings.Join(n.written, "\n"), strings.Join(want, "\n"))
	}
	n.written = nil
}

func TestHealth(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		n := &node{began: time.Now()}
		h := agent.NewHealth("v1", "installation", "credential")
		go h.Publish(ctx, n, "n", slog.New(slog.DiscardHandler))
		n.wrote(t, "at first", "0: False Starting since 0: waiting for credential, installation; config ")
		time.Sleep(time.Second)
		h.Set("installation", nil)
		n.wrote(t, "one part", "1: False Starting since 0: waiting for credential; config ")
		h.Set("credential", &failure.Error{Reason: failure.APIUnavailable, Err: errors.New("no answer")})
		n.wrote(t, "a failure", "1: False APIUnavailable since 0: credential: no answer; config ")
		time.Sleep(time.Second)
		h.Set("credential", nil)
		n.wrote(t, "well", "2: True Ready since 2: pods of this node get their networks; config ")
		h.Set("credential", nil)
		h.Update(func(*nodev1.Report) {})
		n.wrote(t, "nothing new")
		h.Update(func(r *nodev1.Report) { r.Config = "/c" })
		n.wrote(t, "a report", "2: True Ready since 2: pods of this node get their networks; config /c")
		time.Sleep(agent.Heartbeat)
		n.wrote(t, "heartbeat", "302: True Ready since 2: pods of this node get their networks; "+
			"config /c")
		n.leave(true)
		h.Set("installation", errors.New("no space"))
		time.Sleep(time.Second)
		n.wrote(t, "away")
		n.leave(false)
		time.Sleep(time.Minute)
		n.wrote(t, "back", "305: False Failed since 305: installation: no space; config /c")
	})
}

// Warnings are in the report until they are taken back, and decide nothing.
func TestHealthWarns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		n := &node{}
		h := agent.NewHealth("v1")
		go h.Publish(ctx, n, "n", slog.New(slog.DiscardHandler))
		for _, step := range []struct {
			about string
			texts []string
			isNew bool
			want  []string
		}{
			{"y", []string{"b"}, true, []string{"b"}},
			{"x", []string{"a", "c"}, true, []string{"a", "c", "b"}},
			{"x", []string{"a", "c"}, false, []string{"a", "c", "b"}},
			{"y", nil, true, []string{"a", "c"}},
			{"y", nil, false, []string{"a", "c"}},
		} {
			if isNew := h.Warn(step.about, step.texts...); isNew != step.isNew {
				t.Errorf("%s %q is new: %v", step.about, step.texts, isNew)
			}
			synctest.Wait()
			report, err := n.NodeReport(ctx, "n")
			if err != nil || !slices.Equal(report.Report.Warnings, step.want) ||
				report.Condition.Status != metav1.ConditionTrue {
				t.Errorf("%s %q: %+v, %v, want %q", step.about, step.texts, report, err, step.want)
			}
		}
	})
}

// A node with the start-up taint is heard of often, as the controller waits for that.
func TestHealthOfTaintedNode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		n := &node{began: time.Now()}
		n.taint(true)
		h := agent.NewHealth("v1")
		go h.Publish(ctx, n, "n", slog.New(slog.DiscardHandler))
		const ready = ": True Ready since 0: pods of this node get their networks; config "
		n.wrote(t, "at first", "0"+ready)
		time.Sleep(2 * agent.TaintedHeartbeat)
		n.wrote(t, "tainted", "10"+ready, "20"+ready)
		n.taint(false)
		time.Sleep(2 * time.Minute)
		n.wrote(t, "without the taint")
		n.taint(true)
		time.Sleep(time.Minute)
		n.wrote(t, "tainted again, which is seen within a minute", "150"+ready, "160"+ready, "170"+ready,
			"180"+ready, "190"+ready, "200"+ready)
	})
}

// The agent that comes after another goes on with its condition.
func TestHealthOfFormerAgent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		n := &node{began: time.Now()}
		n.current.Condition = &nodev1.Condition{
			Status: metav1.ConditionTrue, LastTransitionTime: metav1.NewTime(n.began.Add(-time.Hour)),
		}
		h := agent.NewHealth("v2")
		go h.Publish(ctx, n, "n", slog.New(slog.DiscardHandler))
		n.wrote(t, "at first", "0: True Ready since -3600: pods of this node get their networks; config ")
	})
}

func TestEvery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		began, ended := time.Now(), false
		var calls []int
		go func() {
			agent.Every(ctx, time.Minute, func(context.Context) {
				calls = append(calls, int(time.Since(began).Seconds()))
			})
			ended = true
		}()
		time.Sleep(2*time.Minute + time.Second)
		cancel()
		synctest.Wait()
		if want := []int{0, 60, 120}; !slices.Equal(calls, want) || !ended {
			t.Errorf("called at %v, want %v; ended %v", calls, want, ended)
		}
	})
}

func TestUnattached(t *testing.T) {
	t.Parallel()
	pod := func(name string, annotations map[string]string) metav1.ObjectMeta {
		return metav1.ObjectMeta{Namespace: "ns", Name: name, UID: "uid-" + "x", Annotations: annotations}
	}
	asks := map[string]string{nadv1.NetworksAnnotation: "a"}
	started := []metav1.ObjectMeta{
		pod("z-missed", asks), pod("missed", asks), pod("plain", nil), pod("recorded", asks),
		pod("of-another-plugin", map[string]string{
			nadv1.NetworksAnnotation: "a", nadv1.StatusAnnotation: "[]",
		}),
	}
	started[3].UID = "recorded"
	got := agent.Unattached(started, []*record.Record{{Pod: record.Pod{UID: "recorded"}}})
	if want := []string{"ns/missed", "ns/z-missed"}; !slices.Equal(got, want) {
		t.Errorf("unattached %q, want %q", got, want)
	}
}

// TestOthers: Multus's live sandboxes count, and neither Braid's own, nor those of the default
// network alone, nor what is left of a boot before.
func TestOthers(t *testing.T) {
	t.Parallel()
	entry := func(network, plugin, netns string) cnicache.Entry {
		return cnicache.Entry{
			NetworkName: network, NetNS: netns, Config: []byte(`{"plugins": [{"type": "` + plugin + `"}]}`),
		}
	}
	entries := []cnicache.Entry{
		entry("multus", "multus", "live"), entry("multus", "multus", "live"),
		entry("thick", "multus-shim", "live"), entry("multus", "multus", "gone"),
		entry("braid", "braid", "live"), entry("pods", "bridge", "live"),
		{NetworkName: "odd", NetNS: "live", Config: []byte("{")},
	}
	got := agent.Others(entries, func(netns string) bool { return netns == "live" })
	if want := map[string]int{"multus": 2, "thick": 1}; !maps.Equal(got, want) {
		t.Errorf("others %v, want %v", got, want)
	}
}
