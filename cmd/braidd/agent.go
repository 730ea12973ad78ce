package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/braid-cni/braid/cmd/internal/node"
	"github.com/braid-cni/braid/pkg/agent"
	"github.com/braid-cni/braid/pkg/agent/metrics"
	"github.com/braid-cni/braid/pkg/agent/room"
	nodev1 "github.com/braid-cni/braid/pkg/api/node/v1"
	"github.com/braid-cni/braid/pkg/cnicache"
	"github.com/braid-cni/braid/pkg/engine"
	"github.com/braid-cni/braid/pkg/install"
	"github.com/braid-cni/braid/pkg/install/own"
	"github.com/braid-cni/braid/pkg/install/platform"
	"github.com/braid-cni/braid/pkg/kube"
	"github.com/braid-cni/braid/pkg/record"
)

const (
	// timeout bounds one request to the API server, with its tries.
	timeout = 30 * time.Second
	// tendEvery is how often blocks of addresses that others ask for are looked at on a node
	// without traffic; lookEvery how often pods without their networks are looked
	// for, and those that others made.
	tendEvery = time.Minute
	lookEvery = 5 * time.Minute
	// claimEvery is how often a node that cannot be written is tried again.
	claimEvery = 5 * time.Second
)

// The parts of the agent that pods depend on.
const (
	partInstallation = "installation"
	partCredential   = "credential"
)

// daemon is the agent of one node.
type daemon struct {
	o      *options
	log    *slog.Logger
	api    *kube.API
	place  platform.Place
	store  *own.Store
	health *agent.Health
	meters *metrics.Metrics
	// trouble is what keeps the node from being as it is to be.
	trouble  trouble
	restarts restarts
	// network is the path of the default network, as long as it has been known.
	network string
	events  chan event
	// interfacesChanged has a value if the node's interfaces have changed since lookLost looked.
	interfacesChanged chan struct{}
	// nodeState is the directory of the CNI plugin's state, as the last configuration has it that was
	// rendered.
	nodeState atomic.Pointer[string]
	// installedConf is the path of Braid's configuration on the node, once it is there.
	installedConf atomic.Pointer[string]
	capacityEvery time.Duration
}

// newAgent reads what the agent is told, and looks where it is. It changes nothing.
func newAgent(o *options, log *slog.Logger) (*daemon, error) {
	place, err := platform.Find("/", o.place)
	if err != nil {
		return nil, err
	}
	api, err := kube.NewLastingAPI(kube.APIOptions{
		ServiceAccount: o.token, Server: o.server, Version: buildVersion, NodeName: o.nodeName,
		Timeout: timeout,
	})
	if err != nil {
		return nil, err
	}
	a := &daemon{
		o: o, log: log, api: api, place: place, store: &own.Store{Dir: o.stateDir, Self: o.podUID},
		health: agent.NewHealth(buildVersion, partInstallation, partCredential),
		meters: metrics.New(buildVersion),
		events: make(chan event, maxEvents), capacityEvery: room.Every,
		interfacesChanged: make(chan struct{}, 1),
	}
	a.nodeState.Store(new(a.stateDir()))
	a.meters.Violations(func() map[engine.Violation]uint64 {
		return node.Violations(*a.nodeState.Load())
	})
	a.meters.Waiting("events", func() int { return len(a.events) })
	return a, nil
}

// run does all that the agent does until ctx is done, or the node is another installation's.
func (a *daemon) run(ctx context.Context) error {
	defer a.api.Close()
	a.log.InfoContext(ctx, "the agent begins", "version", buildVersion, "node", a.o.nodeName,
		"profile", a.place.Profile, "conf", a.place.Conf, "bin", a.place.Bin)
	if !a.identify(ctx) {
		return nil
	}
	err := a.store.Claim(ctx)
	if !lost(err) {
		err = a.care(ctx, err)
	}
	return a.leave(ctx, err)
}

// care does what an agent does for its node until ctx is done or the node is lost. claimed is the
// error of the first try to claim it.
func (a *daemon) care(ctx context.Context, claimed error) error {
	keeper, watch, err := a.installer()
	if err != nil {
		return err
	}
	if watch != nil {
		defer watch.Close() //nolint:errcheck // nothing was written
	}
	// What calls need goes on while those that were begun come to their end.
	lasting, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	rooms := a.publisher()
	if rooms.NADs, err = a.remember(lasting, rooms.Changed); err != nil {
		return err
	}
	group, ctx := errgroup.WithContext(ctx)
	if err := a.serveMetrics(ctx, group); err != nil {
		return err
	}
	group.Go(func() error {
		if err := a.claim(ctx, claimed); err != nil {
			return err
		}
		group.Go(func() error { return a.credential().Run(ctx) })
		group.Go(func() error { a.keepInterfaces(ctx); return nil })
		return keeper.Run(ctx)
	})
	group.Go(func() error { a.health.Publish(ctx, a.api, a.o.nodeName, a.log); return nil })
	group.Go(func() error { a.tellAll(ctx); return nil })
	group.Go(func() error { a.serveCalls(ctx, lasting, rooms.NADs); return nil })
	group.Go(func() error { agent.Every(ctx, tendEvery, a.tend); return nil })
	group.Go(func() error { agent.Every(ctx, lookEvery, a.look); return nil })
	group.Go(func() error { agent.Every(ctx, lookEvery, a.lookAddresses); return nil })
	group.Go(func() error { a.lookLost(ctx); return nil })
	group.Go(func() error { return a.debug(ctx) })
	group.Go(func() error { a.reconcile(ctx); return nil })
	group.Go(func() error { return a.hotplug(ctx) })
	group.Go(func() error { return rooms.Run(ctx) })
	return group.Wait()
}

