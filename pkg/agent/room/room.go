// Package room has a Node say how many more pods it can take of the networks whose NADs ask for
// that, as package capacity decides it.
//
// Contract: while no NAD asks, the Node says nothing of networks, and nothing is watched but the
// NADs. What changes is looked at soon, and written at most once in Every.
package room

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/capacity"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/kube"
	"github.com/braid-cni/braid/pkg/kube/watch"
	"github.com/braid-cni/braid/pkg/record"
	"github.com/braid-cni/braid/pkg/resolve"
)

// Every is how often it is looked at what is free, and at most how often the Node is written for
// it.
const Every = 10 * time.Second

// ErrNotYet is the error of Open while pods get no networks of Braid.
var ErrNotYet = errors.New("braid is not installed yet")

// Rooms finds out how many more attachments this node has room for.
type Rooms interface {
	// Of returns it for the network of a NAD. The error is that of an ADD, or has a reason that says
	// that it is not known.
	Of(ctx context.Context, nad *metav1.ObjectMeta) (uint64, error)
	Close()
}

// Publisher keeps one Node right. New makes one; Run needs all fields,
// Withdraw API, Node and Log.
type Publisher struct {
	API *kube.API
	// NADs are kept by others, who call Changed.
	NADs *watch.Cluster
	Node string
	// Every is the constant of that name, but in tests.
	Every time.Duration
	// Open opens the rooms of the node for one look. The blocks are in memory.
	Open func(thisNode resolve.ThisNode, blocks *watch.Blocks) (Rooms, error)
	// Records returns the records of the node's sandboxes.
	Records func() ([]*record.Record, error)
	// Observe is told how much room there is, by the name of the NAD.
	Observe func(map[string]uint64)
	Log     *slog.Logger

	wake waker
}

// New returns a publisher without its fields.
func New() *Publisher { return &Publisher{wake: make(waker, 1), Every: Every} }

// Changed has the Node be looked at if the NAD asks for its capacity. It does not block.
func (p *Publisher) Changed(nad *nadv1.NetworkAttachmentDefinition) {
	if asks(nad) {
		p.wake.wake()
	}
}

func asks(nad *nadv1.NetworkAttachmentDefinition) bool {
	asks, err := capacity.Asks(&nad.ObjectMeta)
	return asks && err == nil
}

// asking returns the NADs that ask.
func (p *Publisher) asking() []*nadv1.NetworkAttachmentDefinition {
	return slices.DeleteFunc(p.NADs.Known(),
		func(nad *nadv1.NetworkAttachmentDefinition) bool { return !asks(nad) })
}

// Run keeps the Node right until ctx is done.
func (p *Publisher) Run(ctx context.Context) error {
	if !p.NADs.WaitSynced(ctx) {
		return nil
	}
	for ctx.Err() == nil {
		if len(p.asking()) > 0 {
			if err := p.publishAsked(ctx); err != nil {
				return err
			}
		}
		retry := time.After(p.Every)
		if p.Withdraw(ctx) {
			retry = nil
		}
		select {
		case <-ctx.Done():
		case <-p.wake:
		case <-retry:
		}
	}
	return nil
}

// Withdraw removes all that the Node says of networks. It is false if that failed.
func (p *Publisher) Withdraw(ctx context.Context) bool {
	resources, err := p.API.NodeResources(ctx, p.Node)
	gone := map[string]*int64{}
	for name := range resources {
		if strings.HasPrefix(name, capacity.Prefix) {
			gone[name] = nil
		}
	}
	if err == nil && len(gone) > 0 {
		err = p.API.SetNodeResources(ctx, p.Node, gone)
	}
	if err != nil && ctx.Err() == nil {
		p.Log.WarnContext(ctx, "resources of networks are not removed from the Node", "error", err)
	}
	return err == nil
}

// publishAsked keeps the Node right until ctx is done or no NAD asks.
func (p *Publisher) publishAsked(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	var work sync.WaitGroup
	defer work.Wait()
	defer cancel()
	a := &asked{Publisher: p, complete: map[string]bool{}}
	if err := a.open(ctx, &work); err != nil {
		return err
	}
	p.Log.InfoContext(ctx, "the Node says what it can take of networks")
	if !a.node.WaitSynced(ctx) || !a.pods.WaitSynced(ctx) {
		return nil
	}
	paced(ctx, p.Every, p.wake, func(early bool) (more, wrote bool) {
		nads := p.asking()
		if len(nads) == 0 {
			return false, false
		}
		return true, a.publish(ctx, nads, early)
	})
	p.Observe(nil)
	return nil
}

