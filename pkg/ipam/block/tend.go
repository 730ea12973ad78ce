package block

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	"github.com/braid-cni/braid/pkg/hostfile"
)

const (
	// tendAfter is how often recalls are looked for, inspectAfter how often all else is.
	tendAfter    = 30 * time.Second
	inspectAfter = 5 * time.Minute
	// nothingAfter is how often a node looks for blocks that had none when it last looked.
	nothingAfter = time.Hour
	// idleAfter is how long a block is kept that is not in use.
	idleAfter = 5 * time.Minute
	// ReasonAddressLost is the reason of the event for a pod whose addresses its node may not use any
	// more.
	ReasonAddressLost = "AddressLost"
)

// upkeep is when Tend did its work, and when an Add did what it needs of that.
type upkeep struct {
	Recalls time.Time
	All     time.Time
	// Own and OwnWall are when the node's blocks were last found to be as their objects say, by
	// both clocks, and OwnName is the name that the node had then. Tried is when an Add last failed
	// to find out.
	Own, OwnWall time.Time
	OwnName      string
	Tried        time.Time
	// Recollected is the inode of the directory of what attachments hold, since which that is all
	// that this node's attachments hold of shared blocks; 0 if that is not known.
	Recollected uint64
}

// due reports whether what was done at that time is to be done again.
func (m *Manager) due(at time.Time, after time.Duration) bool {
	age := m.now().Sub(at)
	return age < 0 || age >= after
}

// Tend does what is due: it answers recalls, returns idle blocks, and looks whether the node's
// blocks are still its own. It is quick where nothing is due, and asks the API nothing for long
// where the node has no block. The first Tend in a boot does nothing: then there is enough to do.
func (m *Manager) Tend(ctx context.Context) error {
	if last := m.peek(); last != nil && !m.due(last.Recalls, tendAfter) {
		return nil
	}
	last, err := inside(ctx, m, (*session).beginTending)
	if err != nil || last == nil {
		return err
	}
	if !m.due(last.All, inspectAfter) {
		return m.Answer(ctx)
	}
	err = m.Inspect(ctx)
	if err != nil && last.All.IsZero() {
		err = errors.Join(err, m.note(ctx, func(n *nodeState) { n.Tried = m.now() }))
	}
	return errors.Join(m.Answer(ctx), err)
}

// beginTending notes that recalls are looked for, and returns when what was done before; nil if
// nothing is due.
func (s *session) beginTending() (*upkeep, error) {
	n, err := s.node()
	if err != nil {
		return nil, err
	}
	first := n.Recalls.IsZero()
	blocks, err := s.countBlocks()
	if err != nil || !first && !s.m.due(n.Recalls, n.tendAfter(blocks)) {
		return nil, err
	}
	err = s.note(func(n *nodeState) { n.Recalls = s.m.now() })
	if err != nil || first {
		return nil, err
	}
	return &n.upkeep, nil
}

// TendNow does all that Tend does now and then.
func (m *Manager) TendNow(ctx context.Context) error {
	return errors.Join(m.Answer(ctx), m.Inspect(ctx), m.note(ctx, func(n *nodeState) {
		n.Recalls = m.now()
	}))
}

// peek reads when what was done without the lock, as the file is replaced as a whole; nil where it
// cannot be read.
func (m *Manager) peek() *upkeep {
	data, err := hostfile.Read(filepath.Join(m.Dir, nodeFile), maxFile)
	n := new(nodeState)
	if err != nil || decode(data, n) != nil {
		return nil
	}
	return &n.upkeep
}

// tendAfter returns how often a node with so many blocks asks for recalls. One without blocks looks
// whether the API has any of it, as it may after a boot, until it is known to have none, and then
// seldom.
func (l *upkeep) tendAfter(blocks int) time.Duration {
	switch {
	case blocks > 0 || l.All.IsZero() && l.Tried.IsZero():
		return tendAfter
	case l.All.IsZero():
		return inspectAfter
	}
	return nothingAfter
}

// Answer returns or shares the blocks that other nodes have recalled.
func (m *Manager) Answer(ctx context.Context) error {
	me, err := m.self(ctx)
	if err != nil {
		return err
	}
	recalled, err := m.Store.Blocks(ctx,
		metav1.ListOptions{FieldSelector: "spec.owner.nodeName=" + me.Name + ",spec.recall.by!="})
	if err != nil {
		return fmt.Errorf("list recalled blocks: %w", err)
	}
	var errs []error
	for i := range recalled {
		spec := &recalled[i].Spec
		errs = append(errs, m.alone(ctx, spec.Space, spec.CIDR, func(cidr netip.Prefix) error {
			return m.give(ctx, me, spec.Space, cidr, (*local).ours)
		}))
	}
	return errors.Join(errs...)
}

// alone does something with a block of this node under the lock of its space.
func (m *Manager) alone(
	ctx context.Context, space, cidr string, do func(cidr netip.Prefix) error,
) error {
	p, err := ParseBlock(cidr)
	if err != nil {
		return fmt.Errorf("block of this node in space %s: %w", space, err)
	}
	unlock, err := m.lockSpace(ctx, space)
	if err != nil {
		return err
	}
	defer unlock()
	return do(p)
}

