package block

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/braid-cni/braid/pkg/attachment"
)

// local is the local state of a block.
type local struct {
	Space string
	CIDR  string
	UID   types.UID
	State state
	// Claim is in the object's owner if that is of this claim, or if the block was taken up by it.
	Claim string
	// Used are the addresses in use, or, of a lost block, still in use.
	Used map[netip.Addr]Holder
	// Freed says since when addresses are free that were in use.
	Freed map[netip.Addr]time.Time
	// Idle is since when nothing is in use.
	Idle time.Time
	// Looked are the spaces beside in which there is no block of the same addresses.
	Looked []string

	prefix netip.Prefix
	shelf  shelf
}

// newLocal makes the local state of a block, with a claim of its own.
func (m *Manager) newLocal(space string, cidr netip.Prefix, s state) *local {
	return &local{
		Space: space, CIDR: cidr.String(), State: s, Claim: m.newClaim(), Used: map[netip.Addr]Holder{},
		Freed: map[netip.Addr]time.Time{}, prefix: cidr,
	}
}

// name returns the name of the object.
func (b *local) name() string { return NameOf(b.Space, b.prefix) }

// ours reports whether the block is the node's to give away.
func (b *local) ours() bool { return b.State == owned || b.State == dormant }

// unsettled says that the object decides what becomes of the block.
func (b *local) unsettled() bool {
	return b.State == claiming || b.State == giving || b.State == mended
}

// place returns the shelf that the block belongs on.
func (b *local) place() shelf {
	switch {
	case b.State != owned:
		return aside
	case len(b.Used) == Size:
		return full
	}
	return open
}

// use notes that the holder has the address. The block is still to be saved.
func (b *local) use(a netip.Addr, h Holder) {
	b.Used[a] = h
	delete(b.Freed, a)
	b.Idle = time.Time{}
}

// free notes that nobody has the address. The block is still to be saved.
func (b *local) free(a netip.Addr, now time.Time) {
	delete(b.Used, a)
	b.Freed[a] = now
	if len(b.Used) == 0 {
		b.Idle = now
	}
}

// leave frees all that the attachment has, and reports whether that was anything.
func (b *local) leave(a attachment.ID, now time.Time) (changed bool) {
	for addr, by := range b.Used {
		if by.ID == a {
			b.free(addr, now)
			changed = true
		}
	}
	return changed
}

// blockKey identifies a block.
type blockKey struct {
	space string
	cidr  netip.Prefix
}

func (b *local) key() blockKey { return blockKey{b.Space, b.prefix} }

func blockPath(space string, on shelf, cidr netip.Prefix) string {
	return path.Join(blocksDir, space, string(on), strings.ReplaceAll(cidr.String(), "/", "-"))
}

// onShelf returns the blocks of a shelf. Names that are none of ours are passed over.
func (s *session) onShelf(space string, on shelf) ([]netip.Prefix, error) {
	names, err := s.tree.list(path.Join(blocksDir, space, string(on)))
	var list []netip.Prefix
	for _, name := range names {
		if i := strings.LastIndexByte(name, '-'); i >= 0 {
			if p, err := ParseBlock(name[:i] + "/" + name[i+1:]); err == nil {
				list = append(list, p)
			}
		}
	}
	return list, err
}

// block returns a block, wherever it stands; nil if there is none. One that cannot be read is
// mended.
func (s *session) block(name string, cidr netip.Prefix) (*local, error) {
	key := blockKey{name, cidr}
	if b, ok := s.loaded[key]; ok {
		return b, nil
	}
	for _, on := range shelves() {
		b := &local{
			Used: make(map[netip.Addr]Holder, Size), Freed: map[netip.Addr]time.Time{},
			prefix: cidr, shelf: on,
		}
		err := s.read(blockPath(name, on, cidr), b)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = b.check(name)
		}
		if errors.Is(err, errUnusable) {
			b, err = s.mend(name, cidr, on, err)
		}
		if err != nil {
			return nil, err
		}
		s.loaded[key] = b
		return b, nil
	}
	return nil, nil
}

// save writes a block and puts it on its shelf. The order is such that whoever is killed in between
// leaves it where it is looked at.
func (s *session) save(b *local) error {
	to := b.place()
	if b.shelf == "" {
		b.shelf = to
	}
	if b.shelf != to && (to == open || b.shelf == full) {
		if err := s.move(b, to); err != nil {
			return err
		}
	}
	s.loaded[b.key()] = b
	if err := s.write(blockPath(b.Space, b.shelf, b.prefix), b); err != nil || b.shelf == to {
		return err
	}
	return s.move(b, to)
}

// move puts the file of a block on another shelf as it is.
func (s *session) move(b *local, to shelf) error {
	if err := s.m.step("move block"); err != nil {
		return err
	}
	err := s.tree.move(blockPath(b.Space, b.shelf, b.prefix), blockPath(b.Space, to, b.prefix))
	if err != nil {
		return fmt.Errorf("move block %v of space %s: %w", b.prefix, b.Space, err)
	}
	b.shelf = to
	return nil
}

// drop forgets a block.
func (s *session) drop(b *local) error {
	delete(s.loaded, b.key())
	return s.remove(blockPath(b.Space, b.shelf, b.prefix))
}

// countBlocks counts the blocks that have local state.
func (s *session) countBlocks() (n int, err error) {
	err = s.eachPath(func(string, netip.Prefix) error {
		n++
		return nil
	})
	return n, err
}

// eachBlock goes on past blocks that cannot be read.
func (s *session) eachBlock(do func(*local)) error {
	return s.eachPath(func(space string, cidr netip.Prefix) error {
		b, err := s.block(space, cidr)
		if err == nil && b != nil {
			do(b)
		}
		return err
	})
}

// eachPath goes on past errors.
func (s *session) eachPath(do func(space string, cidr netip.Prefix) error) error {
	spaces, err := s.tree.list(blocksDir)
	errs := []error{err}
	for _, space := range slices.DeleteFunc(spaces, func(name string) bool { return !isSpace(name) }) {
		for _, on := range shelves() {
			prefixes, err := s.onShelf(space, on)
			errs = append(errs, err)
			for _, p := range prefixes {
				errs = append(errs, do(space, p))
			}
		}
	}
	return errors.Join(errs...)
}

// eachBlock visits all blocks that have local state.
func (m *Manager) eachBlock(ctx context.Context, do func(*local)) error {
	return m.locked(ctx, func(s *session) error { return s.eachBlock(do) })
}
