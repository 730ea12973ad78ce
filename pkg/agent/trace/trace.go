// Package trace sends spans of the agent's calls to an OpenTelemetry collector.
//
// Contract: the span of a call continues the trace that the runtime passes in TRACEPARENT and
// TRACESTATE (W3C Trace Context, which libcni hands on). Below it is one span for each attachment.
// Spans wait in a bounded queue and are sent after the call: a collector that is slow or away costs
// spans, and no call. They name verb, pod, sandbox, network, interface and plugins, and nothing
// else of a configuration.
package trace

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/braid-cni/braid/pkg/engine"
	"github.com/braid-cni/braid/pkg/failure"
)

// Endpoint is the variable with the URL of the collector, for OTLP over gRPC. The other variables
// of OpenTelemetry's specification work, too.
const Endpoint = "OTEL_EXPORTER_OTLP_ENDPOINT"

// Tracer makes spans. A nil one makes none. It is safe for concurrent use.
type Tracer struct{ provider *sdktrace.TracerProvider }

// New returns a Tracer for the collector that the environment names, nil if it names none. The
// error is that of a setting that cannot be read.
func New(ctx context.Context, version, node string) (*Tracer, error) {
	if os.Getenv(Endpoint) == "" && os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "" {
		return nil, nil //nolint:nilnil // a nil Tracer is one
	}
	exporter, err := otlptracegrpc.New(ctx)
	if err != nil {
		return nil, fmt.Errorf("set up traces as %s says: %w", Endpoint, err)
	}
	about := resource.NewSchemaless(
		attribute.String("service.name", "braid-agent"), attribute.String("service.version", version),
		attribute.String("k8s.node.name", node),
	)
	provider := sdktrace.NewTracerProvider(sdktrace.WithBatcher(exporter),
		sdktrace.WithResource(about))
	return &Tracer{provider}, nil
}

// Stop sends the spans that wait, until ctx is done.
func (t *Tracer) Stop(ctx context.Context) error {
	if t == nil {
		return nil
	}
	return t.provider.Shutdown(ctx)
}

// start begins a span.
func (t *Tracer) start(
	ctx context.Context, name string, options ...trace.SpanStartOption,
) (context.Context, trace.Span) {
	if t == nil {
		return ctx, noop.Span{}
	}
	return t.provider.Tracer("braid").Start(ctx, name, options...)
}

// Call is a call of the CNI protocol.
type Call struct {
	Verb engine.Verb
	// Env returns a variable of the client's environment.
	Env func(name string) string
	// Namespace and Pod may be empty.
	Namespace, Pod, Sandbox string
}

// Start begins the span of a call. The context is for the engine; end is called when the call is
// over.
func (t *Tracer) Start(ctx context.Context, call *Call) (_ context.Context, end func()) {
	ctx = propagation.TraceContext{}.Extract(ctx, environment(call.Env))
	ctx, span := t.start(ctx, string(call.Verb), trace.WithSpanKind(trace.SpanKindServer),
		trace.WithAttributes(
			attribute.String("k8s.namespace.name", call.Namespace),
			attribute.String("k8s.pod.name", call.Pod),
			attribute.String("container.id", call.Sandbox),
		))
	return ctx, func() { span.End() }
}

// Operation implements engine.Observer. The span of the operation is that of its call.
func (t *Tracer) Operation(ctx context.Context, o engine.Operation) {
	fail(trace.SpanFromContext(ctx), o.Err)
}

// Attachment implements engine.Observer.
func (t *Tracer) Attachment(ctx context.Context, a engine.Attachment) {
	end := time.Now()
	_, span := t.start(ctx, string(a.Verb)+" "+a.Planned.IfName,
		trace.WithTimestamp(end.Add(-a.Duration)), trace.WithAttributes(
			attribute.String("braid.network", a.Planned.Name),
			attribute.String("braid.interface", a.Planned.IfName),
			attribute.StringSlice("braid.plugins", a.Plugins),
		))
	fail(span, a.Err)
	span.End(trace.WithTimestamp(end))
}

// Violations implements engine.Observer.
func (t *Tracer) Violations(ctx context.Context, violations []engine.Violation) {
	span := trace.SpanFromContext(ctx)
	for _, v := range violations {
		span.AddEvent("policy", trace.WithAttributes(
			attribute.String("braid.policy.key", v.Key),
			attribute.String("braid.policy.effect", string(v.Effect)),
		))
	}
}

// fail marks a span with the reason of a failure.
func fail(span trace.Span, err error) {
	if err == nil {
		return
	}
	span.SetStatus(codes.Error, string(failure.ReasonOf(err)))
	span.RecordError(err)
}

// environment reads trace context from environment variables, whose names are upper case.
type environment func(name string) string

// Get implements propagation.TextMapCarrier.
func (e environment) Get(key string) string { return e(strings.ToUpper(key)) }

// Set implements propagation.TextMapCarrier. Nothing is written to the client's environment.
func (e environment) Set(string, string) {}

// Keys implements propagation.TextMapCarrier.
func (e environment) Keys() []string { return nil }