// give takes a block out of use on this node and deletes or shares it, if that may be. The lock of
// the space is held.
func (m *Manager) give(
	ctx context.Context, me *identity, space string, cidr netip.Prefix, may func(*local) bool,
) error {
	if b, err := m.ownBlock(ctx, me, space, cidr); b == nil || err != nil {
		return err
	}
	var b *local
	err := m.locked(ctx, func(s *session) (err error) {
		if b, err = s.block(space, cidr); err != nil || b == nil || !may(b) {
			return err
		}
		b.State = giving
		return s.save(b)
	})
	if err != nil || b == nil || b.State != giving {
		return err
	}
	return m.finishGiving(ctx, me, b)
}

// finishGiving does what a block in state giving is for. The lock of the space is held, so that
// nobody else does.
func (m *Manager) finishGiving(ctx context.Context, me *identity, b *local) error {
	var object *v1alpha1.IPBlock
	stored, err := m.swap(ctx, "give block", b.name(), nil,
		func(current *v1alpha1.IPBlock) (bool, error) {
			if object = current; !me.owns(current) {
				return false, nil
			}
			noted, err := m.find(ctx, b.Space, b.prefix)
			if err != nil || noted == nil || noted.State != giving || noted.Claim != b.Claim {
				return false, errors.Join(err, errRemoved)
			}
			current.Spec.Owner, current.Spec.Recall = nil, nil
			current.Spec.Allocations = allocations(b, me)
			return true, nil
		})
	if err == nil && stored != nil {
		object, err = stored, m.step("gave block")
	}
	if err != nil {
		return err
	}
	return m.gave(ctx, b, object)
}

// allocations returns what is in use of the block as entries of a shared one.
func allocations(b *local, me *identity) []v1alpha1.Allocation {
	var list []v1alpha1.Allocation
	for _, addr := range slices.SortedFunc(maps.Keys(b.Used), netip.Addr.Compare) {
		list = append(list, allocation(addr, b.Used[addr], me))
	}
	return list
}

