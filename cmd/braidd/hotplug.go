package main

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/pkg/agent/hotplug"
	podv1 "github.com/braid-cni/braid/pkg/api/pod/v1"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/engine"
	"github.com/braid-cni/braid/pkg/kube/watch"
)

// lookHotPlug is how often it is looked at whether hot-plug was switched on or off.
const lookHotPlug = 10 * time.Second

// hotplug brings running pods to the networks of their annotations, while the installed
// configuration has that on, until ctx is done.
func (a *daemon) hotplug(ctx context.Context) error {
	for ctx.Err() == nil {
		if a.hotPlugged() != nil {
			if err := a.hotplugUntilOff(ctx); err != nil {
				a.log.WarnContext(ctx, "networks of running pods do not follow their annotations", "error", err)
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(lookHotPlug):
		}
	}
	return nil
}

// hotPlugged returns the installed configuration; nil if there is none, or if it has hot-plug off.
func (a *daemon) hotPlugged() *conf.Config {
	cfg := a.installedConfig()
	if cfg == nil || !cfg.HotPlug {
		return nil
	}
	return cfg
}

// installedConfig returns the installed configuration; nil if there is none.
func (a *daemon) installedConfig() *conf.Config {
	path := a.installedConf.Load()
	if path == nil || *path == "" {
		return nil
	}
	cfg, err := conf.LoadFile(*path)
	if err != nil {
		return nil
	}
	return cfg
}

// hotplugUntilOff watches the node's pods until the configuration switches hot-plug off, or ctx is
// done.
func (a *daemon) hotplugUntilOff(ctx context.Context) error {
	a.log.InfoContext(ctx, "networks of running pods follow their annotations")
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	c := &hotplug.Controller{Update: a.update, Log: a.log}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { c.Run(ctx); return nil })
	group.Go(func() error {
		defer a.meters.Synced("pods", false)
		pods := &watch.Pods{
			API: a.api, Node: a.o.nodeName, Changed: c.Changed, Gone: c.Gone, Synced: func() {
				a.meters.Synced("pods", true)
			},
		}
		return pods.Run(ctx)
	})
	for ctx.Err() == nil && a.hotPlugged() != nil {
		select {
		case <-ctx.Done():
		case <-time.After(lookHotPlug):
		}
	}
	cancel()
	return group.Wait()
}

// update brings one pod to the networks of its annotation.
func (a *daemon) update(ctx context.Context, meta *metav1.ObjectMeta) (settled bool, err error) {
	cfg := a.hotPlugged()
	if cfg == nil {
		return false, nil
	}
	pod := &podv1.Pod{ObjectMeta: *meta, MetaOnly: true}
	err = a.withEngine(cfg, func(e *engine.Engine) error {
		ids, attached, err := e.Outdated(pod)
		errs := []error{err}
		for _, id := range ids {
			errs = append(errs, e.Update(ctx, &engine.Request{ContainerID: id, Call: &cfg.Call}, pod))
		}
		settled = attached
		return errors.Join(errs...)
	})
	return settled, err
}
