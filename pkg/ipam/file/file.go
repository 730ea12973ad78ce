// Package file keeps the leases of one network on this node: which interface of which container
// holds which address. Its format is that of the reference's host-local plugin. Both can work on a
// directory at the same time.
//
// Contract: <dataDir>/<network> has a file for each address that is taken, named by it, with
// "<container ID>\r\n<interface>" as content (only the container ID in leases of old versions);
// last_reserved_ip.<index> with the last address of a range set that was given away; and lock, on
// which whoever changes something holds an flock(2). Any number of processes and goroutines may use
// it.
//
// The reference reads every lease. This package has an index, the directory .braid: a file for each
// container and interface lists, for each ADD, the addresses that it holds or is about to hold. It
// is written before the leases. So whatever is killed, the next ADD or DEL of the key removes what
// is left. The index is right while the directory has the modification time that the last operation
// set. If it has another one, something else was at work, and all leases are read once.
//
// No holder of an address survives a reboot. The first operation after a reboot removes the leases
// from before.
//
// An address whose lease cannot be read, or is no regular file, is taken. Symbolic links are not
// followed, but for those on the way to dataDir. Nothing is synced to disk: what a power failure
// damages is from before a reboot.
package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/containernetworking/cni/pkg/utils"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/hostfile"
)

// Store is the leases of one network.
type Store struct {
	// DataDir is an absolute path. It is made, with mode 0755, by the first Add.
	DataDir string
	// Roots are where DataDir may be; nil for anywhere.
	Roots hostfile.Roots
	// Network is the network's name, which the directory in DataDir has.
	Network string
	// Beside is another name of the network, under which it may have leases; empty for none.
	Beside string
	// Boot says when this machine was started; the zero value asks the kernel.
	Boot Boot
	// Step is called for each change before it is made, and an error that it returns is that of the
	// change. For tests; nil otherwise.
	Step func(change string) error

	// named makes leases as on a file system without O_TMPFILE. For tests.
	named bool
}

// Wish is a wish for an address of a range set. The sets of one ADD have no address in common.
type Wish struct {
	Set Set
	// Asked is the address to have, one of the set; the zero Addr for the next one that is free.
	Asked netip.Addr
}

// Lease is an address that was given to a container.
type Lease struct {
	Addr    netip.Prefix
	Gateway netip.Addr
}

// Add takes an address from each range set, or none at all. An attachment that holds an address of
// a set gets no second one, unless it asks for a certain address.
func (s *Store) Add(ctx context.Context, of attachment.ID, wishes []Wish) ([]Lease, error) {
	key, err := s.key(of)
	if err != nil {
		return nil, err
	}
	x, err := s.both(ctx)
	if err != nil {
		return nil, err
	}
	defer x.end()
	if err := x.catchUp(ctx); err != nil {
		return nil, err
	}
	own, err := x.finished(ctx, key)
	if err != nil {
		return nil, err
	}
	old, err := x.finished(ctx, withoutInterface(key))
	if err != nil {
		return nil, err
	}
	held := slices.Concat(own.addrs(), old.addrs(), x.held[key], x.held[withoutInterface(key)])
	addrs, err := x.choose(key, wishes, held)
	if err != nil {
		return nil, err
	}
	if err := x.take(own, addrs); err != nil {
		return nil, err
	}
	leases := make([]Lease, len(addrs))
	for i, addr := range addrs {
		r, _ := wishes[i].Set.Find(addr)
		leases[i] = Lease{netip.PrefixFrom(addr, r.Subnet.Bits()), r.Gateway}
	}
	return leases, nil
}

// Del removes all leases of the attachment. Those of old versions, which name no interface, go with
// the first interface of their container that has no other. perhaps are addresses that it may hold,
// in case that the index does not know it.
func (s *Store) Del(ctx context.Context, of attachment.ID, perhaps []netip.Addr) error {
	key, err := s.key(of)
	if err != nil {
		return err
	}
	x, err := s.begin(ctx, false)
	if x == nil {
		return err
	}
	defer x.end()
	errs := []error{x.catchUp(ctx)}
	released, err := x.release(ctx, key, perhaps)
	if errs = append(errs, err); released == 0 && err == nil {
		_, err = x.release(ctx, withoutInterface(key), perhaps)
		errs = append(errs, err)
	}
	return errors.Join(append(errs, x.removeNew())...)
}

