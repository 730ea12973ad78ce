package main

import (
	"context"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/cmd/internal/node"
	"github.com/braid-cni/braid/pkg/capacity"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/engine"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/kube/watch"
	"github.com/braid-cni/braid/pkg/record"
)

// capacityEvery is how often it is looked at what is free, and at most how often the Node is
// written for it.
const capacityEvery = 10 * time.Second

// publishCapacity keeps the Node saying how many more pods it can take of networks whose NADs ask
// for that, until ctx is done. While none asks, the NADs are all that is watched.
func (a *daemon) publishCapacity(ctx context.Context) error {
	wake := make(waker, 1)
	nads, err := asking(a.api, wake)
	if err != nil {
		return err
	}
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { nads.Run(ctx) })
	if !nads.WaitSynced(ctx) {
		return nil
	}
	for ctx.Err() == nil {
		if len(nads.All()) > 0 {
			if err := a.publishAsked(ctx, nads, wake); err != nil {
				return err
			}
		}
		retry := time.After(a.capacityEvery)
		if a.withdrawCapacity(ctx) {
			retry = nil
		}
		select {
		case <-ctx.Done():
		case <-wake:
		case <-retry:
		}
	}
	return nil
}

// withdrawCapacity removes all that the Node says of networks. It is false if that failed.
func (a *daemon) withdrawCapacity(ctx context.Context) bool {
	resources, err := a.api.NodeResources(ctx, a.o.nodeName)
	gone := map[string]*int64{}
	for name := range resources {
		if strings.HasPrefix(name, capacity.Prefix) {
			gone[name] = nil
		}
	}
	if err == nil && len(gone) > 0 {
		err = a.api.SetNodeResources(ctx, a.o.nodeName, gone)
	}
	if err != nil && ctx.Err() == nil {
		a.log.WarnContext(ctx, "resources of networks are not removed from the Node", "error", err)
	}
	return err == nil
}

// publishAsked keeps the Node right until ctx is done or no NAD asks.
func (a *daemon) publishAsked(ctx context.Context, nads *watch.Memory[nad], wake waker) error {
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	p := &publisher{daemon: a, nads: nads}
	if err := p.open(ctx, &work, wake); err != nil {
		return err
	}
	a.log.InfoContext(ctx, "the Node says what it can take of networks")
	work.Go(func() { p.node.Run(ctx) })
	work.Go(func() { p.pods.Run(ctx) })
	if !p.node.WaitSynced(ctx) || !p.pods.WaitSynced(ctx) {
		return nil
	}
	paced(ctx, a.capacityEvery, wake, func(early bool) (more, wrote bool) {
		if len(nads.All()) == 0 {
			return false, false
		}
		return true, p.publish(ctx, early)
	})
	a.meters.Room(nil)
	return nil
}

// paced calls do at each wake and each interval, and tells it if it wrote so lately that it is too
// early to do so again. It ends with ctx, or when there is no more to do.
func paced(
	ctx context.Context, interval time.Duration, wake waker, do func(early bool) (more, wrote bool),
) {
	var next time.Time
	for ctx.Err() == nil {
		early := time.Now().Before(next)
		more, wrote := do(early)
		if !more {
			return
		}
		if wrote {
			next = time.Now().Add(interval)
		}
		wait := interval
		if early {
			wait = time.Until(next)
		}
		select {
		case <-ctx.Done():
		case <-wake:
		case <-time.After(wait):
		}
	}
}

// publish writes what has changed enough, early only what is urgent. It reports whether it wrote,
// or tried.
func (p *publisher) publish(ctx context.Context, early bool) bool {
	cfg, nodes := p.installedConfig(), p.node.All()
	if cfg == nil || len(nodes) == 0 {
		return false
	}
	networks, err := p.networks(ctx, cfg, nodes[0])
	if err != nil {
		p.log.WarnContext(ctx, "it is not known what the node can take of networks", "error", err)
		return false
	}
	written := nodes[0].written
	changes := capacity.Changes(written, networks)
	if len(changes) == 0 || early && !capacity.Urgent(written, networks) {
		return false
	}
	if err := p.api.SetNodeResources(ctx, p.o.nodeName, changes); err != nil && ctx.Err() == nil {
		p.log.WarnContext(ctx, "resources of networks are not written", "error", err)
	}
	return true
}

// networks finds out what there is of the networks of NADs that ask, by their resources.
func (p *publisher) networks(
	ctx context.Context, cfg *conf.Config, on nodeState,
) (map[string]*capacity.Network, error) {
	pods, err := p.bound(cfg.StateDir)
	if err != nil {
		return nil, err
	}
	networks, rooms := map[string]*capacity.Network{}, map[string]uint64{}
	err = p.withEngine(cfg, func(e *engine.Engine) error {
		addresses := &node.Addresses{
			Source: node.Only(remembered{p.api, p.blocks}), Name: p.o.nodeName,
			StateDir: cfg.StateDir, Log: p.log,
		}
		r := &node.Rooms{
			Config: cfg, ThisNode: on, Addresses: addresses, NetNS: p.o.netns, Log: p.log,
		}
		for _, nad := range p.nads.All() {
			resource := capacity.Resource(&nad.ObjectMeta)
			r.Source = atHand{e.Source, nad}
			free, known := p.free(ctx, r, nad)
			if networks[resource] = nil; known {
				network := capacity.NetworkOf(resource, free, pods)
				networks[resource] = &network
				rooms[nad.Namespace+"/"+nad.Name] = min(free, capacity.Plenty)
			}
		}
		return ctx.Err()
	})
	p.meters.Room(rooms)
	return networks, err
}

// free is how many more attachments of a NAD the node can make: none where an ADD would fail.
func (p *publisher) free(
	ctx context.Context, rooms *node.Rooms, nad nad,
) (free uint64, known bool) {
	free, err := rooms.Of(ctx, &nad.ObjectMeta)
	if err == nil {
		return free, true
	}
	p.log.DebugContext(ctx, "the node can take no pod of a network",
		"nad", nad.Namespace+"/"+nad.Name, "error", err)
	switch failure.ReasonOf(err) {
	case failure.APIUnavailable, failure.TimedOut, failure.NotReady:
		return 0, false
	}
	return 0, ctx.Err() == nil
}

// bound are the pods of the node that request something, with what they have got.
func (p *publisher) bound(stateDir string) ([]capacity.Pod, error) {
	records, err := record.New(stateDir).Read()
	if err != nil {
		return nil, err
	}
	var all []capacity.Pod
	for _, pod := range p.pods.All() {
		one := capacity.Pod{Requests: pod.requests, Made: map[string]int64{}}
		for _, r := range records {
			if r.Pod.UID != pod.uid && (r.Pod.UID != "" || r.Pod.String() != pod.name) {
				continue
			}
			one.Complete = one.Complete || r.Complete
			for i := range r.Attachments {
				if r.Attachments[i].State == record.Added {
					namespace, name, _ := strings.Cut(r.Attachments[i].Name, "/")
					meta := metav1.ObjectMeta{Namespace: namespace, Name: name}
					one.Made[capacity.Resource(&meta)]++
				}
			}
		}
		all = append(all, one)
	}
	return all, nil
}
