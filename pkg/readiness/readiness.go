// Package readiness is the cluster's side of what agents say of their nodes: where pods get their
// networks it takes the start-up taint away, which keeps pods off a node until then, and an agent
// that has fallen silent it no longer believes.
//
// Contract: it reads the nodes and changes nothing else of them. A pass may be repeated, and goes
// on past errors. No node gets a taint: one that has lost its agent goes on attaching pods. What an
// agent said before the start-up taint was seen takes none away: it may be of before a boot.
package readiness

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/pkg/agent"
	nodev1 "github.com/braid-cni/braid/pkg/api/node/v1"
	"github.com/braid-cni/braid/pkg/kube"
)

// Interval is the time between two passes: a node that is new waits for one.
const Interval = 10 * time.Second

// Nodes are the cluster's.
type Nodes interface {
	NodeReports(ctx context.Context) ([]kube.NodeReport, error)
	// SetNodeCondition sets a condition and leaves the node's report.
	SetNodeCondition(ctx context.Context, name string, condition nodev1.Condition) error
	// RemoveTaint removes all taints of that key.
	RemoveTaint(ctx context.Context, name, key string) error
}

// Controller is for one goroutine of one process in the cluster. All fields but Now are required.
type Controller struct {
	Nodes Nodes
	Log   *slog.Logger
	// Now is the time, time.Now if nil.
	Now func() time.Time

	// heard has, for each node with the start-up taint, when its agent had been heard of when the
	// taint was first seen; the zero time for never.
	heard map[string]time.Time
}

// Run makes passes until ctx is done.
func (c *Controller) Run(ctx context.Context) {
	agent.Every(ctx, Interval, func(ctx context.Context) {
		if err := c.Pass(ctx); err != nil && ctx.Err() == nil {
			c.Log.WarnContext(ctx, "readiness of nodes not settled", "error", err)
		}
	})
}

// Pass looks at each node once.
func (c *Controller) Pass(ctx context.Context) error {
	reports, err := c.Nodes.NodeReports(ctx)
	if err != nil {
		return err
	}
	heard := map[string]time.Time{}
	for i := range reports {
		r := &reports[i]
		if before, seen := c.heard[r.Node]; r.StartupTaint && seen {
			heard[r.Node] = before
		} else if r.StartupTaint {
			heard[r.Node] = heartbeat(r)
		}
	}
	c.heard = heard
	var errs []error
	for i := range reports {
		errs = append(errs, c.settle(ctx, &reports[i]))
	}
	return errors.Join(errs...)
}

// heartbeat returns when the agent of a node was heard of last.
func heartbeat(r *kube.NodeReport) time.Time {
	if r.Condition == nil {
		return time.Time{}
	}
	return r.Condition.LastHeartbeatTime.Time
}

func (c *Controller) settle(ctx context.Context, r *kube.NodeReport) error {
	if r.Condition == nil {
		return nil
	}
	now := time.Now()
	if c.Now != nil {
		now = c.Now()
	}
	age := now.Sub(r.Condition.LastHeartbeatTime.Time)
	switch {
	case age > agent.Stale && r.Condition.Status != metav1.ConditionUnknown:
		silent := *r.Condition
		silent.Status, silent.Reason = metav1.ConditionUnknown, nodev1.Silent
		silent.LastTransitionTime = metav1.NewTime(now)
		silent.Message = fmt.Sprintf("the agent was last heard of at %s",
			r.Condition.LastHeartbeatTime.UTC().Format(time.RFC3339))
		c.Log.WarnContext(ctx, "an agent has fallen silent",
			"node", r.Node, "heard", r.Condition.LastHeartbeatTime.Time)
		return c.Nodes.SetNodeCondition(ctx, r.Node, silent)
	case age <= agent.Stale && r.Condition.Status == metav1.ConditionTrue && r.StartupTaint &&
		!heartbeat(r).Equal(c.heard[r.Node]):
		c.Log.InfoContext(ctx, "a node is ready for pods", "node", r.Node)
		return c.Nodes.RemoveTaint(ctx, r.Node, nodev1.StartupTaint)
	}
	return nil
}