// waker has one wait that is to be ended. It has room for one.
type waker chan struct{}

// wake does not block.
func (w waker) wake() {
	select {
	case w <- struct{}{}:
	default: // it is awake already
	}
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
func (a *asked) publish(
	ctx context.Context, nads []*nadv1.NetworkAttachmentDefinition, early bool,
) bool {
	nodes := a.node.All()
	if len(nodes) == 0 {
		return false
	}
	networks, err := a.networks(ctx, nads, nodes[0])
	if err != nil {
		if !errors.Is(err, ErrNotYet) {
			a.Log.WarnContext(ctx, "it is not known what the node can take of networks", "error", err)
		}
		return false
	}
	written := nodes[0].written
	changes := capacity.Changes(written, networks)
	if len(changes) == 0 || early && !capacity.Urgent(written, networks) {
		return false
	}
	if err := a.API.SetNodeResources(ctx, a.Node, changes); err != nil && ctx.Err() == nil {
		a.Log.WarnContext(ctx, "resources of networks are not written", "error", err)
	}
	return true
}

// networks finds out what there is of the networks of NADs that ask, by their resources.
func (a *asked) networks(
	ctx context.Context, nads []*nadv1.NetworkAttachmentDefinition, on nodeState,
) (map[string]*capacity.Network, error) {
	pods, err := a.bound(a.pods.All())
	if err != nil {
		return nil, err
	}
	rooms, err := a.Open(on, a.blocks)
	if err != nil {
		return nil, err
	}
	defer rooms.Close()
	networks, frees := map[string]*capacity.Network{}, map[string]uint64{}
	for _, nad := range nads {
		resource := capacity.Resource(&nad.ObjectMeta)
		free, known := a.free(ctx, rooms, nad)
		if networks[resource] = nil; known {
			network := capacity.NetworkOf(resource, free, pods)
			networks[resource] = &network
			frees[nad.Namespace+"/"+nad.Name] = min(free, capacity.Plenty)
		}
	}
	a.Observe(frees)
	return networks, ctx.Err()
}

// free is how many more attachments of a NAD the node can make: none where an ADD would fail.
func (a *asked) free(
	ctx context.Context, rooms Rooms, nad *nadv1.NetworkAttachmentDefinition,
) (free uint64, known bool) {
	free, err := rooms.Of(ctx, &nad.ObjectMeta)
	if err == nil {
		return free, true
	}
	a.Log.DebugContext(ctx, "the node can take no pod of a network",
		"nad", nad.Namespace+"/"+nad.Name, "error", err)
	switch failure.ReasonOf(err) {
	case failure.APIUnavailable, failure.TimedOut, failure.NotReady:
		return 0, false
	}
	return 0, ctx.Err() == nil
}

// bound returns pods with what they have got. The records are read only while one of them is not
// known to have all that it requests.
func (a *asked) bound(pods []podState) ([]capacity.Pod, error) {
	complete, waiting := map[string]bool{}, []podState(nil)
	for _, pod := range pods {
		if complete[pod.uid] = a.complete[pod.uid]; !complete[pod.uid] {
			waiting = append(waiting, pod)
		}
	}
	a.complete = complete
	made, err := a.made(waiting)
	if err != nil {
		return nil, err
	}
	all := make([]capacity.Pod, 0, len(pods))
	for _, pod := range pods {
		all = append(all, capacity.Pod{
			Requests: pod.requests, Made: made[pod.uid], Complete: complete[pod.uid],
		})
	}
	return all, nil
}

// made returns how many attachments pods have got by now, by their UID and by resource. It notes
// which of them have all.
func (a *asked) made(waiting []podState) (map[string]map[string]int64, error) {
	if len(waiting) == 0 {
		return nil, nil
	}
	records, err := a.Records()
	if err != nil {
		return nil, err
	}
	made := map[string]map[string]int64{}
	for _, pod := range waiting {
		made[pod.uid] = map[string]int64{}
		for _, r := range records {
			if r.Pod.UID != pod.uid && (r.Pod.UID != "" || r.Pod.String() != pod.name) {
				continue
			}
			a.complete[pod.uid] = a.complete[pod.uid] || r.Complete
			for i := range r.Attachments {
				if r.Attachments[i].State == record.Added {
					namespace, name, _ := strings.Cut(r.Attachments[i].Name, "/")
					made[pod.uid][capacity.Resource(&metav1.ObjectMeta{Namespace: namespace, Name: name})]++
				}
			}
		}
	}
	return made, nil
}
