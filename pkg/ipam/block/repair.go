package block

import (
	"errors"
	"fmt"
	"net/netip"
)

// check returns errUnusable for a block that is none of the space, or not as save writes it.
func (b *local) check(space string) error {
	if b.Space != space || b.CIDR != b.prefix.String() {
		return fmt.Errorf("it is of block %.80q of space %.80q: %w", b.CIDR, b.Space, errUnusable)
	}
	for a := range b.Used {
		if !b.prefix.Contains(a) {
			return fmt.Errorf("%v is not of block %v: %w", a, b.prefix, errUnusable)
		}
	}
	switch b.State {
	case owned, claiming, dormant, giving, mended, lost:
		return nil
	}
	return fmt.Errorf("state %.20q is none: %w", b.State, errUnusable)
}

// mend makes the file of a block anew that cannot be read.
func (s *session) mend(name string, cidr netip.Prefix, on shelf, why error) (*local, error) {
	b := s.m.newLocal(name, cidr, mended)
	b.shelf = on
	if err := s.fill(b, true); err != nil {
		return nil, err
	}
	s.m.Log.Error("block made anew, its file could not be read",
		"space", name, "block", cidr, "used", len(b.Used), "error", why)
	return b, s.save(b)
}

// useHeld notes what an attachment holds of the block. An address that another one holds, too, is
// nobody's: one of them was killed before it had it.
func (b *local) useHeld(h *held) {
	for _, at := range h.Local {
		if at.Space != b.Space || !b.prefix.Contains(at.Addr) {
			continue
		}
		by := h.Holder
		if other, ok := b.Used[at.Addr]; ok && other != by {
			by = nobody()
		}
		b.use(at.Addr, by)
	}
}

// fill notes what attachments hold of a block: that was written before the addresses were given.
// all says that it is known of all that hold any; if not, or if one cannot be read, what is left of
// the block is in use, too.
func (s *session) fill(b *local, all bool) error {
	for h, err := range s.everyHeld() {
		if errors.Is(err, errUnusable) {
			s.m.Log.Error("what an attachment holds cannot be read", "error", err)
			all = false
			continue
		}
		if err != nil {
			return fmt.Errorf("find out what is in use of block %v of space %s: %w", b.prefix, b.Space, err)
		}
		b.useHeld(h)
	}
	for a := b.prefix.Addr(); !all && b.prefix.Contains(a); a = a.Next() {
		if _, ok := b.Used[a]; !ok {
			b.use(a, nobody())
		}
	}
	return nil
}
