package main

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"time"

	"github.com/braid-cni/braid/cmd/internal/node"
	"github.com/braid-cni/braid/cmd/internal/warm"
	"github.com/braid-cni/braid/pkg/agent"
	"github.com/braid-cni/braid/pkg/agent/metrics"
	"github.com/braid-cni/braid/pkg/agent/server"
	"github.com/braid-cni/braid/pkg/agent/trace"
	"github.com/braid-cni/braid/pkg/agent/wire"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	nodev1 "github.com/braid-cni/braid/pkg/api/node/v1"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/engine"
	"github.com/braid-cni/braid/pkg/kube"
	"github.com/braid-cni/braid/pkg/kube/manifests"
	"github.com/braid-cni/braid/pkg/kube/watch"
)

const (
	// countEvery is how often the notes of clients are counted that did without the agent.
	countEvery = 10 * time.Second
	// listenEvery is how often a socket is tried again that cannot be made.
	listenEvery = 30 * time.Second
	// lastSpansWithin is how long an agent that ends waits for the collector of traces.
	lastSpansWithin = 2 * time.Second
)

// serveCalls does the calls of clients until ctx is done and those that were begun have ended, for
// which lasting goes on. A socket that cannot be made is no reason to end: clients do without.
func (a *daemon) serveCalls(ctx, lasting context.Context, memory *watch.Cluster) {
	if !a.o.serve {
		if err := os.Remove(wire.Socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
			a.log.WarnContext(ctx, "the socket of a former agent is left", "error", err)
		}
		return
	}
	tracer, err := trace.New(ctx, buildVersion, a.o.nodeName)
	if err != nil {
		a.log.WarnContext(ctx, "no traces are sent", "error", err)
	}
	defer stopTraces(ctx, tracer)
	engines := &warm.Engines{
		Version: buildVersion, Open: a.openWith(memory),
		Observer: engine.Observers{a.meters.Observer(metrics.ModeAgent), tracer},
	}
	defer engines.Close()
	go engines.SendEvents(lasting)
	go engines.ReserveAhead(lasting)
	go agent.Every(ctx, countEvery, a.countFallbacks)
	s := &server.Server{
		Socket: wire.Socket, Handler: &warm.Handler{Engines: engines, Tracer: tracer}, Log: a.log,
		Observer: a.meters,
	}
	a.serveOn(ctx, s)
}

// serveOn listens, and listens again where that fails, until ctx is done and calls have ended.
func (a *daemon) serveOn(ctx context.Context, s *server.Server) {
	for ctx.Err() == nil {
		listener, err := s.Listen(ctx)
		if err == nil {
			a.log.InfoContext(ctx, "calls of the CNI plugin are served", "socket", s.Socket)
			err = s.Serve(ctx, listener)
		}
		if err == nil {
			return
		}
		a.log.WarnContext(ctx, "the CNI plugin does without the agent", "error", err)
		select {
		case <-ctx.Done():
		case <-time.After(listenEvery):
		}
	}
}

// stopTraces sends the last spans.
func stopTraces(ctx context.Context, tracer *trace.Tracer) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastSpansWithin)
	defer cancel()
	tracer.Stop(ctx) //nolint:errcheck // a collector that is away costs its spans
}

// remember keeps NADs and the labels of namespaces in memory until ctx is done. changed is told of
// NADs that change.
func (a *daemon) remember(
	ctx context.Context, changed func(*nadv1.NetworkAttachmentDefinition),
) (*watch.Cluster, error) {
	memory, err := watch.New(a.api, changed)
	if err != nil {
		return nil, err
	}
	go memory.Run(ctx, a.log)
	go agent.Every(ctx, countEvery, func(context.Context) { a.meters.Synced("nads", memory.Fresh()) })
	return memory, nil
}

// openWith returns what opens the source of a configuration, for an engine that lasts. It has the
// CNI plugin's account. The agent's own is that of the memory, which is asked first.
func (a *daemon) openWith(memory *watch.Cluster) func(*conf.Node) (node.Source, error) {
	return func(n *conf.Node) (node.Source, error) {
		if n.Manifests != "" {
			return manifests.New(n.Manifests)
		}
		api, err := kube.NewLastingAPI(kube.APIOptions{
			Kubeconfig: n.Kubeconfig, Version: buildVersion, NodeName: n.NodeName, Timeout: n.Timeouts.API,
		})
		if err != nil {
			return nil, err
		}
		return memory.With(api), nil
	}
}

// countFallbacks counts the calls that were not the agent's.
func (a *daemon) countFallbacks(ctx context.Context) {
	counts, err := agent.TakeNotes(wire.Notes)
	if err != nil {
		a.log.WarnContext(ctx, "fallbacks are not counted", "error", err)
	}
	a.health.Update(func(report *nodev1.Report) {
		all := maps.Clone(report.Fallbacks)
		for reason, n := range counts {
			if all == nil {
				all = map[string]int{}
			}
			all[reason] += n
		}
		report.Fallbacks = all
	})
	for reason, n := range counts {
		a.meters.Fallbacks(reason, n)
		a.log.WarnContext(ctx, "calls were done without the agent", "reason", reason, "calls", n)
	}
}
