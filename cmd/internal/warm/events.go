package warm

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/pkg/engine"
)

const (
	// maxEvents is how many events wait for an API server that is slow or away; more are lost.
	maxEvents = 1024
	// eventSenders is how many are sent at once.
	eventSenders = 2
)

func (w *Engines) queue() chan func(context.Context) {
	w.once.Do(func() { w.events = make(chan func(context.Context), maxEvents) })
	return w.events
}

// SendEvents sends the events of calls until ctx is done.
func (w *Engines) SendEvents(ctx context.Context) {
	var all sync.WaitGroup
	for range eventSenders {
		all.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case send := <-w.queue():
					send(ctx)
				}
			}
		})
	}
	all.Wait()
}

// later is a reporter whose calls do not wait for their events.
type later struct {
	engine.Reporter
	queue chan func(context.Context)
	log   *slog.Logger
}

// Event has the event be sent after the call, which would share the API server with it.
func (l *later) Event(
	ctx context.Context, pod *metav1.ObjectMeta, eventType, reason, message string,
) error {
	send := func(ctx context.Context) {
		if err := l.Reporter.Event(ctx, pod, eventType, reason, message); err != nil {
			l.log.WarnContext(ctx, "event not recorded",
				"pod", pod.Namespace+"/"+pod.Name, "reason", reason, "error", err)
		}
	}
	afterCall(ctx, func() {
		select {
		case l.queue <- send:
		default:
			l.log.Warn("event not recorded", "pod", pod.Namespace+"/"+pod.Name, "reason", reason,
				"error", fmt.Sprintf("%d events are waiting already", maxEvents))
		}
	})
	return nil
}
