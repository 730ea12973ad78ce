package main

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// patience is how long a trouble lasts before it is worth an event. At an agent's start the
	// credential is missing for a moment.
	patience = 5 * time.Second
	// maxEvents is how many events wait for an API server that is slow or away; more are lost.
	maxEvents = 16
)

// event is what is said about the node. It is a warning.
type event struct{ reason, message string }

// tell has an event raised on the node. It does not wait: what has to be repaired on the node is,
// also while the API server is away.
func (a *daemon) tell(reason, message string) {
	select {
	case a.events <- event{reason, message}:
	default:
		a.log.Warn("event not raised, as too many are waiting", "reason", reason, "message", message)
	}
}

// tellAll raises events until ctx is done. `kubectl describe node` finds them by the node's name.
func (a *daemon) tellAll(ctx context.Context) {
	of := &metav1.ObjectMeta{Name: a.o.nodeName, UID: types.UID(a.o.nodeName)}
	for {
		select {
		case <-ctx.Done():
			return
		case e := <-a.events:
			if err := a.api.NodeEvent(ctx, of, "Warning", e.reason, e.message); err != nil {
				a.log.WarnContext(ctx, "event not raised",
					"reason", e.reason, "message", e.message, "error", err)
			}
		}
	}
}

// trouble is an error that lasts.
type trouble struct {
	text  string // empty if all is well
	since time.Time
	told  bool
}

// worthEvent reports, once for each text, whether an error has lasted for long enough.
func (t *trouble) worthEvent(err error, now time.Time) bool {
	if err == nil {
		*t = trouble{}
		return false
	}
	if err.Error() != t.text {
		*t = trouble{text: err.Error(), since: now}
	}
	due := !t.told && now.Sub(t.since) >= patience
	t.told = t.told || due
	return due
}
