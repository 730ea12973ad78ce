package file

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"

	"golang.org/x/sys/unix"
)

// A network may have had another name, whose directory has leases of it yet. As long as there are
// any, an Add takes their addresses for taken; the first one that finds none removes the directory.
//
// Of an Add under each of the two names at the same time, one sees the leases of the other: each
// has its own directory before it looks for the other one, and keeps both locked. The locks are
// taken in the order of the names.

// both is begin for an Add. It also opens the directory of the other name.
func (s *Store) both(ctx context.Context) (*session, error) {
	if s.Beside == "" || s.Beside == s.Network {
		return s.begin(ctx, true)
	}
	other := *s
	other.Network, other.Beside = s.Beside, ""
	var beside *session
	if other.Network < s.Network {
		err := s.exist()
		if err == nil {
			beside, err = other.aside(ctx)
		}
		if err != nil {
			return nil, err
		}
	}
	x, err := s.begin(ctx, true)
	if err == nil && other.Network > s.Network {
		beside, err = other.aside(ctx)
	}
	if err != nil {
		beside.end()
		x.end()
		return nil, err
	}
	x.beside = beside
	return x, nil
}

// aside opens the directory of a name for an Add under another one. It returns nil if no lease is
// left in it. This package only reads a directory without an index.
func (s *Store) aside(ctx context.Context) (*session, error) {
	x, err := s.look()
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) ||
		errors.Is(err, unix.ENAMETOOLONG) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if ours, err := x.leases.Has(indexName); err != nil || !ours {
		return x, err
	}
	x.end()
	if x, err = s.begin(ctx, false); x == nil || err != nil {
		return nil, err
	}
	if err := x.catchUp(ctx); err != nil {
		x.end()
		return nil, err
	}
	return x.unlessEmpty()
}

// exist makes the directory if there is none.
func (s *Store) exist() error {
	x, err := s.look()
	if errors.Is(err, fs.ErrNotExist) {
		x, err = s.create()
	}
	if err == nil {
		x.end()
	}
	return err
}

// unlessEmpty returns the session, or ends it and removes its directory where no lease is left.
func (x *session) unlessEmpty() (*session, error) {
	names, err := x.leases.Names()
	if err != nil {
		x.end()
		return nil, err
	}
	for _, name := range names {
		if _, ok := leaseName(name); ok {
			return x, nil
		}
	}
	err = x.clear(names)
	x.changed = false
	x.end()
	return nil, err
}

// clear removes the directory, whose lock is held, with all that this package puts there; the lock
// last, so that those who wait for it find that it is gone.
func (x *session) clear(names []string) error {
	if err := x.step("remove directory"); err != nil {
		return err
	}
	entries, err := x.index.Names()
	for _, name := range entries {
		err = errors.Join(err, x.index.Remove(name))
	}
	for _, name := range names {
		if name != lockName {
			err = errors.Join(err, x.leases.RemoveAny(name))
		}
	}
	if err != nil {
		return err
	}
	dir, _ := x.Roots.Place(x.DataDir)
	parent, err := dir.Open()
	if err != nil {
		return err
	}
	defer parent.Close()
	return errors.Join(x.leases.Remove(lockName), parent.RemoveAny(x.Network))
}

// taken reports whether an address is held, under this name or the other one.
func (x *session) taken(addr netip.Addr) (bool, error) {
	taken, err := x.leases.Has(addr.String())
	if err == nil && !taken && x.beside != nil {
		taken, err = x.beside.leases.Has(addr.String())
	}
	return taken, err
}

// errMoved means that the directory was removed while its lock was waited for.
var errMoved = errors.New("the directory was removed")

// stays returns errMoved unless the lock is still that of the directory.
func (x *session) stays() error {
	var held unix.Stat_t
	if err := unix.Fstat(x.lock, &held); err != nil {
		return x.leases.Fail("look at", lockName, err)
	}
	now, err := x.leases.Stat(lockName)
	if errors.Is(err, fs.ErrNotExist) || err == nil && now.Ino != held.Ino {
		return errMoved
	}
	return err
}
