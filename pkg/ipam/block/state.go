package block

import (
	"context"
	"encoding"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"maps"
	"net/netip"
	"path"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/hostfile"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// The local state, below Manager.Dir:
//
//	node                         who this node is, and in which boot
//	held/<hash>                  what one attachment holds or is about to hold; written first
//	blocks/<space>/<shelf>/<ip>  a block that this node owns, or may own
//	tended                       when upkeep was done, until when the blocks are the node's own
//	full/<hash>                  a range in which an Add found nothing free
//
// A file "new" in any of these directories is one that is, or was, being written.
//
// The locks are flock(2): who changes anything holds that of Manager.Dir itself, who asks the API
// for a space's blocks that of blocks/<space>, and who compares all blocks with their objects
// before an Add that of blocks.
//
// Blocks whose addresses are all in use stand on a shelf of their own, and so do those from which
// nothing may be given, so that what an Add costs does not depend on how much is in use.
const (
	nodeFile   = "node"
	heldDir    = "held"
	blocksDir  = "blocks"
	tendedFile = "tended"
)

// shelf is where a block stands.
type shelf string

const (
	open  shelf = "open"  // something is free
	full  shelf = "full"  // nothing is
	aside shelf = "aside" // nothing may be given
)

func shelves() []shelf { return []shelf{open, full, aside} }

// state is what a node knows of a block of its own.
type state string

const (
	// owned is the only state in which addresses are given.
	owned state = "owned"
	// claiming: the object is about to be created, or was, and the answer is not known.
	claiming state = "claiming"
	// dormant: the block is the node's from before a reboot, and not taken up again yet.
	dormant state = "dormant"
	// giving: the block is about to be deleted or shared.
	giving state = "giving"
	// mended: the file could not be read, or was removed in this boot. What is in use is known from
	// what attachments hold; whose the block is, the object must say. It is taken up again.
	mended state = "mended"
	// lost: the block is somebody else's.
	lost state = "lost"
)

// nobody stands for a holder that is not known. Its addresses are given back by a reboot alone.
func nobody() Holder { return Holder{ID: attachment.ID{ContainerID: "?"}} }

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

func (b *local) use(a netip.Addr, h Holder) {
	b.Used[a] = h
	delete(b.Freed, a)
	b.Idle = time.Time{}
}

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

// held is what an attachment holds.
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

func (a heldAddr) block() string { return NameOf(a.Space, blockOf(a.Addr)) }

func (a heldAddr) check() error {
	if !isSpace(a.Space) || !a.Addr.IsValid() {
		return fmt.Errorf("%v in space %.80q is no address of a block: %w", a.Addr, a.Space, errUnusable)
	}
	return nil
}

// blockKey identifies a block.
type blockKey struct {
	space string
	cidr  netip.Prefix
}

func (b *local) key() blockKey { return blockKey{b.Space, b.prefix} }

// session is the exclusive right to the local state.
type session struct {
	m    *Manager
	tree *tree
	// loaded are the blocks that were read, as they are to be.
	loaded map[blockKey]*local
	// last is what tended says, nil until it is read.
	last *tended
}

// open opens the local state to lock a directory of it.
func (m *Manager) open(dir string) (*tree, error) {
	if m.Locking != nil {
		m.Locking(path.Join(m.Dir, dir))
	}
	return openTree(m.Dir)
}

// locked runs fn with the local state. It never waits for the API.
func (m *Manager) locked(ctx context.Context, fn func(*session) error) error {
	t, err := m.open("")
	if err != nil {
		return err
	}
	defer t.close()
	if err := flock(ctx, t.root); err != nil {
		return err
	}
	return fn(&session{m: m, tree: t, loaded: map[blockKey]*local{}})
}

// inside is locked for what has a result.
func inside[T any](
	ctx context.Context, m *Manager, fn func(*session) (T, error),
) (result T, err error) {
	err = m.locked(ctx, func(s *session) (err error) {
		result, err = fn(s)
		return err
	})
	return result, err
}

// lockSpace takes the exclusive right to ask the API for blocks of a space.
func (m *Manager) lockSpace(ctx context.Context, name string) (unlock func(), err error) {
	if !isSpace(name) {
		return nil, fmt.Errorf("%.80q is no space", name)
	}
	return m.lockDir(ctx, path.Join(blocksDir, name))
}

func (m *Manager) lockDir(ctx context.Context, dir string) (unlock func(), err error) {
	t, err := m.open(dir)
	if err != nil {
		return nil, err
	}
	defer t.close()
	d, err := t.own(dir)
	if err != nil {
		return nil, err
	}
	if err := flock(ctx, d); err != nil {
		d.Close()
		return nil, err
	}
	return d.Close, nil
}

// flock waits for the lock of a directory, which has it until it is closed.
func flock(ctx context.Context, d hostfile.Dir) error {
	return wrap(hostfile.Lock(ctx, d.FD()), "lock %s", d.Path())
}

// read decodes a file of ours.
func (s *session) read(name string, into any) error {
	data, err := s.tree.read(name)
	if err != nil {
		return err
	}
	if err := decode(data, into); err != nil {
		return fmt.Errorf("%s is %w: %w", name, errUnusable, err)
	}
	return nil
}

func decode(data []byte, into any) error {
	if lines, ok := into.(encoding.TextUnmarshaler); ok {
		return lines.UnmarshalText(data)
	}
	return strictjson.Decode(data, into)
}

func encode(value any) ([]byte, error) {
	if lines, ok := value.(encoding.TextMarshaler); ok {
		return lines.MarshalText()
	}
	return json.Marshal(value)
}

// write puts a file in place, whole or not at all.
func (s *session) write(name string, value any) error {
	if err := s.m.step("write " + what(name)); err != nil {
		return err
	}
	data, err := encode(value)
	if err != nil {
		return fmt.Errorf("encode %s: %w", name, err)
	}
	if name == tendedFile {
		s.last = nil
	}
	return s.tree.write(name, data)
}

func (s *session) remove(name string) error {
	if err := s.m.step("remove " + what(name)); err != nil {
		return err
	}
	return s.tree.remove(name)
}

// what returns the kind of a file, for tests that stop at each change.
func what(name string) string { return strings.SplitN(name, "/", 2)[0] }

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
		b := &local{prefix: cidr, shelf: on}
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
		for _, at := range h.Local {
			if at.Space != b.Space || !b.prefix.Contains(at.Addr) {
				continue
			}
			by := h.Holder
			if other, ok := b.Used[at.Addr]; ok && other != by { // one of them was killed before it had it
				by = nobody()
			}
			b.use(at.Addr, by)
		}
	}
	for a := b.prefix.Addr(); !all && b.prefix.Contains(a); a = a.Next() {
		if _, ok := b.Used[a]; !ok {
			b.use(a, nobody())
		}
	}
	return nil
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
