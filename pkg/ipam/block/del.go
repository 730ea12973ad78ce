package block

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	"github.com/braid-cni/braid/pkg/attachment"
)

// Del releases all that the attachment holds. It needs the API only for addresses of shared
// blocks.
func (m *Manager) Del(ctx context.Context, a attachment.ID) error {
	return wrap(m.del(ctx, a), "give back the addresses of %v", a)
}

// del is Del. What is not told by a file is searched for.
func (m *Manager) del(ctx context.Context, a attachment.ID) error {
	found := false
	elsewhere, err := inside(ctx, m, func(s *session) ([]heldAddr, error) {
		has, err := s.holding(a)
		if found = has != nil && err == nil; !found {
			return nil, nil //nolint:nilerr // it is met again
		}
		return s.release(has)
	})
	if !found {
		has, herr := m.held(ctx, a)
		if has == nil || herr != nil {
			return herr
		}
		elsewhere, err = inside(ctx, m, func(s *session) ([]heldAddr, error) { return s.release(has) })
	}
	if len(elsewhere) == 0 {
		return err
	}
	errs := []error{err}
	for _, at := range distinctBlocks(elsewhere) {
		errs = append(errs, m.releaseShared(ctx, at, a))
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return m.locked(ctx, func(s *session) error { return s.forgetHeld(a) })
}

// forgetHeld forgets an attachment that holds nothing any more.
func (s *session) forgetHeld(a attachment.ID) error {
	return errors.Join(s.remove(heldName(a)), s.forgetFull())
}

// release frees addresses of the node's own blocks. elsewhere are those that may be held in the
// API; if there are none, the attachment is forgotten.
func (s *session) release(has *held) (elsewhere []heldAddr, err error) {
	var errs []error
	elsewhere = slices.Clone(has.Shared)
	for _, at := range distinctBlocks(slices.Clone(has.Local)) {
		b, err := s.block(at.Space, blockOf(at.Addr))
		switch {
		case err != nil:
			errs = append(errs, err)
		case b == nil || b.unsettled():
			elsewhere = append(elsewhere, at)
		default:
			errs = append(errs, s.leave(b, has.Holder.ID))
		}
	}
	err = errors.Join(errs...)
	// a request that is sent may take effect even if this process is killed
	if err == nil && len(elsewhere) > 0 && len(has.Got) > 0 {
		has.Got = nil
		err = s.write(heldName(has.Holder.ID), has)
	}
	if err != nil || len(elsewhere) > 0 {
		return elsewhere, err
	}
	return nil, s.forgetHeld(has.Holder.ID)
}

// leave frees all that an attachment has of a block.
func (s *session) leave(b *local, a attachment.ID) error {
	switch {
	case !b.leave(a, s.m.now()):
		return nil
	case b.State == lost && len(b.Used) == 0:
		return s.drop(b)
	}
	return s.save(b)
}

// Check reports whether the attachment holds these addresses.
func (m *Manager) Check(ctx context.Context, a attachment.ID, addrs []netip.Addr) error {
	has, holds, err := m.holds(ctx, a)
	switch {
	case err != nil:
		return err
	case has == nil, len(addrs) == 0 && len(holds) == 0:
		return fmt.Errorf("%v holds no address", a)
	}
	var errs []error
	for _, addr := range addrs {
		if !slices.ContainsFunc(holds, func(h heldAddr) bool { return h.Addr == addr }) {
			errs = append(errs, fmt.Errorf("%v does not hold address %v", a, addr))
		}
	}
	return errors.Join(errs...)
}

// GC releases what the network's attachments hold that are not valid.
func (m *Manager) GC(ctx context.Context, network string, valid []attachment.ID) error {
	all := holdings{}
	known, err := inside(ctx, m, func(s *session) (bool, error) { return s.recollected(), nil })
	if err == nil && !known {
		all, err = m.recollect(ctx)
	}
	if err != nil {
		return err
	}
	err = m.locked(ctx, func(s *session) error { return s.everyHolder(all) })
	stale := func(a attachment.ID) bool {
		return a.Network == network && a.ContainerID != "" && !slices.Contains(valid, a)
	}
	errs := []error{err}
	for _, h := range all.sorted() {
		if stale(h.Holder.ID) {
			errs = append(errs, m.Del(ctx, h.Holder.ID))
		}
	}
	id, err := m.names(ctx)
	if err != nil {
		return errors.Join(append(errs, err)...)
	}
	// What a killed Add asked for may come after it was given back. Nothing of an earlier boot lives.
	gonePart := func(e v1alpha1.Allocation) bool {
		return id.named(e.Node) && (bootOf(e.Node) != id.Boot || stale(attachmentOf(e)))
	}
	return errors.Join(append(errs, m.strikeAll(ctx, metav1.ListOptions{}, gonePart))...)
}

// everyHolder adds all that hold something by local state. What cannot be read is found in the
// blocks.
func (s *session) everyHolder(all holdings) error {
	for h, err := range s.everyHeld() {
		if err != nil {
			s.m.Log.Error("what an attachment holds cannot be read", "error", err)
			continue
		}
		all.of(h.Holder)
	}
	return s.search(all)
}
