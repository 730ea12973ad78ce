// Package metrics shows an agent to Prometheus.
//
// Contract: a registry of its own, so that no library adds to it; no label has as many values as
// there are pods. Names begin with braid_, and times are in seconds.
package metrics

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/braid-cni/braid/pkg/engine"
	"github.com/braid-cni/braid/pkg/policy"
)

// closeWithin is how long requests that are being answered may take when the server ends.
const closeWithin = time.Second

// Metrics are those of one agent. New makes them.
type Metrics struct {
	registry  *prometheus.Registry
	ready     prometheus.Gauge
	expires   prometheus.Gauge
	missed    prometheus.Gauge
	repairs   *prometheus.CounterVec
	calls     *prometheus.CounterVec
	fallbacks *prometheus.CounterVec
	waiting   prometheus.Gauge
	working   prometheus.Gauge
	// reconciled counts sandboxes.
	reconciled prometheus.Counter

	operations, attachments *prometheus.HistogramVec
	// hotplugs counts changes of running pods.
	hotplugs             *prometheus.CounterVec
	owed                 prometheus.Gauge
	synced, blocks, free *prometheus.GaugeVec
	room                 *prometheus.GaugeVec
}

// New returns the metrics of an agent of that version.
func New(version string) *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		ready: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "braid_node_ready",
			Help: "1 if pods of the node get their networks, as the condition BraidReady.",
		}),
		expires: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "braid_credential_expiry_timestamp_seconds",
			Help: "When the CNI plugin's credential ends; 0 if there is none yet.",
		}),
		missed: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "braid_unattached_pods",
			Help: "Pods of the node that ask for networks and were started without Braid.",
		}),
		repairs: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "braid_installation_drifts_total",
			Help: "Installed files that somebody else changed, by what became of them.",
		}, []string{"cause"}),
		calls: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "braid_calls_total",
			Help: "Calls of the CNI plugin's client that the agent has accepted, or refused and left to " +
				"the client.",
		}, []string{"result"}),
		fallbacks: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "braid_fallbacks_total",
			Help: "Calls that the CNI plugin did without the agent, by what its client noted.",
		}, []string{"reason"}),
		waiting: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "braid_calls_waiting", Help: "Calls that wait for their turn.",
		}),
		working: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "braid_calls_working", Help: "Calls that the agent is at work on.",
		}),
		reconciled: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "braid_reconciled_sandboxes_total",
			Help: "Sandboxes that were removed since their runtime had forgotten them.",
		}),
	}
	m.addOperations()
	m.addAddresses()
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "braid_build_info", Help: "1, with the agent's version.",
		ConstLabels: prometheus.Labels{"version": version},
	})
	build.Set(1)
	m.registry.MustRegister(
		build, m.ready, m.expires, m.missed, m.repairs, m.calls, m.fallbacks, m.waiting, m.working,
		m.reconciled, m.operations, m.attachments,
		m.hotplugs, m.owed, m.synced, m.blocks, m.free, m.room,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

// Gatherer reads all metrics as they are now.
func (m *Metrics) Gatherer() prometheus.Gatherer { return m.registry }

// Ready is whether pods get their networks.
func (m *Metrics) Ready(ready bool) {
	m.ready.Set(0)
	if ready {
		m.ready.Set(1)
	}
}

// CredentialExpires is when the CNI plugin's credential ends.
func (m *Metrics) CredentialExpires(at time.Time) { m.expires.Set(float64(at.Unix())) }

// Unattached is the number of pods that were started without Braid.
func (m *Metrics) Unattached(pods int) { m.missed.Set(float64(pods)) }

// Drifted is called for each installed file that somebody changed.
func (m *Metrics) Drifted(cause string) { m.repairs.WithLabelValues(cause).Inc() }

// Accepted is called for each call of a client that the agent does.
func (m *Metrics) Accepted() { m.calls.WithLabelValues("accepted").Inc() }

// Refused is called for each call that is left to its client.
func (m *Metrics) Refused() { m.calls.WithLabelValues("refused").Inc() }

// Queue is how many calls wait, and how many are at work.
func (m *Metrics) Queue(waiting, working int) {
	m.waiting.Set(float64(waiting))
	m.working.Set(float64(working))
}

// Fallbacks is called with calls that were done without the agent.
func (m *Metrics) Fallbacks(reason string, calls int) {
	m.fallbacks.WithLabelValues(reason).Add(float64(calls))
}

// Violations has what the policy does not allow be shown, as read counts it, by the key of the rule
// and by what becomes of it.
func (m *Metrics) Violations(read func() map[engine.Violation]uint64) {
	m.registry.MustRegister(violations{read, prometheus.NewDesc(
		"braid_policy_violations_total",
		"Things that the policy did not allow to networks of pods since the node started, by the key "+
			"of the rule and by what became of them: enforce is refused, audit is a warning.",
		[]string{"key", "effect"}, nil,
	)})
}

// violations is a prometheus.Collector of what processes count that live for one call.
type violations struct {
	read func() map[engine.Violation]uint64
	desc *prometheus.Desc
}

func (v violations) Describe(all chan<- *prometheus.Desc) { all <- v.desc }

// Collect passes over keys that no rule has: the counts are in a file.
func (v violations) Collect(all chan<- prometheus.Metric) {
	known := append(policy.Keys(), engine.NodeKey, "")
	for violation, count := range v.read() {
		if slices.Contains(known, violation.Key) {
			all <- prometheus.MustNewConstMetric(v.desc, prometheus.CounterValue, float64(count),
				violation.Key, string(violation.Effect))
		}
	}
}

// Reconciled is called for each sandbox that was removed since its runtime had forgotten it.
func (m *Metrics) Reconciled() { m.reconciled.Inc() }

// Serve answers GET /metrics on the listener until ctx is done.
func (m *Metrics) Serve(ctx context.Context, listener net.Listener) error {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(listener) }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	closing, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeWithin)
	defer cancel()
	if err := server.Shutdown(closing); err != nil {
		return err
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
