package engine

import (
	"context"
	"errors"
	"time"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/policy"
	"github.com/braid-cni/braid/pkg/record"
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
	Operation(Operation)
	// Attachment is called for each chain that was run for an attachment, within its operation: on
	// DEL and GC, what clears up after an earlier ADD is a DEL, too.
	Attachment(Attachment)
	// Violation is called for each thing of an ADD that the policy does not allow.
	Violation(Violation)
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
	// Key is that of the rule.
	Key string
	// Effect is policy.Enforce if it is refused, policy.Audit if it is warned of.
	Effect policy.Effect
}

// operationDone tells of the end of a whole operation: a line of the log, and the observer.
func (e *Engine) operationDone(ctx context.Context, verb Verb, start time.Time, err error, attrs ...any) {
	duration := time.Since(start)
	if e.Observer != nil {
		e.Observer.Operation(Operation{verb, duration, err})
	}
	attrs = append(attrs, "duration", duration.Round(time.Microsecond))
	switch {
	case err != nil:
		if fe, ok := errors.AsType[*failure.Error](err); ok {
			attrs = append(attrs, "reason", fe.Reason, "network", fe.NAD, "interface", fe.Interface, "plugin", fe.Plugin)
		}
		e.Log.ErrorContext(ctx, string(verb)+" failed", append(attrs, "code", failure.Code(err), "error", err)...)
	case verb != Status: // runtimes ask for it every few seconds
		e.Log.InfoContext(ctx, string(verb), attrs...)
	}
}

// chainDone tells of the end of what an operation does for one attachment. The log has what
// succeeded: a failure travels up to its operation and is logged there.
func (e *Engine) chainDone(ctx context.Context, verb Verb, sandbox *sandbox, pod record.Pod, a *plan.Attachment, start time.Time, err error) {
	duration := time.Since(start)
	if e.Observer != nil {
		e.Observer.Attachment(Attachment{Operation{verb, duration, err}, a, sandbox.types(a)})
	}
	if text := map[Verb]string{Add: "attach", Del: "detach"}[verb]; text != "" && err == nil {
		e.Log.InfoContext(
			ctx, text, "pod", pod.String(), "network", a.Name, "interface", a.IfName, "duration", duration.Round(time.Microsecond),
		)
	}
}

// types are those of the plugins of an attachment's chain; none if it cannot be read.
func (s *sandbox) types(a *plan.Attachment) (kinds []string) {
	list, err := s.list(a)
	if err != nil {
		return nil
	}
	for _, p := range list.Plugins {
		kinds = append(kinds, p.Network.Type)
	}
	return kinds
}
