package main

import (
	"context"
	"errors"
	"path/filepath"
	"strings"

	"github.com/braid-cni/braid/cmd/internal/node"
	"github.com/braid-cni/braid/pkg/agent/cri"
	"github.com/braid-cni/braid/pkg/agent/metrics"
	"github.com/braid-cni/braid/pkg/agent/reconcile"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/engine"
	"github.com/braid-cni/braid/pkg/install/hostns"
	"github.com/braid-cni/braid/pkg/kube"
	"github.com/braid-cni/braid/pkg/record"
)

// reconcile removes what is left of sandboxes that the runtime has forgotten, until ctx is done.
func (a *daemon) reconcile(ctx context.Context) {
	r := &reconcile.Reconciler{
		Runtime: namedRuntime{
			&cri.Runtime{Sockets: a.o.sockets(), Pod: a.o.podUID},
			func(program string) { a.restarting(func(r *restarts) { r.runtime = program }) },
		},
		Sandboxes: sandboxes{a}, Log: a.log, Removed: a.meters.Reconciled,
	}
	r.Run(ctx)
}

// sockets are where runtimes listen, as this process sees them.
func (o *options) sockets() []string {
	sockets := hostns.Sockets()
	for i, socket := range sockets {
		if rest, ok := strings.CutPrefix(socket, "/run/"); ok && o.inContainer {
			sockets[i] = filepath.Join(o.runDir, rest)
		}
	}
	return sockets
}

// withRecords does something by an engine that knows the records, and not what pods get.
func (a *daemon) withRecords(do func(*engine.Engine) error) error {
	cfg, err := a.load("/no/network", nil)
	if err != nil {
		return err
	}
	return a.withEngine(cfg, do)
}

// withEngine does something by an engine of its own, so with the credential of the CNI plugin as it
// is now.
func (a *daemon) withEngine(cfg *conf.Config, do func(*engine.Engine) error) error {
	source, err := node.OpenSource(&cfg.Node, buildVersion)
	if err != nil {
		return err
	}
	if api, ok := source.(*kube.API); ok {
		defer api.Close()
	}
	e, closeLog, err := node.NewEngine(node.Options{
		Node: &cfg.Node, Policy: &cfg.Policy, Version: buildVersion, Source: source,
	})
	if err != nil {
		return err
	}
	e.Observer = engine.Observers{e.Observer, a.meters.Observer(metrics.ModeAgent)}
	return errors.Join(do(e), closeLog())
}

// sandboxes are those that the node's CNI plugin has recorded.
type sandboxes struct{ *daemon }

// Recorded implements reconcile.Sandboxes.
func (s sandboxes) Recorded() (marks []record.Mark, err error) {
	err = s.withRecords(func(e *engine.Engine) error {
		marks, err = e.Recorded()
		return err
	})
	return marks, err
}

// RemoveForgotten implements reconcile.Sandboxes.
func (s sandboxes) RemoveForgotten(
	ctx context.Context, mark record.Mark, runtime string,
) (removed bool, err error) {
	err = s.withRecords(func(e *engine.Engine) error {
		removed, err = e.RemoveForgotten(ctx, mark, runtime)
		return err
	})
	return removed, err
}

// Leftovers implements reconcile.Sandboxes.
func (s sandboxes) Leftovers() (ids []string, err error) {
	err = s.withRecords(func(e *engine.Engine) error {
		ids, err = e.Leftovers()
		return err
	})
	return ids, err
}

// Settle implements reconcile.Sandboxes.
func (s sandboxes) Settle(ctx context.Context, containerID string) error {
	return s.withRecords(func(e *engine.Engine) error { return e.Settle(ctx, containerID) })
}