// serveMetrics has the group serve metrics, if there is an address for it.
func (a *daemon) serveMetrics(ctx context.Context, group *errgroup.Group) error {
	if a.o.metrics == "" {
		return nil
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", a.o.metrics)
	if err != nil {
		return fmt.Errorf("serve metrics: %w", err)
	}
	group.Go(func() error { return a.meters.Serve(ctx, listener) })
	return nil
}

// claim goes on from the error of the first try to claim the node. A node whose disk is full, or
// cannot be written, is tried again until it can be, and says so meanwhile. It returns an error
// when the node is lost.
func (a *daemon) claim(ctx context.Context, err error) error {
	for err != nil && !lost(err) {
		a.installed(install.Report{Err: err})
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(claimEvery):
			err = a.store.Claim(ctx)
		}
	}
	return err
}

// lost reports whether the node is another installation's, or a later agent's.
func lost(err error) bool {
	_, retired := errors.AsType[*own.RetiredError](err)
	_, superseded := errors.AsType[*own.SupersededError](err)
	return retired || superseded
}

// leave waits for the end of an agent that has lost its node: one that ended would be started again
// and again.
func (a *daemon) leave(ctx context.Context, err error) error {
	if !lost(err) {
		return err
	}
	a.log.WarnContext(ctx, "the node is left alone", "error", err)
	<-ctx.Done()
	return nil
}

// identify waits for the API server to say which installation this is; false if ctx is done before.
func (a *daemon) identify(ctx context.Context) bool {
	err := wait.PollUntilContextCancel(ctx, 2*time.Second, true,
		func(ctx context.Context) (bool, error) {
			owner, err := a.api.OwnerOf(ctx, a.o.ownNamespace, a.o.pod)
			if err != nil {
				a.log.WarnContext(ctx, "the agent's own pod is not known yet", "error", err)
				return false, nil
			}
			a.store.Installation = string(owner)
			return true, nil
		})
	return err == nil
}

// setHealth says how a part is.
func (a *daemon) setHealth(part string, err error) {
	a.health.Set(part, err)
	a.meters.Ready(a.health.Ready())
}

// lookOwed counts what plugins refuse to remove.
func (a *daemon) lookOwed(records []*record.Record) {
	owed := 0
	for _, rec := range records {
		owed += len(rec.Owed())
	}
	a.meters.Owed(owed)
	a.health.Update(func(report *nodev1.Report) { report.Owed = owed })
}

// lookAddresses counts the blocks of addresses that the node owns.
func (a *daemon) lookAddresses(ctx context.Context) {
	blocks, err := a.api.Blocks(ctx,
		metav1.ListOptions{ResourceVersion: "0", FieldSelector: "spec.owner.nodeName=" + a.o.nodeName})
	if err != nil {
		a.log.WarnContext(ctx, "blocks of the node are not known", "error", err)
		return
	}
	spaces := map[string]metrics.Space{}
	for i := range blocks {
		space := spaces[blocks[i].Spec.Space]
		space.Blocks++
		space.Free += int(blocks[i].Status.Free)
		spaces[blocks[i].Spec.Space] = space
	}
	a.meters.Addresses(spaces)
}

// tend shares blocks of addresses, and gives idle ones back.
func (a *daemon) tend(ctx context.Context) {
	addresses := &node.Addresses{
		Source: node.Only(a.api), Name: a.o.nodeName, StateDir: *a.nodeState.Load(), Log: a.log,
	}
	if err := addresses.TendNow(ctx); err != nil && !errors.Is(err, context.Canceled) {
		a.log.WarnContext(ctx, "blocks of addresses are not tended", "error", err)
	}
}

// look looks for pods that were started without their networks.
func (a *daemon) look(ctx context.Context) {
	started, err := a.api.StartedPodsOn(ctx, a.o.nodeName)
	if err != nil {
		a.log.WarnContext(ctx, "pods of the node are not known", "error", err)
		return
	}
	records, err := record.New(*a.nodeState.Load()).Read()
	if err != nil {
		a.log.WarnContext(ctx, "records of the node are not known", "error", err)
		return
	}
	a.lookOwed(records)
	unattached := agent.Unattached(started, records)
	a.meters.Unattached(len(unattached))
	a.health.Update(func(report *nodev1.Report) { report.Unattached = unattached })
	entries, err := cnicache.Read(a.o.runtimeCache, nil)
	if err != nil {
		a.log.WarnContext(ctx, "it is not known which pods other plugins made", "error", err)
		return
	}
	others := agent.Others(entries, func(netns string) bool {
		_, err := os.Stat(netns)
		return err == nil
	})
	a.health.Update(func(report *nodev1.Report) { report.Others = others })
}
