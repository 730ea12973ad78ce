package block

import (
	"context"
	"errors"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/braid-cni/braid/pkg/failure"
)

// Grace is how long a controller must see that a node's object is gone, or another, before it frees
// the blocks and addresses of that node. A node's lease ends
// before, and with its end the node hands out no address of its blocks any more.
const Grace = 20 * time.Minute

const (
	// leaseFor is how long a node may give addresses out of its blocks after it last saw that they
	// are its own. The margin is for what an operation takes, and for clocks that do not run alike.
	leaseFor    = Grace - leaseMargin
	leaseMargin = 2 * time.Minute
	// renewAfter is when an Add looks again. If that fails it does without, until the lease ends,
	// and the next one after renewAgain looks.
	renewAfter = 10 * time.Minute
	renewAgain = 30 * time.Second
	// lapsedAgain is the same after the lease's end, when no address is given without the look.
	lapsedAgain = 5 * time.Second
	// A look that may fail takes at most lookWithin, and lookPerBlock for each block of the node.
	lookWithin   = 2 * time.Second
	lookPerBlock = 20 * time.Millisecond
)

// standing is how far the node may trust that its blocks are its own.
type standing int

const (
	leaseOver  standing = iota // no address is given without a look at the API
	leaseDue                   // a look is to be tried
	leaseValid                 // no look is needed
)

// standing reads the lease. Two clocks count its time: neither the boot clock, which stands still
// while a machine is suspended, nor the wall clock, which can be set, is enough.
func (m *Manager) standing(last *upkeep) standing {
	age, wallAge := m.now().Sub(last.Own), m.wall().Sub(last.OwnWall)
	switch {
	case last.Own.IsZero() || last.OwnWall.IsZero() || last.OwnName != m.NodeName:
		return leaseOver // never, or under a name whose Node object may be gone for long
	case age < 0 || wallAge < -leaseMargin || max(age, wallAge) >= leaseFor:
		return leaseOver
	case max(age, wallAge) >= renewAfter:
		return leaseDue
	}
	return leaseValid
}

// lease is what one operation knows of the node's right to give addresses of its blocks.
type lease struct {
	*Manager
	// looked: it has looked at the blocks' objects. remembered: it has asked the API what attachments
	// hold, or need not.
	looked, remembered bool
}

var (
	// errStale means that the node has not looked for long whether its blocks are its own.
	errStale = errors.New("the node's blocks may be another's by now")
	// errUnknown means that local state was lost, or is new: what it lacks may still be held.
	errUnknown = errors.New("it is not known what is held")
)

// check returns an error where an address must not be given yet: errStale without renew, errUnknown
// without recollect.
func (l *lease) check(s *session) error {
	last, err := s.node()
	if err != nil {
		return err
	}
	standing := l.standing(&last.upkeep)
	if standing == leaseOver || standing == leaseDue && !l.looked && l.due(last.Tried, renewAgain) {
		return errStale
	}
	if !l.remembered && !s.recollected() {
		return errUnknown
	}
	return nil
}

// renew looks whether the node's blocks are its own, unless another operation has just done so. A
// look that fails, for whatever reason, is an error only after the end of the lease, or if the
// cluster does not know the node.
func (l *lease) renew(ctx context.Context) error {
	last, blocks, err := l.leaseState(ctx)
	if err != nil {
		return err
	}
	within, cancel := ctx, context.CancelFunc(func() {})
	if l.standing(&last) != leaseOver {
		within, cancel = context.WithTimeout(ctx, lookWithin+time.Duration(blocks)*lookPerBlock)
	}
	defer cancel()
	unlock, err := l.lockDir(within, blocksDir)
	if err == nil {
		defer unlock()
		if last, _, err = l.leaseState(ctx); err != nil || l.standing(&last) == leaseValid {
			return err
		}
		if l.standing(&last) == leaseOver && !l.due(last.Tried, lapsedAgain) {
			return l.lapsed(&last, fmt.Errorf("the API server was asked less than %v ago: %w",
				lapsedAgain, ErrLater))
		}
		_, _, err = l.compare(within)
	}
	return l.renewed(ctx, err)
}

// leaseState is when what was done, and how many blocks the node has.
func (m *Manager) leaseState(ctx context.Context) (last upkeep, blocks int, err error) {
	err = m.locked(ctx, func(s *session) error {
		n, err := s.node()
		if err != nil {
			return err
		}
		last = n.upkeep
		blocks, err = s.countBlocks()
		return err
	})
	return last, blocks, err
}

// renewed is what a look that ended with this error means for the operation.
func (l *lease) renewed(ctx context.Context, lookErr error) error {
	l.looked = true
	if lookErr == nil || apierrors.IsNotFound(lookErr) || apierrors.IsBadRequest(lookErr) {
		return lookErr // the cluster does not know the node, or no node can have the name
	}
	last, _, err := l.leaseState(ctx)
	if err != nil {
		return errors.Join(err, lookErr)
	}
	if l.standing(&last) == leaseValid { // what failed was no block that gives addresses
		l.Log.WarnContext(ctx, "not all blocks of this node could be looked at", "error", lookErr)
		return nil
	}
	err = l.note(ctx, func(n *nodeState) { n.Tried = l.now() })
	if err != nil || l.standing(&last) == leaseOver {
		return errors.Join(err, l.lapsed(&last, lookErr))
	}
	l.Log.WarnContext(ctx, "addresses are given without a look whether the blocks are still this "+
		"node's", "error", lookErr)
	return nil
}

// lapsed returns the error that the node may not give addresses of its own blocks.
func (m *Manager) lapsed(last *upkeep, why error) error {
	since := "in this boot"
	if !last.Own.IsZero() {
		since = "for " + max(m.now().Sub(last.Own), m.wall().Sub(last.OwnWall)).Round(time.Second).
			String()
	}
	return &failure.Error{
		Reason: failure.APIUnavailable, Field: "kubeconfig",
		Err: fmt.Errorf("node %s has not seen %s that its blocks of addresses are its own, and gives "+
			"none without: %w", m.NodeName, since, why),
		Fix: "see that the API server answers this node, and that the credentials of the kubeconfig " +
			"may get nodes and list ipblocks",
	}
}
