// Package reconcile removes what sandboxes have left of which a runtime sends no DEL: it was
// killed, and has forgotten them.
//
// Contract: a sandbox is removed if its record was there, as it is now, before the first of two
// lists of the runtime, and it is in neither. The lists are at least Apart from each other, of the
// same runtime, and no call between them failed: a runtime lists a sandbox only some time after its
// networks are up. Which runtime made a sandbox, and whether somebody is at work on it, is judged
// by Sandboxes. What could not be finished is tried again, at longer and longer intervals, here and
// never within an operation on another pod.
package reconcile

import (
	"context"
	"log/slog"
	"maps"
	"time"

	"github.com/braid-cni/braid/pkg/agent/cri"
	"github.com/braid-cni/braid/pkg/record"
)

const (
	// Apart is the least time between the two lists by which a sandbox is forgotten.
	Apart = time.Minute
	// Every is the time between two passes, after the second.
	Every = 5 * time.Minute
	// maxWait bounds the time between two tries at a sandbox, which doubles.
	maxWait = time.Hour
	// answerWithin bounds what is asked of the runtime.
	answerWithin = 10 * time.Second
)

// Runtime is the node's container runtime.
type Runtime interface {
	// Sandboxes returns what it knows. A list that may not be all of it is an error.
	Sandboxes(ctx context.Context) (*cri.List, error)
}

// Sandboxes are those that Braid has recorded; engine.Engine is an implementation.
type Sandboxes interface {
	// Recorded returns the marks of all records.
	Recorded() ([]record.Mark, error)
	// RemoveForgotten removes a sandbox that no list has, unless its record was written since it
	// was marked, or another program than that made it.
	RemoveForgotten(ctx context.Context, mark record.Mark, runtime string) (removed bool, err error)
	// Leftovers returns the sandboxes of which something is left that nobody comes back to.
	Leftovers() ([]string, error)
	// Settle removes what it can of one of them.
	Settle(ctx context.Context, containerID string) error
}

// Reconciler is for one goroutine.
type Reconciler struct {
	Runtime   Runtime
	Sandboxes Sandboxes
	Log       *slog.Logger
	// Removed is called for each sandbox that was removed; nil for nobody.
	Removed func()
	// Now is the clock, time.Now if nil.
	Now func() time.Time

	last  *look
	waits map[string]wait
}

// look is what was seen in a pass.
type look struct {
	at time.Time
	// recorded are the records that were there before the runtime was asked.
	recorded map[record.Mark]bool
	list     *cri.List
}

// wait is when a sandbox that could not be removed is tried again.
type wait struct {
	until time.Time
	last  time.Duration
}

// Run passes at once, after Apart, and then at each Every, until ctx is done.
func (r *Reconciler) Run(ctx context.Context) {
	pause := Apart
	for {
		r.Pass(ctx)
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
		pause = Every
	}
}

// Pass asks the runtime once, removes what it has forgotten by this list and the last one, and goes
// on with what is left of other sandboxes.
func (r *Reconciler) Pass(ctx context.Context) {
	r.forgotten(ctx)
	r.leftovers(ctx)
	now := r.now()
	// others removed those
	maps.DeleteFunc(r.waits, func(_ string, w wait) bool { return now.Sub(w.until) > maxWait })
}

// forgotten removes the sandboxes that the runtime knew neither at the last look nor knows now. One
// look is not enough: a sandbox that is being made is in no list yet.
func (r *Reconciler) forgotten(ctx context.Context) {
	now, last, err := r.look(ctx)
	if err != nil {
		r.last = nil
		r.Log.WarnContext(ctx, "sandboxes are not compared with those of the runtime", "error", err)
		return
	}
	if last != nil && now.at.Sub(last.at) < Apart {
		return // the last list counts for the next pass, too
	}
	r.last = now
	if last == nil || last.list.Runtime != now.list.Runtime {
		return
	}
	for mark := range last.recorded {
		if !last.lacks(mark) || !now.lacks(mark) || ctx.Err() != nil {
			continue
		}
		const trouble = "a sandbox that its runtime has forgotten is not removed"
		r.try(ctx, mark.ContainerID, trouble, func() error {
			return r.remove(ctx, mark, now.list.Runtime)
		})
	}
}

// remove removes a sandbox that the runtime has forgotten. Somebody may have removed it already.
func (r *Reconciler) remove(ctx context.Context, mark record.Mark, runtime string) error {
	removed, err := r.Sandboxes.RemoveForgotten(ctx, mark, runtime)
	if removed && r.Removed != nil {
		r.Removed()
	}
	return err
}

// lacks reports whether there is a record of a sandbox that the runtime does not list.
func (l *look) lacks(mark record.Mark) bool {
	return l.recorded[mark] && !l.list.IDs[mark.ContainerID]
}

// look asks the runtime. It returns the last look, too, if there was one.
func (r *Reconciler) look(ctx context.Context) (now, last *look, err error) {
	ctx, cancel := context.WithTimeout(ctx, answerWithin)
	defer cancel()
	now = &look{at: r.now(), recorded: map[record.Mark]bool{}}
	marks, err := r.Sandboxes.Recorded()
	if err != nil {
		return nil, nil, err
	}
	for _, mark := range marks {
		now.recorded[mark] = true
	}
	now.list, err = r.Runtime.Sandboxes(ctx)
	return now, r.last, err
}

func (r *Reconciler) leftovers(ctx context.Context) {
	ids, err := r.Sandboxes.Leftovers()
	if err != nil {
		r.Log.WarnContext(ctx, "some sandboxes that are not finished are not known", "error", err)
	}
	for _, id := range ids {
		if ctx.Err() != nil {
			return
		}
		r.try(ctx, id, "a sandbox that is not finished is not cleaned up", func() error {
			return r.Sandboxes.Settle(ctx, id)
		})
	}
}

// try does something for a sandbox, unless that failed not long ago.
func (r *Reconciler) try(ctx context.Context, id, failed string, do func() error) {
	now := r.now()
	if w, waits := r.waits[id]; waits && now.Before(w.until) {
		return
	}
	err := do()
	if err == nil {
		delete(r.waits, id)
		return
	}
	if r.waits == nil {
		r.waits = map[string]wait{}
	}
	next := min(max(2*r.waits[id].last, Every), maxWait)
	r.waits[id] = wait{now.Add(next), next}
	r.Log.WarnContext(ctx, failed, "container", id, "again in", next, "error", err)
}

func (r *Reconciler) now() time.Time {
	if r.Now == nil {
		return time.Now()
	}
	return r.Now()
}
