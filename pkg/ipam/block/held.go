package block

import (
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strings"

	"github.com/braid-cni/braid/pkg/attachment"
)

// held is what an attachment holds. The names are those of an older Braid's file.
type held struct {
	Holder Holder `json:"holder"`
	// Got is what an Add gave, or is about to give, by its wishes; none where it is being given back.
	Got []netip.Addr `json:"got,omitempty"`
	// Local are addresses of blocks that this node owned when they were given.
	Local []heldAddr `json:"local,omitempty"`
	// Shared are blocks that the attachment may hold addresses of, by themselves or since they were
	// shared.
	Shared []heldAddr `json:"shared,omitempty"`
}

// heldAddr is an address of a space; of a shared block perhaps another address of it.
type heldAddr struct {
	Space string     `json:"space"`
	Addr  netip.Addr `json:"addr"`
}

// block returns the name of the block that has the address.
func (a heldAddr) block() string { return NameOf(a.Space, blockOf(a.Addr)) }

// check returns errUnusable for what is no address of a space.
func (a heldAddr) check() error {
	if !isSpace(a.Space) || !a.Addr.IsValid() {
		return fmt.Errorf("%v in space %.80q is no address of a block: %w", a.Addr, a.Space, errUnusable)
	}
	return nil
}

func heldName(a attachment.ID) string {
	return path.Join(heldDir, a.Hash())
}

// holding returns what an attachment holds; nil for nothing.
func (s *session) holding(a attachment.ID) (*held, error) {
	h, err := s.readHeld(heldName(a))
	if err == nil && h != nil && h.Holder.ID != a {
		err = fmt.Errorf("%s is that of %v: %w", heldName(a), h.Holder.ID, errUnusable)
	}
	return h, err
}

// readHeld reads a file of heldDir. It is nil if there is none; errUnusable means that its holder
// may hold anything.
func (s *session) readHeld(name string) (*held, error) {
	h := new(held)
	err := s.read(name, h)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	for _, list := range [][]heldAddr{h.Local, h.Shared} {
		for _, a := range list {
			err = errors.Join(err, a.check())
		}
	}
	if cerr := h.Holder.check(); cerr != nil {
		err = errors.Join(err, fmt.Errorf("%s: %w: %w", name, cerr, errUnusable))
	}
	return h, err
}

// everyHeld returns what all attachments hold, in no order.
func (s *session) everyHeld() iter.Seq2[*held, error] {
	return func(yield func(*held, error) bool) {
		names, err := s.tree.list(heldDir)
		if err != nil && !yield(nil, err) {
			return
		}
		for _, name := range names {
			h, err := s.readHeld(path.Join(heldDir, name))
			if err == nil && h == nil {
				continue
			}
			if !yield(h, err) {
				return
			}
		}
	}
}

// holdings are what attachments hold.
type holdings map[attachment.ID]*held

// of returns what the holder has, to be added to.
func (all holdings) of(h Holder) *held {
	if all[h.ID] == nil {
		all[h.ID] = &held{Holder: h}
	}
	return all[h.ID]
}

// sorted returns them in an order that is always the same.
func (all holdings) sorted() []*held {
	return slices.SortedFunc(maps.Values(all), func(a, b *held) int {
		return strings.Compare(a.Holder.Hash(), b.Holder.Hash())
	})
}

// search adds what attachments hold of the node's own blocks, by looking at each.
func (s *session) search(all holdings) error {
	return s.eachBlock(func(b *local) {
		for addr, by := range b.Used {
			if by != nobody() {
				all.of(by).Local = append(all.of(by).Local, heldAddr{b.Space, addr})
			}
		}
	})
}
