package metrics

import (
	"context"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/braid-cni/braid/pkg/engine"
	"github.com/braid-cni/braid/pkg/failure"
)

// The ways in which an operation is done.
const (
	// ModeAgent is that a runtime's call came by the agent's socket, or that the agent acted on its
	// own.
	ModeAgent = "agent"
	// ModeStandalone is that the CNI plugin did it without the agent.
	ModeStandalone = "standalone"
)

// result is that of an operation that succeeded; one that failed has the reason of its failure.
const (
	resultOK     = "ok"
	resultFailed = "Failed"
)

// addOperations makes what is measured of an engine.
func (m *Metrics) addOperations() {
	// From a call that has nothing to do to the end of braid.timeouts.operation.
	buckets := []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 90}
	m.operations = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "braid_operation_duration_seconds", Buckets: buckets,
		Help: "Operations on pods as a whole, by CNI's verb, RECONCILE or UPDATE, by who did them, and " +
			"by what became of them.",
	}, []string{"verb", "mode", "result"})
	m.attachments = prometheus.NewHistogramVec(prometheus.HistogramOpts{
		Name: "braid_attachment_duration_seconds", Buckets: buckets,
		Help: "The part of an operation that is about one attachment, by the type of its first plugin.",
	}, []string{"verb", "plugin", "mode", "result"})
	m.hotplugs = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "braid_hotplugs_total",
		Help: "Changes of the networks of running pods, by what became of them.",
	}, []string{"result"})
	m.owed = prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "braid_owed_attachments",
		Help: "Attachments of pods that are gone whose plugins refuse to remove them.",
	})
	m.synced = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "braid_informer_synced", Help: "1 if the agent has all objects of a resource at hand.",
	}, []string{"resource"})
}

// addAddresses makes what is measured of cluster-wide addresses.
func (m *Metrics) addAddresses() {
	m.blocks = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "braid_ipam_blocks",
		Help: "Blocks of addresses that the node owns, by the space that they are of.",
	}, []string{"space"})
	m.free = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "braid_ipam_free_addresses",
		Help: "Addresses of these blocks that pods can get, as last written into the blocks' status.",
	}, []string{"space"})
	m.room = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "braid_network_room",
		Help: "Attachments that the node could still make of a network whose NAD asks for scheduling, " +
			"at most 10000.",
	}, []string{"network"})
}

// Room is how many more attachments of networks, "namespace/name", the node can make.
func (m *Metrics) Room(networks map[string]uint64) {
	m.room.Reset()
	for network, room := range networks {
		m.room.WithLabelValues(network).Set(float64(room))
	}
}

// Observer returns what measures an engine that works in that mode.
func (m *Metrics) Observer(mode string) engine.Observer { return observer{m, mode} }

// observer implements engine.Observer.
type observer struct {
	*Metrics

	mode string
}

// resultOf returns what became of an operation, as the metrics have it.
func resultOf(err error) string {
	if err == nil {
		return resultOK
	}
	if reason := failure.ReasonOf(err); reason != "" {
		return string(reason)
	}
	return resultFailed
}

// Operation implements engine.Observer.
func (o observer) Operation(_ context.Context, op engine.Operation) {
	result := resultOf(op.Err)
	o.operations.WithLabelValues(string(op.Verb), o.mode, result).Observe(op.Duration.Seconds())
	if op.Verb == engine.Update {
		o.hotplugs.WithLabelValues(result).Inc()
	}
}

// Attachment implements engine.Observer.
func (o observer) Attachment(_ context.Context, a engine.Attachment) {
	plugin := ""
	if len(a.Plugins) > 0 {
		plugin = a.Plugins[0]
	}
	o.attachments.WithLabelValues(string(a.Verb), plugin, o.mode, resultOf(a.Err)).
		Observe(a.Duration.Seconds())
}

// Violations implements engine.Observer. They are counted where all processes of the node are seen.
func (o observer) Violations(context.Context, []engine.Violation) {}

// Owed is the number of attachments that plugins refuse to remove.
func (m *Metrics) Owed(attachments int) { m.owed.Set(float64(attachments)) }

// Synced is whether the agent has all objects of a resource, such as pods, at hand.
func (m *Metrics) Synced(resource string, synced bool) {
	value := 0.0
	if synced {
		value = 1
	}
	m.synced.WithLabelValues(resource).Set(value)
}

// Waiting has the length of a queue of the agent's own be measured whenever somebody asks.
func (m *Metrics) Waiting(name string, length func() int) {
	m.registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "braid_queue_length", Help: "What waits for its turn.",
		ConstLabels: prometheus.Labels{"queue": name},
	}, func() float64 { return float64(length()) }))
}

// Space is what a node owns of a space of addresses.
type Space struct{ Blocks, Free int }

// Addresses says what the node owns, by space.
func (m *Metrics) Addresses(spaces map[string]Space) {
	m.blocks.Reset()
	m.free.Reset()
	for name, space := range spaces {
		m.blocks.WithLabelValues(name).Set(float64(space.Blocks))
		m.free.WithLabelValues(name).Set(float64(space.Free))
	}
}