// Release takes back an Add: it removes those of the addresses that the attachment holds.
func (s *Store) Release(ctx context.Context, of attachment.ID, addrs []netip.Addr) error {
	key, err := s.key(of)
	if err != nil {
		return err
	}
	x, err := s.begin(ctx, false)
	if x == nil {
		return err
	}
	defer x.end()
	_, err = x.removeLeases(key, addrs)
	e, lerr := x.load(ctx, key)
	if err := errors.Join(err, lerr); err != nil {
		return err
	}
	e.Adds = slices.DeleteFunc(e.Adds, func(add []netip.Addr) bool {
		return slices.ContainsFunc(add, func(a netip.Addr) bool { return slices.Contains(addrs, a) })
	})
	return x.save(e)
}

// Check reports whether the attachment holds these addresses; without addresses, whether it holds
// any.
func (s *Store) Check(ctx context.Context, of attachment.ID, addrs []netip.Addr) error {
	key, err := s.key(of)
	if err != nil {
		return err
	}
	x, err := s.look()
	if err != nil {
		return err
	}
	defer x.end()
	if len(addrs) == 0 {
		return x.holdsAny(ctx, key)
	}
	var errs []error
	for _, addr := range addrs {
		l, err := x.lease(addr)
		if err == nil && (l == nil || !l.isOf(key)) {
			err = fmt.Errorf("%v has no lease of address %s in %s", key, addr, x.leases.Path())
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// holdsAny returns an error if the attachment has no lease.
func (x *session) holdsAny(ctx context.Context, key attachment.ID) error {
	var holds bool
	err := x.each(ctx, func(l *lease) error {
		holds = holds || l.isOf(key)
		return nil
	})
	if !holds && err == nil {
		err = fmt.Errorf("%v has no lease in %s", key, x.leases.Path())
	}
	return err
}

// GC removes all leases but those of valid attachments. A lease of an old version stays if its
// container is that of one.
func (s *Store) GC(ctx context.Context, valid []attachment.ID) error {
	return s.gc(ctx, valid, false)
}

// GCMade is GC for leases that an Add of this package made.
func (s *Store) GCMade(ctx context.Context, valid []attachment.ID) error {
	return s.gc(ctx, valid, true)
}

// gc removes the leases of attachments that are not valid; made: only those of its Adds.
func (s *Store) gc(ctx context.Context, valid []attachment.ID, made bool) error {
	x, err := s.begin(ctx, false)
	if x == nil {
		return err
	}
	defer x.end()
	if err := x.catchUp(ctx); err != nil {
		return err
	}
	keep := map[attachment.ID]bool{}
	for _, of := range valid {
		if key, err := s.key(of); err == nil { // else it has no lease here
			keep[key], keep[withoutInterface(key)] = true, true
		}
	}
	return x.sweep(ctx, func(l *lease) bool { return !keep[l.key] && (!made || x.made(l)) })
}

// Free returns for each range set how many addresses are free, the maximum of the type for more.
func (s *Store) Free(ctx context.Context, sets []Set) ([]uint64, error) {
	x, err := s.begin(ctx, false)
	if err != nil {
		return nil, err
	}
	taken := make([]uint64, len(sets))
	if x != nil {
		defer x.end()
		if err := x.catchUp(ctx); err != nil {
			return nil, err
		}
		if err := x.count(sets, taken); err != nil {
			return nil, err
		}
	}
	free := make([]uint64, len(sets))
	for i, set := range sets {
		free[i] = set.size() - min(taken[i], set.size())
	}
	return free, nil
}

// count counts, for each set, the names that are addresses of it.
func (x *session) count(sets []Set, taken []uint64) error {
	names, err := x.leases.Names()
	if err != nil {
		return err
	}
	for _, name := range names {
		addr, ok := leaseName(name)
		if !ok {
			continue
		}
		for i, set := range sets {
			if r, ok := set.Find(addr); ok && addr != r.Gateway {
				taken[i]++
			}
		}
	}
	return nil
}

// What an ADD may fail for.
var (
	ErrFull  = errors.New("no address is free")
	ErrTaken = errors.New("is not available: it is held")
	ErrHolds = errors.New("duplicate allocation is not allowed")
)

// choose returns an address for each wish. held are those that the key has already.
func (x *session) choose(
	key attachment.ID, wishes []Wish, held []netip.Addr,
) ([]netip.Addr, error) {
	addrs := make([]netip.Addr, len(wishes))
	for i, w := range wishes {
		var err error
		if w.Asked.IsValid() {
			addrs[i], err = w.Asked, x.free(w.Asked)
		} else if at := slices.IndexFunc(held, func(a netip.Addr) bool {
			_, ok := w.Set.Find(a)
			return ok
		}); at >= 0 {
			err = fmt.Errorf("%v holds address %s already, %w", key, held[at], ErrHolds)
		} else {
			addrs[i], err = x.next(i, w.Set)
		}
		if err != nil {
			return nil, fmt.Errorf("allocate an address of range set %d: %w", i, err)
		}
	}
	return addrs, nil
}

// free returns an error if somebody holds the address.
func (x *session) free(addr netip.Addr) error {
	taken, err := x.taken(addr)
	if err != nil || !taken {
		return err
	}
	by := "what is no lease"
	for _, at := range []*session{x, x.beside} {
		if at == nil {
			continue
		}
		if l, err := at.lease(addr); err == nil && l != nil {
			by = l.key.String()
		}
	}
	return fmt.Errorf("address %s %w by %s", addr, ErrTaken, by)
}

// next returns the first free address behind the one that was given last.
func (x *session) next(index int, set Set) (netip.Addr, error) {
	last, err := x.last(index)
	if err != nil {
		return last, err
	}
	for addr := range set.after(last) {
		if taken, err := x.taken(addr); err != nil || !taken {
			return addr, err
		}
	}
	return last, fmt.Errorf("%w in %v", ErrFull, set)
}

// last returns the address that was given last, not valid where it is not known.
func (x *session) last(index int) (netip.Addr, error) {
	data, _, err := x.leases.Read(lastPrefix+strconv.Itoa(index), maxLease)
	if errors.Is(err, fs.ErrNotExist) {
		return netip.Addr{}, nil
	}
	if err != nil {
		return netip.Addr{}, err
	}
	addr, _ := netip.ParseAddr(string(data)) //nolint:errcheck // then the order begins anew
	return addr.Unmap().WithZone(""), nil
}

// take makes a lease of each address. e is what is known of the key, and has the addresses
// afterwards.
func (x *session) take(e *entry, addrs []netip.Addr) error {
	before := e.Adds
	e.Adds = append(slices.Clip(before), addrs)
	err := x.save(e)
	for i := 0; err == nil && i < len(addrs); i++ {
		err = x.makeLease(e.key(), addrs[i])
	}
	for i := 0; err == nil && i < len(addrs); i++ {
		err = x.setLast(i, addrs[i])
	}
	if err == nil {
		return nil
	}
	_, rerr := x.removeLeases(e.key(), addrs)
	if rerr == nil {
		e.Adds = before
		rerr = x.save(e)
	}
	return errors.Join(err, rerr)
}

// setLast notes the last address that was given of a set of ranges.
func (x *session) setLast(index int, addr netip.Addr) error {
	name := lastPrefix + strconv.Itoa(index)
	if err := x.step("write " + lastPrefix); err != nil {
		return err
	}
	x.changed = true
	return x.leases.Overwrite(name, fileMode, []byte(addr.String()))
}

// release removes the key's leases and then its entry. It returns how many leases there were.
func (x *session) release(
	ctx context.Context, key attachment.ID, perhaps []netip.Addr,
) (int, error) {
	var listed []netip.Addr
	e, lerr := x.load(ctx, key)
	if lerr == nil {
		listed = e.addrs()
	}
	released, err := x.removeLeases(key, slices.Concat(listed, x.held[key], perhaps))
	if err := errors.Join(lerr, err); err != nil {
		return released, err
	}
	e.Adds = nil
	return released, x.save(e)
}

// removeLeases removes those of the leases that are the key's. The addresses are known to be its
// own, so that those which name no interface are, too.
func (x *session) removeLeases(key attachment.ID, addrs []netip.Addr) (removed int, err error) {
	var errs []error
	for _, addr := range addrs {
		l, err := x.lease(addr)
		if err == nil && l != nil && l.isOf(key) {
			err = x.removeLease(addr)
			x.held[l.key] = slices.DeleteFunc(x.held[l.key], func(a netip.Addr) bool { return a == addr })
			removed++
		}
		errs = append(errs, err)
	}
	return removed, errors.Join(errs...)
}

func (x *session) removeLease(addr netip.Addr) error {
	if err := x.step("remove lease"); err != nil {
		return err
	}
	x.changed = true
	return x.leases.Remove(addr.String())
}

// place checks and returns where the store is.
func (s *Store) place() (hostfile.Place, error) {
	if !filepath.IsAbs(s.DataDir) {
		return hostfile.Place{}, fmt.Errorf("directory %q is not an absolute path", s.DataDir)
	}
	if err := utils.ValidateNetworkName(s.Network); err != nil {
		return hostfile.Place{}, fmt.Errorf("network name %q: %w", s.Network, err)
	}
	dir, ok := s.Roots.Place(s.DataDir)
	if !ok {
		return dir, fmt.Errorf("directory %q is beneath none of %q", s.DataDir, s.Roots)
	}
	return dir.Join(s.Network), nil
}
