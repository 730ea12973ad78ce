// Package keeper keeps the interfaces of a node as pkg/nodenet decides: it looks at the node's
// network namespace, takes the steps, and does so again when the kernel or the clock has something
// new.
//
// Contract: an address is remembered on disk before it is set, so that whatever ends the keeper,
// the next one knows what is its own, and takes nothing else away. An IPv4 address that another
// host answers for is not set. No route is set, and routers' advertisements set no default route on
// the NICs. A NIC stays up when its network is taken out of the configuration, as pods may use it.
// A configuration that cannot be read changes nothing: the interfaces are kept by the last one that
// could be read since the start, and left alone if there was none.
package keeper

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/braid-cni/braid/pkg/netns"
	"github.com/braid-cni/braid/pkg/nl"
	"github.com/braid-cni/braid/pkg/nodenet"
	"github.com/braid-cni/braid/pkg/nodenet/ask"
)

const (
	// lookEvery is how often the configuration and the node are looked at if nothing happens.
	lookEvery = 10 * time.Second
	// settled is how long changes are gathered.
	settled = 50 * time.Millisecond
	// retry is the pause after a look that failed.
	retry = 2 * time.Second
)

// The reasons of events.
const (
	ReasonFailed   = "NodeInterfaceFailed"
	ReasonRestored = "NodeInterfaceRestored"
	ReasonInvalid  = "NodeInterfacesInvalid"
)

// Network is what is asked of the network of a NIC.
type Network interface {
	// Lease asks DHCP servers; ask.ErrRefused is that the node may not have lease's address.
	Lease(ctx context.Context, nic string, asking nodenet.Asking,
		lease *nodenet.Lease) (*nodenet.Lease, error)
	// Probe returns an *ask.InUseError if another host has an address.
	Probe(ctx context.Context, nic string, addr netip.Addr) error
	Decline(nic string, lease *nodenet.Lease) error
}

// Keeper keeps the interfaces of one node. Run may be called once.
type Keeper struct {
	NS *netns.NS
	// Node is the name of the Node.
	Node string
	// Configuration returns what is to be.
	Configuration func() ([]nodenet.Interface, error)
	// File remembers what was set; Boot is what no other boot of the machine has.
	File, Boot string
	Network    Network
	// Report is called after each look; the error is the configuration's, and the states are those of
	// the last good one.
	Report func([]nodenet.State, error)
	// Tell raises an event on the node.
	Tell func(reason, message string)
	Log  *slog.Logger

	handle  *nl.Handle
	memory  nodenet.Memory
	trials  map[string]*nodenet.Trial
	last    []nodenet.Interface // the last good configuration
	isRead  bool                // there was a good one
	told    map[string]string   // the last trouble of each network; of "" the configuration's
	quiet   map[int]string      // NICs that take no default route, by index
	changed chan struct{}
	results chan func()
	asking  sync.WaitGroup
}

// Run keeps the interfaces until ctx is done.
func (k *Keeper) Run(ctx context.Context) error {
	if err := k.open(); err != nil {
		return err
	}
	defer k.handle.Close()
	defer k.asking.Wait()
	var watching sync.WaitGroup
	defer watching.Wait()
	// Each link of a pod is a change, so nodes without interfaces to keep do not watch.
	watch := sync.OnceFunc(func() { watching.Go(func() { k.watch(ctx) }) })
	for ctx.Err() == nil {
		wait := k.pass(ctx)
		if k.keeps() {
			watch()
		}
		k.await(ctx, wait)
	}
	return nil
}

// keeps reports whether there is something to set on the node, or to take off it.
func (k *Keeper) keeps() bool { return k.isRead && len(k.last)+len(k.memory) > 0 }

// watch wakes the keeper at once, and when links or addresses of the node change, until ctx is
// done.
func (k *Keeper) watch(ctx context.Context) {
	for ctx.Err() == nil {
		if err := nl.Watch(ctx, k.NS, k.wake); err != nil && ctx.Err() == nil {
			k.Log.WarnContext(ctx, "changes of the node's interfaces are seen late", "error", err)
			k.sleep(ctx, lookEvery)
		}
	}
}

