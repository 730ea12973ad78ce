package readiness_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/pkg/agent"
	nodev1 "github.com/braid-cni/braid/pkg/api/node/v1"
	"github.com/braid-cni/braid/pkg/kube"
	"github.com/braid-cni/braid/pkg/readiness"
)

// nodes note what is changed of them.
type nodes struct {
	reports []kube.NodeReport
	changes []string
	fails   string
}

func (n *nodes) NodeReports(context.Context) ([]kube.NodeReport, error) { return n.reports, nil }

func (n *nodes) note(node, change string) error {
	n.changes = append(n.changes, node+" "+change)
	if node == n.fails {
		return errors.New("no")
	}
	return nil
}

func (n *nodes) SetNodeCondition(_ context.Context, name string, c nodev1.Condition) error {
	return n.note(name, fmt.Sprint(c.Status, " ", c.Reason))
}

func (n *nodes) RemoveTaint(_ context.Context, name, key string) error {
	return n.note(name, "-"+key)
}

func TestPass(t *testing.T) {
	t.Parallel()
	now := time.Now()
	report := func(name string, status metav1.ConditionStatus, age time.Duration,
		tainted bool,
	) kube.NodeReport {
		r := kube.NodeReport{Node: name, StartupTaint: tainted}
		if status != "" {
			r.Condition = &nodev1.Condition{
				Type: nodev1.Ready, Status: status, LastHeartbeatTime: metav1.NewTime(now.Add(-age)),
			}
		}
		return r
	}
	n := &nodes{fails: "ready", reports: []kube.NodeReport{
		report("ready", metav1.ConditionTrue, time.Minute, true),
		report("ready-long-ago", metav1.ConditionTrue, agent.Stale+time.Second, true),
		report("not-ready", metav1.ConditionFalse, time.Minute, true),
		report("ready-without-taint", metav1.ConditionTrue, time.Minute, false),
		report("known-to-be-silent", metav1.ConditionUnknown, time.Hour, true),
		report("without-agent", "", 0, true),
		report("ready-too", metav1.ConditionTrue, 0, true),
	}}
	c := &readiness.Controller{Nodes: n, Log: slog.New(slog.DiscardHandler), Now: func() time.Time {
		return now
	}}
	current := n.reports
	n.reports = nil
	for _, r := range current { // as they were before
		if r.Condition != nil {
			before := *r.Condition
			before.LastHeartbeatTime = metav1.NewTime(before.LastHeartbeatTime.Add(-time.Second))
			r.Condition = &before
		}
		n.reports = append(n.reports, r)
	}
	if err := c.Pass(t.Context()); err != nil {
		t.Error(err)
	}
	n.reports, n.changes = current, nil
	err := c.Pass(t.Context())
	want := []string{
		"ready -" + nodev1.StartupTaint, "ready-long-ago Unknown " + nodev1.Silent,
		"ready-too -" + nodev1.StartupTaint,
	}
	if err == nil || !slices.Equal(n.changes, want) {
		t.Errorf("changes %q, %v, want %q and an error", n.changes, err, want)
	}
}

// A node that boots has the taint, and a condition that is of before the boot: the taint goes when
// the agent has been heard of since.
func TestTaintOfNodeThatBoots(t *testing.T) {
	t.Parallel()
	now := time.Now()
	n := &nodes{}
	c := &readiness.Controller{Nodes: n, Log: slog.New(slog.DiscardHandler), Now: func() time.Time {
		return now
	}}
	pass := func(what string, heard time.Time, status metav1.ConditionStatus, tainted bool,
		want ...string,
	) {
		t.Helper()
		r := kube.NodeReport{Node: "n", StartupTaint: tainted}
		if !heard.IsZero() {
			r.Condition = &nodev1.Condition{
				Type: nodev1.Ready, Status: status, LastHeartbeatTime: metav1.NewTime(heard),
			}
		}
		n.reports, n.changes = []kube.NodeReport{r}, nil
		if err := c.Pass(t.Context()); err != nil {
			t.Error(err)
		}
		if !slices.Equal(n.changes, want) {
			t.Errorf("%s: changes %q, want %q", what, n.changes, want)
		}
	}
	gone := "n -" + nodev1.StartupTaint
	before, after := now.Add(-time.Minute), now
	pass("a new node", time.Time{}, "", true)
	pass("its agent begins", before, metav1.ConditionFalse, true)
	pass("its agent is ready", before.Add(time.Second), metav1.ConditionTrue, true, gone)
	pass("it runs", before.Add(time.Second), metav1.ConditionTrue, false)
	for range 2 {
		pass("it boots", before.Add(time.Second), metav1.ConditionTrue, true)
	}
	pass("its agent begins again", after.Add(-time.Second), metav1.ConditionFalse, true)
	pass("its agent is ready again", after, metav1.ConditionTrue, true, gone)
}
