package engine

import (
	"context"
	"errors"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/policy"
	"github.com/braid-cni/braid/pkg/record"
	"github.com/braid-cni/braid/pkg/resolve"
)

// Verb is an operation of the CNI protocol.
type Verb string

// The operations of CNI 1.1 on networks.
const (
	Add    Verb = "ADD"
	Del    Verb = "DEL"
	Check  Verb = "CHECK"
	GC     Verb = "GC"
	Status Verb = "STATUS"
)

// Reconcile is what is done for a sandbox that its runtime has forgotten. It is no verb of CNI.
const Reconcile Verb = "RECONCILE"

// Update is what is done for a running pod whose annotation has changed. It is no verb of CNI.
const Update Verb = "UPDATE"

// Operator performs the operations of the CNI protocol. Engine is one; who hands requests to the
// engine of another process is another.
type Operator interface {
	// Add returns the result of the default network.
	Add(ctx context.Context, req *Request) (types.Result, error)
	Del(ctx context.Context, req *Request) error
	Check(ctx context.Context, req *Request) error
	GC(ctx context.Context, req *Request) error
	Status(ctx context.Context, req *Request) error
}

var _ Operator = (*Engine)(nil)

// Observer is told of what an engine has done, for metrics. It is called from several goroutines
// and does not block.
type Observer interface {
	// Operation is called once for each operation, when it has ended.
	Operation(context.Context, Operation)
	// Attachment is called for each chain that was run for an attachment, within its operation: on
	// DEL and GC, what clears up after an earlier ADD is a DEL, too.
	Attachment(context.Context, Attachment)
	// Violations is called with all of an ADD that the policy does not allow, or what a plugin refused
	// to do to the node; not with nothing.
	Violations(context.Context, []Violation)
}

// Observers calls each of several observers.
type Observers []Observer

// Operation implements Observer.
func (all Observers) Operation(ctx context.Context, o Operation) {
	for _, one := range all {
		one.Operation(ctx, o)
	}
}

// Attachment implements Observer.
func (all Observers) Attachment(ctx context.Context, a Attachment) {
	for _, one := range all {
		one.Attachment(ctx, a)
	}
}

// Violations implements Observer.
func (all Observers) Violations(ctx context.Context, v []Violation) {
	for _, one := range all {
		one.Violations(ctx, v)
	}
}

// Operation is an operation that has ended.
type Operation struct {
	Verb     Verb
	Duration time.Duration
	// Err is nil for success.
	Err error
}

// Attachment is the part of an operation, ADD, DEL or CHECK, that is about one attachment.
type Attachment struct {
	Operation
	// Planned is not to be changed.
	Planned *plan.Attachment
	// Plugins are the types of the chain's plugins, in their order.
	Plugins []string
}

// Violation is something that the policy does not allow.
type Violation struct {
	// Key is the key of the rule, or NodeKey.
	Key string
	// Effect is policy.Enforce if it is refused, policy.Audit if it is warned of.
	Effect policy.Effect
}

// NodeKey is the key of what only a plugin found out, when it looked at the node.
const NodeKey = "node"

// maxRefusals bounds the lines of the log about what one ADD is refused.
const maxRefusals = 16

// judged logs and counts what the policy does not allow. What is refused has a line each in the
// log. What is audited is a warning of its attachment, which is logged with that.
func (e *Engine) judged(ctx context.Context, pod *metav1.ObjectMeta, judged []resolve.Judged) {
	var all []Violation
	refused := 0
	for _, j := range judged {
		all = append(all, Violation{Key: j.Key, Effect: j.Effect})
		if j.Effect != policy.Enforce {
			continue
		}
		refused++
		if refused <= maxRefusals {
			e.refused(ctx, pod, "network", j.NAD, "interface", j.IfName, "plugin", j.Plugin, "field",
				j.Field, "rule", j.Name, "key", j.Key, "what", j.What)
		}
	}
	if refused > maxRefusals {
		e.refused(ctx, pod, "more", refused-maxRefusals)
	}
	if e.Observer != nil && len(all) > 0 {
		e.Observer.Violations(ctx, all)
	}
}

// protected logs and counts an ADD that failed because a plugin must not do to the node what it was
// to do.
func (e *Engine) protected(ctx context.Context, pod *metav1.ObjectMeta, err error) {
	fe, ok := errors.AsType[*failure.Error](err)
	if !ok || fe.Reason != failure.NodeProtected && fe.Reason != failure.PolicyRefused {
		return
	}
	e.refused(ctx, pod, "network", fe.NAD, "interface", fe.Interface, "plugin", fe.Plugin, "field",
		fe.Field, "key", NodeKey, "what", fe.Err)
	if e.Observer != nil {
		e.Observer.Violations(ctx, []Violation{{Key: NodeKey, Effect: policy.Enforce}})
	}
}

// refused is a line of the log for those who watch over tenants.
func (e *Engine) refused(ctx context.Context, pod *metav1.ObjectMeta, attrs ...any) {
	name := record.Pod{}
	if pod != nil {
		name = record.Pod{Namespace: pod.Namespace, Name: pod.Name}
	}
	e.Log.WarnContext(ctx, "refused by policy", append([]any{"pod", name.String()}, attrs...)...)
}

// operationDone logs the end of a whole operation, and calls the observer.
func (e *Engine) operationDone(
	ctx context.Context, verb Verb, start time.Time, err error, attrs ...any,
) {
	duration := time.Since(start)
	if e.Observer != nil {
		e.Observer.Operation(ctx, Operation{verb, duration, err})
	}
	attrs = append(attrs, "duration", duration.Round(time.Microsecond))
	switch {
	case err != nil:
		if fe, ok := errors.AsType[*failure.Error](err); ok {
			attrs = append(attrs, "reason", fe.Reason, "network", fe.NAD, "interface", fe.Interface,
				"plugin", fe.Plugin)
		}
		e.Log.ErrorContext(ctx, string(verb)+" failed",
			append(attrs, "code", failure.Code(err), "error", err)...)
	case verb != Status: // runtimes ask for it every few seconds
		e.Log.InfoContext(ctx, string(verb), attrs...)
	}
}

// chainDone logs the success of an operation for one attachment, and calls the observer. A failure
// is logged by the whole operation.
func (w *work) chainDone(
	ctx context.Context, verb Verb, a *plan.Attachment, start time.Time, err error,
) {
	duration := time.Since(start)
	if w.Observer != nil {
		w.Observer.Attachment(ctx, Attachment{Operation{verb, duration, err}, a, w.sandbox.types(a)})
	}
	if text := map[Verb]string{Add: "attach", Del: "detach"}[verb]; text != "" && err == nil {
		w.Log.InfoContext(
			ctx, text, "pod", w.rec.Pod.String(), "network", a.Name, "interface", a.IfName, "duration",
			duration.Round(time.Microsecond),
		)
	}
}

// types returns those of the plugins of an attachment's chain; none if it cannot be read.
func (s *sandbox) types(a *plan.Attachment) (kinds []string) {
	list, err := s.lists.of(a.Conf)
	if err != nil {
		return nil
	}
	for _, p := range list.Plugins {
		kinds = append(kinds, p.Network.Type)
	}
	return kinds
}