// TakeBack takes all that was set off the node.
func (k *Keeper) TakeBack(ctx context.Context) error {
	if err := k.open(); err != nil {
		return err
	}
	defer k.handle.Close()
	if len(k.memory) == 0 {
		return nil
	}
	system, err := look(ctx, k.NS, k.handle)
	if err != nil {
		return err
	}
	d := nodenet.Decide(&nodenet.View{
		Node: k.Node, System: system, Memory: k.memory,
		Trials: k.trials, Now: time.Now(),
	})
	for _, s := range d.Steps {
		if err := k.take(ctx, s); err != nil {
			return err
		}
	}
	return nil
}

// open loads what was set before, and opens the namespace. A file that cannot be read is as none:
// what it had stays on the NICs.
func (k *Keeper) open() (err error) {
	k.trials, k.told, k.quiet = map[string]*nodenet.Trial{}, map[string]string{}, map[int]string{}
	k.changed, k.results = make(chan struct{}, 1), make(chan func())
	if k.memory, err = load(k.File, k.Boot); err != nil {
		k.Log.Warn("addresses that were set before stay", "error", err)
	}
	k.handle, err = nl.Open(k.NS)
	return err
}

// wake ends await. It does not block.
func (k *Keeper) wake() {
	select {
	case k.changed <- struct{}{}:
	default: // it is awake already
	}
}

// sleep waits, at most until ctx ends.
func (k *Keeper) sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// await returns when there is something new, or after a time.
func (k *Keeper) await(ctx context.Context, wait time.Duration) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	case result := <-k.results:
		result()
	case <-k.changed:
		k.sleep(ctx, settled)
	}
}

// pass makes one decision and takes its steps; it returns after what time to make the next.
func (k *Keeper) pass(ctx context.Context) time.Duration {
	wait := lookEvery
	wrong := k.configure()
	if wrong != nil {
		wait = retry
	}
	if !k.keeps() {
		k.Report(nil, wrong)
		return wait
	}
	system, err := look(ctx, k.NS, k.handle)
	if err != nil {
		if ctx.Err() == nil {
			k.Log.WarnContext(ctx, "the node's interfaces are not known", "error", err)
		}
		return retry
	}
	now := time.Now()
	d := nodenet.Decide(&nodenet.View{
		Node: k.Node, Interfaces: k.last, System: system,
		Memory: k.memory, Trials: k.trials, Now: now,
	})
	if !d.Wake.IsZero() {
		wait = min(wait, max(d.Wake.Sub(now), settled))
	}
	wait = k.follow(ctx, &d, wait)
	k.tell(d.States)
	if ctx.Err() == nil {
		k.Report(d.States, wrong)
	}
	return wait
}

// follow takes the steps of a decision, and remembers the NICs that it found. It returns after what
// time to decide anew, as takeAll. Removals come before a NIC is remembered: they are of the NIC
// that the network had.
func (k *Keeper) follow(
	ctx context.Context, d *nodenet.Decision, wait time.Duration,
) time.Duration {
	removals, others := split(d.Steps)
	wait = k.takeAll(ctx, removals, d.States, wait)
	k.found(ctx, d.Found)
	return k.takeAll(ctx, others, d.States, wait)
}

// split returns the steps that take something away, and the others.
func split(steps []nodenet.Step) (removals, others []nodenet.Step) {
	for _, s := range steps {
		if s.Kind == nodenet.Remove || s.Kind == nodenet.Forget {
			removals = append(removals, s)
		} else {
			others = append(others, s)
		}
	}
	return removals, others
}

// takeAll takes steps, and notes in states which failed. It returns after what time to decide
// anew: wait, unless a step calls for another.
func (k *Keeper) takeAll(
	ctx context.Context, steps []nodenet.Step, states []nodenet.State, wait time.Duration,
) time.Duration {
	for _, s := range steps {
		if s.Kind != nodenet.Probe && s.Kind != nodenet.Ask {
			wait = settled
		}
		if err := k.take(ctx, s); err != nil && ctx.Err() == nil {
			k.failed(s, err, states)
			wait = retry
		}
	}
	return wait
}

