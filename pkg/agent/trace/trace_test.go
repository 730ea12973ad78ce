package trace_test

import (
	"context"
	"encoding/hex"
	"errors"
	"maps"
	"slices"
	"testing"
	"time"

	spans "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/braid-cni/braid/pkg/agent/trace"
	"github.com/braid-cni/braid/pkg/agent/trace/tracetest"
	"github.com/braid-cni/braid/pkg/engine"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/policy"
)

const (
	traceID = "0af7651916cd43dd8448eb211c80319c"
	parent  = "b7ad6b7169203331"
)

// call is one with a trace.
func call() *trace.Call {
	env := map[string]string{"TRACEPARENT": "00-" + traceID + "-" + parent + "-01"}
	return &trace.Call{
		Verb: engine.Add, Env: func(name string) string { return env[name] },
		Namespace: "team", Pod: "p", Sandbox: "id",
	}
}

// attach does what an engine does with an observer.
func attach(ctx context.Context, t *trace.Tracer, err error) {
	t.Violations(ctx, []engine.Violation{{Key: "masters", Effect: policy.Audit}})
	t.Attachment(ctx, engine.Attachment{
		Operation: engine.Operation{Verb: engine.Add, Duration: time.Second, Err: err},
		Planned:   &plan.Attachment{Name: "team/lan", IfName: "net1"},
		Plugins:   []string{"macvlan", "sbr"},
	})
	t.Operation(ctx, engine.Operation{Verb: engine.Add, Duration: time.Second, Err: err})
}

func TestSpans(t *testing.T) {
	c, endpoint := tracetest.Collect(t)
	t.Setenv(trace.Endpoint, endpoint)
	tracer, err := trace.New(t.Context(), "v1", "node-1")
	if err != nil {
		t.Fatal(err)
	}
	ctx, end := tracer.Start(t.Context(), call())
	failed := &failure.Error{Reason: failure.PluginFailed, Err: errors.New("the range is used up")}
	attach(ctx, tracer, failed)
	end()
	if err := tracer.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	all := c.Spans()
	whole, part := all["ADD"], all["ADD net1"]
	if whole == nil || part == nil {
		t.Fatalf("there are the spans %v", slices.Sorted(maps.Keys(all)))
	}
	if got := hex.EncodeToString(whole.GetTraceId()); got != traceID {
		t.Errorf("the trace is %s, want the runtime's %s", got, traceID)
	}
	if got := hex.EncodeToString(whole.GetParentSpanId()); got != parent {
		t.Errorf("the parent is %s, want the runtime's span %s", got, parent)
	}
	if string(part.GetParentSpanId()) != string(whole.GetSpanId()) {
		t.Error("the attachment's span is not below that of its call")
	}
	got := time.Duration(part.GetEndTimeUnixNano() - part.GetStartTimeUnixNano())
	if got.Round(time.Millisecond) != time.Second {
		t.Errorf("the attachment took %v, want 1 s", got)
	}
	if got := tracetest.Texts(whole.GetAttributes()); got["k8s.pod.name"] != "p" ||
		got["k8s.namespace.name"] != "team" || got["container.id"] != "id" {
		t.Errorf("the call's attributes are %v", got)
	}
	if got := tracetest.Texts(part.GetAttributes()); got["braid.network"] != "team/lan" ||
		got["braid.interface"] != "net1" {
		t.Errorf("the attachment's attributes are %v", got)
	}
	for name, span := range all {
		if got := span.GetStatus(); got.GetCode() != spans.Status_STATUS_CODE_ERROR ||
			got.GetMessage() != string(failure.PluginFailed) {
			t.Errorf("%s has the status %v", name, got)
		}
	}
	if events := whole.GetEvents(); len(events) != 2 ||
		tracetest.Texts(events[0].GetAttributes())["braid.policy.key"] != "masters" {
		t.Errorf("the call's events are %v", events)
	}
}

// TestNoCollector: without a collector there are no spans, and one that is away holds nothing up.
func TestNoCollector(t *testing.T) {
	for name, endpoint := range map[string]string{"none": "", "away": "http://127.0.0.1:1"} {
		t.Run(name, func(t *testing.T) {
			t.Setenv(trace.Endpoint, endpoint)
			tracer, err := trace.New(t.Context(), "v1", "node-1")
			if err != nil {
				t.Fatal(err)
			}
			start := time.Now()
			for range 10_000 { // more than the queue takes
				ctx, end := tracer.Start(t.Context(), call())
				attach(ctx, tracer, nil)
				end()
			}
			t.Logf("%v for each call", time.Since(start)/10_000)
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			tracer.Stop(ctx) //nolint:errcheck // nobody is there
		})
	}
}
