package file

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/hostfile"
)

// lease reads the lease of an address. It is nil where there is none, and where something else than
// a lease is in its place.
func (x *session) lease(addr netip.Addr) (*lease, error) {
	data, st, err := x.leases.Read(addr.String(), maxLease)
	if errors.Is(err, fs.ErrNotExist) || hostfile.IsNotRegular(err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &lease{addr, parse(data), timeOf(st.Ctim)}, nil
}

// each reads all leases. It goes on past errors.
func (x *session) each(ctx context.Context, visit func(*lease) error) error {
	names, err := x.leases.Names()
	if err != nil {
		return err
	}
	var errs []error
	for _, name := range names {
		addr, ok := leaseName(name)
		if !ok {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		l, err := x.lease(addr)
		if err == nil && l != nil {
			err = visit(l)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// sweep reads all leases, removes the stale ones, and brings the index up to date. If the index
// cannot be written, the sweep is repeated by the next operation; this one knows what it has read.
func (x *session) sweep(ctx context.Context, stale func(*lease) bool) error {
	clear(x.held)
	x.unsure = true
	err := x.step("read all leases")
	if err == nil {
		err = x.each(ctx, func(l *lease) error {
			if stale(l) {
				return x.removeLease(l.addr)
			}
			if x.known(l.key) {
				x.held[l.key] = append(x.held[l.key], l.addr)
			}
			return nil
		})
	}
	if err == nil {
		x.changed = true
		x.unsure = x.reindex() != nil
	}
	return err
}

// afterBoot removes the leases from before the last boot: those that the index had when the last
// operation before the boot ended, and all that are older than the boot.
func (x *session) afterBoot(ctx context.Context) error {
	marks, ended, err := x.marks()
	if err != nil {
		return err
	}
	booted := x.Boot.time()
	err = x.sweep(ctx, func(l *lease) bool {
		return l.changed.Before(booted) || !l.changed.After(ended) && x.lists(l)
	})
	if err != nil {
		return err
	}
	if err := x.step("write mark"); err != nil {
		return err
	}
	if err := x.index.Write(x.mark, unix.O_CREAT, fileMode, nil); err != nil {
		return err
	}
	for _, name := range marks {
		if err := x.index.Remove(name); err != nil {
			return err
		}
	}
	return nil
}

// marks returns the marks of other boots, and when the last operation that wrote one ended.
func (x *session) marks() (names []string, ended time.Time, err error) {
	all, err := x.index.Names()
	if err != nil {
		return nil, ended, err
	}
	for _, name := range all {
		if !strings.HasPrefix(name, markPrefix) {
			continue
		}
		st, err := x.index.Stat(name)
		if err != nil {
			return nil, ended, err
		}
		names = append(names, name)
		if at := timeOf(st.Ctim); at.After(ended) {
			ended = at
		}
	}
	return names, ended, nil
}

// lists reports whether the index has the lease.
func (x *session) lists(l *lease) bool {
	e, err := x.read(entryName(l.key))
	return err == nil && slices.Contains(e.addrs(), l.addr)
}
