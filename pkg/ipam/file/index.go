package file

import (
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/hostfile"
)

const (
	// newName is what is written before it gets its name.
	newName = "new"
	// markPrefix begins the name of the mark of a boot.
	markPrefix = "boot-"
	// nameBytes is the length of a hash that names a file, in bytes.
	nameBytes = 16
	// maxEntry bounds what is read of an entry, in bytes.
	maxEntry = 1 << 20
)

// entry is a file of the index: what a key holds, or is about to hold. None of it reads like a
// lease: the reference looks at all files.
type entry struct {
	ContainerID string `json:"containerID"`
	IfName      string `json:"ifname"`
	// Adds has the addresses of each ADD. An ADD that is complete holds all of its.
	Adds [][]netip.Addr `json:"adds"`
	// Found are the addresses of the entry whose leases were found, which no Add here has made.
	Found []netip.Addr `json:"found,omitempty"`
}

func newEntry(key attachment.ID) *entry {
	return &entry{ContainerID: key.ContainerID, IfName: key.IfName}
}

func (e *entry) key() attachment.ID {
	return attachment.ID{ContainerID: e.ContainerID, IfName: e.IfName}
}

func (e *entry) addrs() []netip.Addr { return slices.Concat(e.Adds...) }

// errBadEntry means that a file of the index was not written by this package.
var errBadEntry = errors.New("is no index entry")

// read reads the entry of that name.
func (x *session) read(name string) (*entry, error) {
	data, _, err := x.index.Read(name, maxEntry)
	if hostfile.IsNotRegular(err) {
		return nil, x.index.Fail("read", name, errBadEntry)
	}
	if err != nil {
		return nil, err
	}
	e := &entry{}
	odd := func(a netip.Addr) bool { return !a.IsValid() || a.Zone() != "" }
	err = json.Unmarshal(data, e)
	if err != nil || entryName(e.key()) != name || slices.ContainsFunc(e.addrs(), odd) {
		return nil, x.index.Fail("read", name, errBadEntry)
	}
	return e, nil
}

// load returns what the index knows of the key. A bad entry is made anew of the leases.
func (x *session) load(ctx context.Context, key attachment.ID) (*entry, error) {
	e, err := x.read(entryName(key))
	if errors.Is(err, errBadEntry) {
		if err := x.sweep(ctx, func(*lease) bool { return false }); err != nil {
			return nil, err
		}
		e, err = x.read(entryName(key))
	}
	if errors.Is(err, fs.ErrNotExist) {
		return newEntry(key), nil
	}
	return e, err
}

// finished is load for an ADD. It removes what an interrupted ADD or DEL left.
func (x *session) finished(ctx context.Context, key attachment.ID) (*entry, error) {
	e, err := x.load(ctx, key)
	if err != nil {
		return nil, err
	}
	var whole [][]netip.Addr
	for _, add := range e.Adds {
		held, err := x.holds(key, add)
		if err != nil {
			return nil, err
		}
		if len(held) == len(add) {
			whole = append(whole, add)
		} else if _, err := x.removeLeases(key, held); err != nil {
			return nil, err
		}
	}
	if len(whole) == len(e.Adds) {
		return e, nil
	}
	e.Adds = whole
	return e, x.save(e)
}

// holds returns those of the addresses that the key has a lease of.
func (x *session) holds(key attachment.ID, addrs []netip.Addr) ([]netip.Addr, error) {
	var held []netip.Addr
	for _, addr := range addrs {
		l, err := x.lease(addr)
		if err != nil {
			return nil, err
		}
		if l != nil && l.isOf(key) {
			held = append(held, addr)
		}
	}
	return held, nil
}

// save puts an entry in place of the one that is there; one without addresses is removed.
func (x *session) save(e *entry) error {
	if len(e.Adds) == 0 {
		if err := x.step("remove entry"); err != nil {
			return err
		}
		return x.index.Remove(entryName(e.key()))
	}
	data, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if err := x.writeNew(string(data)); err != nil {
		return err
	}
	if err := x.step("rename entry"); err != nil {
		return err
	}
	if err := x.index.Rename(newName, x.index, entryName(e.key())); err != nil {
		return err
	}
	return nil
}

// writeNew makes the file newName. One that a killed process has left is not overwritten: it may be
// a lease, by a second name.
func (x *session) writeNew(content string) error {
	if err := x.step("write new"); err != nil {
		return err
	}
	err := x.index.Write(newName, unix.O_CREAT|unix.O_EXCL, fileMode, []byte(content))
	if errors.Is(err, fs.ErrExist) {
		if err = x.removeNew(); err == nil {
			err = x.index.Write(newName, unix.O_CREAT|unix.O_EXCL, fileMode, []byte(content))
		}
	}
	return err
}

func (x *session) removeNew() error {
	if err := x.step("remove new"); err != nil {
		return err
	}
	return x.index.Remove(newName)
}

// reindex makes the index anew from the leases that were read.
func (x *session) reindex() error {
	names, err := x.index.Names()
	if err != nil {
		return err
	}
	missing := maps.Clone(x.held)
	for _, name := range names {
		if raw, err := hex.DecodeString(name); err != nil || len(raw) != nameBytes {
			continue
		}
		e, err := x.read(name)
		if errors.Is(err, errBadEntry) {
			if err = x.index.Remove(name); err == nil {
				continue
			}
		}
		if err != nil {
			return err
		}
		if e.merge(x.held[e.key()]) {
			if err := x.save(e); err != nil {
				return err
			}
		}
		delete(missing, e.key())
	}
	for key, addrs := range missing {
		e := newEntry(key)
		e.merge(addrs)
		if err := x.save(e); err != nil {
			return err
		}
	}
	return x.removeNew()
}

// merge updates the entry of a key that holds these addresses, and reports whether anything
// changed. ADDs without addresses are dropped; interrupted ones stay.
func (e *entry) merge(held []netip.Addr) bool {
	before := len(e.Adds)
	e.Adds = slices.DeleteFunc(e.Adds, func(add []netip.Addr) bool {
		return !slices.ContainsFunc(add, func(a netip.Addr) bool { return slices.Contains(held, a) })
	})
	changed := len(e.Adds) != before
	listed := e.addrs()
	for _, addr := range held {
		if !slices.Contains(listed, addr) {
			e.Adds, e.Found, changed = append(e.Adds, []netip.Addr{addr}), append(e.Found, addr), true
		}
	}
	found := len(e.Found)
	e.Found = slices.DeleteFunc(e.Found, func(a netip.Addr) bool { return !slices.Contains(held, a) })
	return changed || len(e.Found) != found
}

// made reports whether an Add of this package made a lease.
func (x *session) made(l *lease) bool {
	e, err := x.read(entryName(l.key))
	return err == nil && slices.Contains(e.addrs(), l.addr) && !slices.Contains(e.Found, l.addr)
}

// known reports whether the index may list the key: it is one that the plugins are called with, or
// that of a lease of an old version.
func (x *session) known(key attachment.ID) bool {
	key.Network, key.IfName = x.Network, cmp.Or(key.IfName, "x")
	return key.Validate() == nil
}