// Inspect compares the node's blocks with their objects, returns what is idle, says in the
// objects how much is in use, and takes the addresses of before a reboot out of shared blocks.
func (m *Manager) Inspect(ctx context.Context) error {
	now := m.now()
	me, objects, err := m.compare(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for i := range objects {
		spec := &objects[i].Spec
		errs = append(errs, m.alone(ctx, spec.Space, spec.CIDR, func(cidr netip.Prefix) error {
			return m.tidy(ctx, me, cidr, &objects[i])
		}))
	}
	before := func(e v1alpha1.Allocation) bool { return me.named(e.Node) && bootOf(e.Node) != me.Boot }
	errs = append(errs, m.strikeAll(ctx, metav1.ListOptions{ResourceVersion: "0"}, before),
		m.renameEntries(ctx, me))
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return m.note(ctx, func(n *nodeState) { n.All = now })
}

// compare compares the node's blocks with their objects, which it returns: it claims again what is
// in use and has no object, and notes what is another's. It renews the lease if that could be found
// out of each block from which addresses are given.
func (m *Manager) compare(ctx context.Context) (*identity, []v1alpha1.IPBlock, error) {
	now, wall := m.now(), m.wall()
	me, err := m.ask(ctx) // the object may have been made anew; the machine is the same
	if err != nil {
		return nil, nil, err
	}
	objects, err := m.Store.Blocks(ctx,
		metav1.ListOptions{FieldSelector: "spec.owner.nodeName=" + me.Name})
	if err != nil {
		return nil, nil, fmt.Errorf("list blocks of node %s: %w", me.Name, err)
	}
	trust, other := m.inspectAll(ctx, me, objects)
	if trust == nil {
		trust = m.note(ctx, func(n *nodeState) {
			n.Own, n.OwnWall, n.OwnName = now, wall, me.Name
		})
	}
	return me, objects, errors.Join(other, trust)
}

// inspectAll inspects the blocks that are not as their objects say. trust is what was not found out
// of blocks that the node has a file of, which may give addresses; other is about the rest.
func (m *Manager) inspectAll(
	ctx context.Context, me *identity, objects []v1alpha1.IPBlock,
) (trust, other error) {
	blocks := map[string]*local{} // by the objects' names
	err := m.eachBlock(ctx, func(b *local) { blocks[b.name()] = b })
	trusted, errs := []error{err}, []error(nil)
	inspect := func(space, cidr string, object *v1alpha1.IPBlock) error {
		return m.alone(ctx, space, cidr, func(cidr netip.Prefix) error {
			return m.inspect(ctx, me, space, cidr, object)
		})
	}
	for i := range objects {
		object := &objects[i]
		b := blocks[object.Name]
		delete(blocks, object.Name)
		switch {
		case b == nil: // it gives no address
			errs = append(errs, inspect(object.Spec.Space, object.Spec.CIDR, object))
		case !b.confirmed(me, object):
			trusted = append(trusted, inspect(b.Space, b.CIDR, object))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(blocks)) {
		trusted = append(trusted, inspect(blocks[name].Space, blocks[name].CIDR, nil))
	}
	return errors.Join(trusted...), errors.Join(errs...)
}

// confirmed reports whether the object, as it was listed, says of the block what the node has
// noted.
func (b *local) confirmed(me *identity, object *v1alpha1.IPBlock) bool {
	owner := object.Spec.Owner
	if b.UID != object.UID || owner == nil || owner.NodeName != me.Name {
		return false
	}
	return b.State == dormant ||
		b.State == owned && owner.NodeUID == me.UID && bootOf(owner) == me.Boot
}

// inspect looks at one block; object is nil if the API has none of this node's. The lock of the
// space is held.
func (m *Manager) inspect(
	ctx context.Context, me *identity, space string, cidr netip.Prefix, object *v1alpha1.IPBlock,
) error {
	b, err := m.ownBlock(ctx, me, space, cidr)
	switch {
	case err != nil || b == nil || b.State == lost || b.State == claiming:
		return err
	// else it was claimed again and the answer lost, or the list is older than the block
	case object == nil || object.UID != b.UID:
		return m.reclaim(ctx, me, b)
	case b.State == owned && (object.Spec.Owner.NodeUID != me.UID ||
		bootOf(object.Spec.Owner) != me.Boot):
		_, err = m.takeUp(ctx, me, b) // so that nobody takes it for that of a node that is gone
	}
	return err
}

// tidy returns a block of the node if it is idle; else its object is to say how much is in use.
// The lock of the space is held.
func (m *Manager) tidy(
	ctx context.Context, me *identity, cidr netip.Prefix, object *v1alpha1.IPBlock,
) error {
	b, err := m.find(ctx, object.Spec.Space, cidr)
	switch {
	case err != nil || b == nil || b.UID != object.UID || !b.ours():
		return err
	case m.idle(b):
		return m.give(ctx, me, b.Space, b.prefix, m.idle)
	}
	return m.report(ctx, b, object)
}

// idle reports whether the block has been without use for long.
func (m *Manager) idle(b *local) bool {
	return b.ours() && len(b.Used) == 0 && m.now().Sub(b.Idle) >= idleAfter
}

// report writes the status of the object, if it has changed.
func (m *Manager) report(ctx context.Context, b *local, object *v1alpha1.IPBlock) error {
	used := int32(len(b.Used)) //nolint:gosec // at most Size
	if object.Status.Used == used && object.Status.Free == Size-used {
		return nil
	}
	object.Status = v1alpha1.IPBlockStatus{Used: used, Free: Size - used}
	err := m.Store.UpdateBlockStatus(ctx, object)
	if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		return fmt.Errorf("write status of block %s: %w", object.Name, err)
	}
	return nil
}

// renameEntries writes the node's name into what its containers hold of shared blocks under an
// earlier one, whose Node object may be gone.
func (m *Manager) renameEntries(ctx context.Context, me *identity) error {
	if len(me.Former) == 0 {
		return nil
	}
	earlier := func(e v1alpha1.Allocation) bool {
		return me.named(e.Node) && e.Node.NodeName != me.Name
	}
	return m.editAll(ctx, metav1.ListOptions{}, earlier,
		func(object *v1alpha1.IPBlock) (changed bool) {
			for i := range object.Spec.Allocations {
				e := &object.Spec.Allocations[i]
				if earlier(*e) {
					e.Node, changed = me.node(""), true
				}
				if e.Second != nil && earlier(secondOf(*e)) {
					e.Second.Node, changed = me.node(""), true
				}
			}
			return changed
		})
}

// reclaim is for a block that seems to have no object of this node's. The lock of the space is
// held.
func (m *Manager) reclaim(ctx context.Context, me *identity, b *local) error {
	object, err := m.lookUp(ctx, b.name())
	switch {
	case err != nil:
		return err
	case me.owns(object) && object.Spec.Owner.NodeName != me.Name:
		_, err := m.takeUp(ctx, me, b)
		return err
	case me.owns(object):
		_, err := m.become(ctx, b.Space, b.prefix, b.State, object.UID)
		return err
	case object != nil:
		return m.gave(ctx, b, object)
	case len(b.Used) == 0 || b.State != owned:
		return m.lose(ctx, b)
	}
	made, err := m.Store.CreateBlock(ctx, m.object(b.Space, b.prefix, me.node(b.Claim)))
	if err != nil { // where it exists by now, the next look sees whose it is
		return fmt.Errorf("claim block %s again: %w", b.name(), err)
	}
	m.Log.WarnContext(ctx, "claimed a block again whose object was deleted while addresses of it "+
		"were in use", "space", b.Space, "block", b.prefix)
	_, err = m.become(ctx, b.Space, b.prefix, owned, made.UID)
	return err
}
