package main

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/braid-cni/braid/cmd/internal/node"
	"github.com/braid-cni/braid/pkg/agent"
	nodev1 "github.com/braid-cni/braid/pkg/api/node/v1"
	"github.com/braid-cni/braid/pkg/engine"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/install"
)

// partRemoval is the only part of an agent that takes Braid off its node.
const partRemoval = "uninstall"

// drainEvery is how often sandboxes that are gone are looked for.
const drainEvery = 2 * time.Second

// uninstall takes Braid off the node: its configuration first, so that no more pods are its own,
// and the rest when the last of its sandboxes is gone. Then it waits to be ended.
func (a *daemon) uninstall(ctx context.Context) error {
	defer a.api.Close()
	a.health = agent.NewHealth(buildVersion, partRemoval)
	if !a.identify(ctx) {
		return nil
	}
	cfg, err := a.load("/no/network", nil)
	if err != nil {
		return err
	}
	e, closeLog, err := node.NewEngine(node.Options{
		Node: &cfg.Node, Policy: &cfg.Policy, Version: buildVersion,
	})
	if err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { a.health.Publish(ctx, a.api, a.o.nodeName, a.log); return nil })
	group.Go(func() error { a.withdrawUntilDone(ctx); return nil })
	group.Go(func() error {
		agent.Every(ctx, drainEvery, func(ctx context.Context) { a.remove(ctx, e) })
		return nil
	})
	return errors.Join(group.Wait(), closeLog())
}

// withdrawUntilDone has no more pods scheduled for what networks have on this node.
func (a *daemon) withdrawUntilDone(ctx context.Context) {
	for ctx.Err() == nil && !a.publisher().Withdraw(ctx) {
		select {
		case <-ctx.Done():
		case <-time.After(a.capacityEvery):
		}
	}
}

// remove does what can be done by now. It may be repeated after the end.
func (a *daemon) remove(ctx context.Context, e *engine.Engine) {
	left, drainErr := e.Drain(ctx)
	out, err := a.bare().Uninstall(ctx, install.Removal{
		Restore: a.o.restore, Files: !a.o.keepFiles, Records: func(context.Context) (int, error) {
			return left, nil
		},
	})
	for _, path := range out.Changed {
		a.log.InfoContext(ctx, "file restored or removed", "path", path)
	}
	if err == nil {
		err = a.takeBackInterfaces(ctx)
	}
	switch {
	case ctx.Err() != nil:
		return
	case failure.ReasonOf(err) == failure.Busy:
		err = errors.Join(err, drainErr)
	case err == nil:
		err = &failure.Error{
			Reason: nodev1.Uninstalled,
			Err:    errors.New("Braid is not on this node any more"), //nolint:staticcheck // a name
		}
	}
	a.health.Set(partRemoval, err)
}