// configure reads the configuration. After an error there is the last good one.
func (k *Keeper) configure() error {
	interfaces, err := k.Configuration()
	if err == nil {
		k.last, k.isRead = interfaces, true
		delete(k.told, "")
		return nil
	}
	if text := err.Error(); k.told[""] != text {
		k.told[""] = text
		k.Log.Warn("the configuration of the node's interfaces is not taken", "error", err)
		k.Tell(ReasonInvalid, text)
	}
	return err
}

// found remembers the NICs of networks.
func (k *Keeper) found(ctx context.Context, nics map[string]nodenet.NIC) {
	isNew := false
	for _, i := range k.last {
		nic, ok := nics[i.Network]
		if !ok {
			continue
		}
		isNew = k.remember(i, nic) || isNew
		k.quieten(ctx, nic)
	}
	if isNew {
		if err := save(k.File, k.Boot, k.memory); err != nil {
			k.Log.WarnContext(ctx, "a restart may take another NIC", "error", err)
		}
	}
}

// remember notes the NIC of an interface. It reports whether there is something new to save.
func (k *Keeper) remember(i nodenet.Interface, nic nodenet.NIC) (isNew bool) {
	kept := k.memory[i.Network]
	if kept == nil {
		kept = &nodenet.Kept{Match: i.Match.Kept()}
		k.memory[i.Network] = kept
	}
	if kept.Link != nic.Index {
		kept.Addrs = nil // they went with the link, or were removed by the steps before
	}
	if kept.Link == nic.Index && kept.MAC == nic.MAC && kept.PCI == nic.PCI {
		return false
	}
	kept.Link, kept.MAC, kept.PCI = nic.Index, nic.MAC, nic.PCI
	return true
}

// quieten keeps routers on a NIC's network from becoming the node's default ones, once for each NIC
// and name.
func (k *Keeper) quieten(ctx context.Context, nic nodenet.NIC) {
	if k.quiet[nic.Index] == nic.Name {
		return
	}
	err := nl.Sandbox{}.RefuseDefaultRouters(ctx, k.NS.Path(), []string{nic.Name})
	if err != nil {
		k.Log.WarnContext(ctx, "advertisements may set a default route",
			"nic", nic.Name, "error", err)
		return
	}
	k.quiet[nic.Index] = nic.Name
}

// take takes one step.
func (k *Keeper) take(ctx context.Context, s nodenet.Step) error {
	log := k.Log.With("network", s.Network, "nic", s.NIC.Name)
	kept := k.memory[s.Network]
	switch s.Kind {
	case nodenet.Up:
		log.InfoContext(ctx, "interface is set up")
		return k.handle.SetUp(ctx, s.NIC.Index)
	case nodenet.Remove:
		log.InfoContext(ctx, "address is taken away", "address", s.Addr)
		return k.remove(ctx, s, kept)
	case nodenet.Forget:
		delete(k.memory, s.Network)
		delete(k.trials, s.Network)
		delete(k.told, s.Network)
		return save(k.File, k.Boot, k.memory)
	case nodenet.Add:
		return k.add(ctx, s, kept, log)
	case nodenet.Probe:
		k.ask(ctx, s, func(ctx context.Context) (func(*nodenet.Trial), error) {
			err := k.Network.Probe(ctx, s.NIC.Name, s.Addr.Addr())
			return func(t *nodenet.Trial) { free(t, s.Addr) }, err
		})
	case nodenet.Ask:
		k.lease(ctx, s, kept)
	}
	return nil
}

// free notes that nobody else has an address.
func free(t *nodenet.Trial, addr netip.Prefix) {
	if t.Free == nil {
		t.Free = map[netip.Prefix]bool{}
	}
	t.Free[addr] = true
}

// remove removes an address, and then forgets it.
func (k *Keeper) remove(ctx context.Context, s nodenet.Step, kept *nodenet.Kept) error {
	if err := k.handle.RemoveAddr(ctx, s.NIC.Index, s.Addr); err != nil {
		return err
	}
	kept.Addrs = slices.DeleteFunc(kept.Addrs, func(a netip.Prefix) bool { return a == s.Addr })
	return save(k.File, k.Boot, k.memory)
}

