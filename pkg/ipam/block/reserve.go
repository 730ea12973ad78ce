package block

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// Reserve makes sure that an Add with these wishes finds its addresses in blocks of this node, and
// so asks the API nothing. It takes no address, and may be called at any time beside anything else.
//
// A block that is reserved counts as one that has just become idle: without another Reserve it is
// given back after idleAfter, and to a node that recalls it at once. Where blocks are shared
// nothing can be reserved, which is no error. ErrFull means that each block of the window is
// somebody's; none of them is recalled. An address that a wish asks for is disregarded.
func (m *Manager) Reserve(ctx context.Context, wishes ...Wish) error {
	wishes = slices.Clone(wishes)
	for i := range wishes {
		wishes[i].Asked = netip.Addr{}
	}
	l, errs := &lease{Manager: m}, []error(nil)
	for range rounds {
		short, err := l.stocked(ctx, wishes)
		switch {
		case errors.Is(err, errStale):
			err = l.renew(ctx)
		case errors.Is(err, errUnknown):
			l.remembered = true
			_, err = m.recollect(ctx)
		case err != nil || short < 0:
			return errors.Join(append(errs, err)...)
		default:
			more, serr := m.stock(ctx, wishes[short], wishes[:short])
			if errs = append(errs, serr); !more { // nor for others like it
				key := wishes[short].key()
				wishes = append(wishes[:short], slices.DeleteFunc(wishes[short:],
					func(w Wish) bool { return w.key() == key })...)
			}
		}
		if err != nil {
			return errors.Join(append(errs, err)...)
		}
	}
	return errors.Join(append(errs,
		fmt.Errorf("containers take each block that this node gets: %w", ErrLater))...)
}

// stocked looks whether the node's own blocks fulfil all wishes, and keeps those that do. short is
// the index of a wish that they do not, else negative.
func (l *lease) stocked(ctx context.Context, wishes []Wish) (short int, err error) {
	err = l.locked(ctx, func(s *session) error {
		if err := l.check(s); err != nil {
			return err
		}
		picks, missing, err := s.pickAll(wishes)
		if short = missing; err != nil {
			return err
		}
		for _, p := range picks {
			if len(p.Used) > 0 {
				continue
			}
			p.Idle = l.now() // as if it had been in use until now
			if err := s.save(p.local); err != nil {
				return err
			}
		}
		return nil
	})
	return short, err
}

// stock gets a block for a wish beside others. more: there may be more to get.
func (m *Manager) stock(ctx context.Context, w Wish, beside []Wish) (more bool, err error) {
	f, err := m.finder(ctx, w, beside, false)
	if err != nil {
		return false, err
	}
	defer func() { f.unlock() }()
	found, share, err := f.begin(ctx)
	if found || share || err != nil {
		return found, err
	}
	if found, err = f.claim(ctx); !found && err == nil {
		err = fmt.Errorf("%w in blocks of %v that nobody has", ErrFull, w)
	}
	return found, err
}
