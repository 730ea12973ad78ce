// Package tracetest is a collector of OpenTelemetry's spans, for tests.
package tracetest

import (
	"context"
	"maps"
	"net"
	"sync"
	"testing"

	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	trace "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// Collector keeps the spans that it gets.
type Collector struct {
	collector.UnimplementedTraceServiceServer

	mu    sync.Mutex
	spans map[string]*trace.Span
}

// Collect starts a collector that ends with the test, and returns its URL.
func Collect(tb testing.TB) (c *Collector, endpoint string) {
	tb.Helper()
	l, err := new(net.ListenConfig).Listen(tb.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	c = &Collector{spans: map[string]*trace.Span{}}
	s := grpc.NewServer()
	collector.RegisterTraceServiceServer(s, c)
	go s.Serve(l) //nolint:errcheck // it ends with the test
	tb.Cleanup(s.Stop)
	return c, "http://" + l.Addr().String()
}

// Spans returns the last span of each name.
func (c *Collector) Spans() map[string]*trace.Span {
	c.mu.Lock()
	defer c.mu.Unlock()
	return maps.Clone(c.spans)
}

// Export implements the service.
func (c *Collector) Export(
	_ context.Context, req *collector.ExportTraceServiceRequest,
) (*collector.ExportTraceServiceResponse, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, resource := range req.GetResourceSpans() {
		for _, scope := range resource.GetScopeSpans() {
			for _, span := range scope.GetSpans() {
				c.spans[span.GetName()] = span
			}
		}
	}
	return &collector.ExportTraceServiceResponse{}, nil
}

// Texts returns the attributes that are text.
func Texts(attributes []*common.KeyValue) map[string]string {
	all := map[string]string{}
	for _, a := range attributes {
		all[a.GetKey()] = a.GetValue().GetStringValue()
	}
	return all
}