// add sets an address.
func (k *Keeper) add(ctx context.Context, s nodenet.Step, kept *nodenet.Kept,
	log *slog.Logger,
) error {
	if !slices.Contains(kept.Addrs, s.Addr) {
		kept.Addrs = append(kept.Addrs, s.Addr)
		if err := save(k.File, k.Boot, k.memory); err != nil {
			kept.Addrs = kept.Addrs[:len(kept.Addrs)-1]
			return err
		}
	}
	log.InfoContext(ctx, "address is set", "address", s.Addr, "again", s.Restore)
	if s.Restore {
		k.Tell(ReasonRestored,
			fmt.Sprintf("network %s: address %s was taken from %s by another program; it is put back",
				s.Network, s.Addr, s.NIC.Name))
	}
	return k.handle.AddAddr(ctx, s.NIC.Index, s.Addr)
}

// lease asks DHCP servers, and probes an address that is new.
func (k *Keeper) lease(ctx context.Context, s nodenet.Step, kept *nodenet.Kept) {
	var old *nodenet.Lease
	if kept != nil {
		old = kept.Lease
	}
	k.ask(ctx, s, func(ctx context.Context) (func(*nodenet.Trial), error) {
		got, err := k.Network.Lease(ctx, s.NIC.Name, s.Asking, old)
		if errors.Is(err, ask.ErrRefused) && old != nil {
			return func(t *nodenet.Trial) { k.lent(s, nil); t.Failed(err, time.Now()) }, nil
		}
		if err == nil && !slices.Contains(s.NIC.Addrs, got.Prefix) {
			if err = k.Network.Probe(ctx, s.NIC.Name, got.Prefix.Addr()); err != nil {
				err = errors.Join(err, k.Network.Decline(s.NIC.Name, got))
			}
		}
		return func(t *nodenet.Trial) {
			k.lent(s, got)
			free(t, got.Prefix)
			t.Confirm = false
		}, err
	})
}

// lent notes a lease; nil for the end of one.
func (k *Keeper) lent(s nodenet.Step, lease *nodenet.Lease) {
	kept := k.memory[s.Network]
	if kept == nil || kept.Link != s.NIC.Index {
		return
	}
	kept.Lease = lease
	if err := save(k.File, k.Boot, k.memory); err != nil {
		k.Log.Warn("a restart asks for an address anew", "network", s.Network, "error", err)
	}
	k.Log.Info("lease has changed", "network", s.Network, "nic", s.NIC.Name, "lease", lease)
}

// ask does what takes time, and has the outcome noted by the loop: done is called after a success.
func (k *Keeper) ask(ctx context.Context, s nodenet.Step,
	do func(context.Context) (done func(*nodenet.Trial), err error),
) {
	k.asking.Go(func() {
		done, err := do(ctx)
		result := func() {
			t := k.trials[s.Network]
			if t == nil {
				return
			}
			t.Busy = false
			switch {
			case t.Link != s.NIC.Index: // it is of another NIC now
			case err != nil:
				t.Failed(err, time.Now())
			default:
				t.Succeeded()
				done(t)
			}
		}
		select {
		case k.results <- result:
		case <-ctx.Done():
		}
	})
}

// failed notes that a step failed in the state of its network.
func (k *Keeper) failed(s nodenet.Step, err error, states []nodenet.State) {
	k.Log.Warn("the node's interface is not as it is to be", "network", s.Network, "step", s.Kind,
		"error", err)
	for i := range states {
		if states[i].Network == s.Network {
			states[i].Condition, states[i].Err = nodenet.Failed, err
		}
	}
}

// trouble returns what is wrong with a network and does not pass of itself; empty for nothing.
func trouble(s *nodenet.State) string {
	lasts := s.Condition == nodenet.Failed || s.Condition == nodenet.Absent
	if !lasts || s.Err == nil {
		return ""
	}
	return s.Err.Error()
}

// tell raises an event for each trouble that is new.
func (k *Keeper) tell(states []nodenet.State) {
	for i := range states {
		s := &states[i]
		text := trouble(s)
		if text != "" && k.told[s.Network] != text {
			k.Tell(ReasonFailed, fmt.Sprintf("network %s: %s", s.Network, text))
		}
		if text != "" || s.Condition == nodenet.Ready {
			k.told[s.Network] = text
		}
	}
}
