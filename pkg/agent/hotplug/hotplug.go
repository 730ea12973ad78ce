// Package hotplug decides when the networks of a node's running pods are brought to what their
// annotations ask for.
//
// Contract: each pod is looked at by one goroutine at a time, with its latest annotation; what
// fails is tried again, at longer and longer intervals, until it succeeds or the pod changes. A pod
// that has what it asks for costs nothing until its annotation changes.
package hotplug

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

const (
	// atOnce is how many pods are changed at a time: one whose plugins hang keeps the next from
	// its turn.
	atOnce = 4
	// firstWait and maxWait bound the time between two tries at a pod, which doubles.
	firstWait = 10 * time.Second
	maxWait   = 5 * time.Minute
)

// Controller is for the pods of one node. Changed and Gone may be called at any time, and do not
// block.
type Controller struct {
	// Update brings a pod to what it asks for. settled is that it has that; if it is false without
	// an error, the pod is not Braid's, or not yet, and is looked at when it changes.
	Update func(ctx context.Context, pod *metav1.ObjectMeta) (settled bool, err error)
	Log    *slog.Logger

	mu   sync.Mutex
	pods map[types.UID]*entry
	wake chan struct{}
}

// entry is a pod.
type entry struct {
	pod *metav1.ObjectMeta
	// due is when it is to be looked at; zero for not.
	due  time.Time
	wait time.Duration
	// busy is that it is being looked at.
	busy bool
	// settled is the annotation that was brought about; nil for none.
	settled *string
}

// Changed says how a pod is now.
func (c *Controller) Changed(pod *metav1.ObjectMeta) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e := c.entry(pod.UID)
	was := e.pod
	e.pod = pod
	asked := pod.Annotations[nadv1.NetworksAnnotation]
	switch {
	case pod.DeletionTimestamp != nil: // its DEL is on its way
		e.due = time.Time{}
		return
	case e.settled != nil && *e.settled == asked:
		return
	case e.wait > 0 && was != nil && was.Annotations[nadv1.NetworksAnnotation] == asked:
		return // it is waiting for another try at the same
	}
	e.due, e.wait = time.Now(), 0
	c.signal()
}

// entry returns the entry of a pod, a new one if it has none. The lock is held.
func (c *Controller) entry(uid types.UID) *entry {
	e := c.pods[uid]
	if e == nil {
		e = &entry{}
		if c.pods == nil {
			c.pods = map[types.UID]*entry{}
		}
		c.pods[uid] = e
	}
	return e
}

// Gone says that a pod is not there any more.
func (c *Controller) Gone(pod *metav1.ObjectMeta) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pods, pod.UID)
}

// signal wakes Run. The lock is held.
func (c *Controller) signal() {
	if c.wake == nil {
		c.wake = make(chan struct{}, 1)
	}
	select {
	case c.wake <- struct{}{}:
	default: // it is awake already
	}
}

// Run looks at pods until ctx is done, and returns when all that it began has come to its end.
func (c *Controller) Run(ctx context.Context) {
	var group errgroup.Group
	group.SetLimit(atOnce)
	defer group.Wait() //nolint:errcheck // it has none
	c.mu.Lock()
	c.signal()
	wake := c.wake
	c.mu.Unlock()
	for {
		uid, wait := c.next()
		if uid != "" {
			group.Go(func() error { c.look(ctx, uid); return nil })
			continue
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-wake:
			timer.Stop()
		case <-timer.C:
		}
	}
}

// next takes a pod that is due, or returns how long there is none.
func (c *Controller) next() (uid types.UID, wait time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	wait = maxWait
	now := time.Now()
	for uid, e := range c.pods {
		switch {
		case e.busy || e.due.IsZero():
		case e.due.After(now):
			wait = min(wait, e.due.Sub(now))
		default:
			e.busy, e.due, e.settled = true, time.Time{}, nil
			return uid, 0
		}
	}
	return "", wait
}

// look brings a pod to what it asks for.
func (c *Controller) look(ctx context.Context, uid types.UID) {
	c.mu.Lock()
	e := c.pods[uid]
	if e == nil || ctx.Err() != nil {
		c.mu.Unlock()
		return
	}
	pod := e.pod
	c.mu.Unlock()
	settled, err := c.Update(ctx, pod)
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.signal()
	e.busy = false
	switch {
	case err != nil:
		e.wait = min(max(2*e.wait, firstWait), maxWait)
		if e.due.IsZero() && e.pod.DeletionTimestamp == nil { // it has not changed meanwhile
			e.due = time.Now().Add(e.wait)
		}
		c.Log.WarnContext(ctx, "networks of a running pod are not what it asks for",
			"pod", pod.Namespace+"/"+pod.Name, "again in", e.wait, "error", err)
	case settled:
		asked := pod.Annotations[nadv1.NetworksAnnotation]
		e.settled, e.wait = &asked, 0
	default:
		e.wait = 0
	}
}
