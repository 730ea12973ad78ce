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

// events sends the events of one operation beside it: an ADD does not wait for the API server to
// store them, nor does it fail if it does not.
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

func (ev *events) about(pod *metav1.ObjectMeta) {
	if pod != nil {
		ev.pod = pod
	}
}

// attached tells of one attachment.
func (ev *events) attached(r status.Result) {
	ips := status.Build([]status.Result{r})[0].IPs
	ev.send("Normal", reasonAttached, fmt.Sprintf("Add %s [%s] from %s",
		r.Attachment.IfName, strings.Join(ips, " "), r.Attachment.Name))
}

// warn logs the warnings of an attachment and, if the pod is told of its attachments, sends those
// that are news. A pod without networks of its own has nothing to do with its default network's,
// and costs no event.
func (ev *events) warn(a *plan.Attachment, told bool) {
	for _, w := range a.Warnings {
		ev.engine.Log.WarnContext(ev.ctx, w.Error(),
			"reason", w.Reason, "network", w.NAD, "interface", w.Interface)
		if told && ev.pod != nil && ev.news(w) {
			ev.send("Warning", string(w.Reason), w.Error())
		}
	}
}

// news reports whether a warning is to be an event. What the policy has against a NAD is the same
// for each of its pods: it is said once in a while on each node.
func (ev *events) news(w *failure.Error) bool {
	return w.Reason != failure.PolicyAudited || ev.engine.Said == nil ||
		ev.engine.Said.First(ev.ctx, string(w.Reason)+" "+w.NAD)
}

// failed tells of the failure of the operation, unless it is that the pod is gone or that nobody
// could be told.
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

// wait ends with the last event sent, or after the grace.
func (ev *events) wait() {
	timer := time.AfterFunc(eventGrace, ev.cancel)
	ev.done.Wait()
	timer.Stop()
	ev.cancel()
}
