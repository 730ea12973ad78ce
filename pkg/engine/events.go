package engine

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/status"
	"github.com/braid-cni/braid/pkg/strictjson"
)

const (
	reasonAttached = "AddedInterface"
	// eventGrace is how long an operation waits, after its end, for events that are under way.
	eventGrace = time.Second
)

// events sends the events of one operation in the background. An ADD neither waits for the API
// server to store them nor fails if it does not.
type events struct {
	engine *Engine
	ctx    context.Context //nolint:containedctx // it lives as long as the operation
	cancel context.CancelFunc
	pod    *metav1.ObjectMeta
	done   sync.WaitGroup
}

// newEvents begins with what the runtime knows of the pod; about adds its uid.
func (e *Engine) newEvents(ctx context.Context, namespace, name string) *events {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ev := &events{engine: e, ctx: ctx, cancel: cancel}
	if name != "" {
		ev.pod = &metav1.ObjectMeta{Namespace: namespace, Name: name}
	}
	return ev
}

// about names the pod that events are sent about from now on; nil changes nothing.
func (ev *events) about(pod *metav1.ObjectMeta) {
	if pod != nil {
		ev.pod = pod
	}
}

// attached sends the event of one attachment.
func (ev *events) attached(r status.Result) {
	ips := status.Build([]status.Result{r})[0].IPs
	ev.send("Normal", reasonAttached, fmt.Sprintf("Add %s [%s] from %s",
		r.Attachment.IfName, strings.Join(ips, " "), r.Attachment.Name))
}

// warn logs the warnings of an attachment. If the pod is told of its attachments, it sends those
// that are new as events. A pod with the default network alone gets none.
func (ev *events) warn(a *plan.Attachment, told bool) {
	for _, w := range a.Warnings {
		ev.engine.Log.WarnContext(ev.ctx, w.Error(),
			"reason", w.Reason, "network", w.NAD, "interface", w.Interface)
		if told && ev.pod != nil && ev.news(w) {
			ev.send("Warning", string(w.Reason), w.Error())
		}
	}
}

// news reports whether a warning is to be an event. What the policy objects to in a NAD is the same
// for each of its pods, so it is an event once in a while on each node.
func (ev *events) news(w *failure.Error) bool {
	return w.Reason != failure.PolicyAudited || ev.engine.Said == nil ||
		ev.engine.Said.First(ev.ctx, string(w.Reason)+" "+w.NAD)
}

// failed sends the event of a failed operation, unless the pod is gone or the API server is away.
func (ev *events) failed(err error) {
	reason := failure.ReasonOf(err)
	if ev.pod == nil || reason == failure.PodNotFound || reason == failure.APIUnavailable {
		return
	}
	if reason == "" {
		reason = failure.PluginFailed
	}
	ev.send("Warning", string(reason), err.Error())
}

// send sends an event, whose message people read in a terminal.
func (ev *events) send(eventType, reason, message string) {
	pod, message := ev.pod, strictjson.Printable(message)
	ev.done.Go(func() {
		err := ev.engine.Reporter.Event(ev.ctx, pod, eventType, reason, message)
		if err != nil && !errors.Is(err, context.Canceled) {
			ev.engine.Log.WarnContext(ev.ctx, "event not recorded",
				"pod", pod.Namespace+"/"+pod.Name, "reason", reason, "error", err)
		}
	})
}

// wait waits for the events that are under way, for eventGrace at most.
func (ev *events) wait() {
	timer := time.AfterFunc(eventGrace, ev.cancel)
	ev.done.Wait()
	timer.Stop()
	ev.cancel()
}
