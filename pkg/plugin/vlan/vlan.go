// Package vlan makes the VLAN links that attachments of several networks share, and removes each
// after the last attachment that uses it.
//
// Contract: an attachment that uses a link has a holder, a file named by network, container ID and
// interface. It is written before the link is made and removed after the link, under a lock of the
// node: whatever is killed, the DEL of the attachment leaves nothing. Only a link that this package
// made is removed, which its alias says. A link for the VLAN that is there already is used as it
// is. Where holders were lost, nobody knows who uses a link that this package made: such a link is
// never removed.
package vlan

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/hostfile"
	"github.com/braid-cni/braid/pkg/netns"
	"github.com/braid-cni/braid/pkg/nl"
	"github.com/braid-cni/braid/pkg/sysctl"
)

const (
	// Alias is the alias of a link that this package made.
	Alias = "braid-cni.io/vlan"
	// disowned is the alias of a link whose holders were lost.
	disowned = Alias + " that is kept: its users are not known"
	// group is the link group of a link from its first moment on, when it has no alias yet
	// ("brav").
	group uint32 = 0x62726176
)

// MaxID is the last VLAN ID that a link can have.
const MaxID = 4094

// maxHolder bounds what is read of a holder, in bytes: names of networks can be long.
const maxHolder = 1 << 14

// Links are the VLAN links of a node.
type Links struct {
	// Dir is the directory of the holders.
	Dir string
	// Step, if set, is called with each change before it is made.
	Step func(change string)
}

// Place is the network namespace of a master: the node's, or a pod's.
type Place struct {
	NS     *netns.NS
	Handle *nl.Handle
	InPod  bool
}

// Finder returns the handle of the node's namespace, or of the namespace of the holder's pod: nil
// if that is gone.
type Finder func(inPod bool) (*nl.Handle, error)

// Use returns the link for a VLAN of a master, which it makes if there is none. fresh reports
// whether the holder is new: whoever takes this call back releases only such a holder. It is also
// valid with an error.
func (l *Links) Use(
	ctx context.Context, at Place, by attachment.ID, master *nl.Link, id int,
) (link *nl.Link, fresh bool, err error) {
	dir, err := l.lock(ctx, true)
	if err != nil {
		return nil, false, err
	}
	defer dir.Close()
	link, err = find(ctx, at.Handle, master, id)
	if err != nil && !errors.Is(err, nl.ErrNoLink) {
		return nil, false, err
	}
	name := nameOf(master.Name, id)
	if link != nil {
		name = link.Name
	}
	users := usersOf(name, by, at.InPod)
	known, fresh, err := l.hold(dir, users, by)
	switch {
	case err != nil:
		return nil, fresh, err
	case link == nil:
		link, err = l.make(ctx, at, name, master, id)
	case ours(link):
		err = l.share(ctx, at, link, known)
	}
	return link, fresh, err
}

// share makes a link that this package made ready for one more attachment. Where the holders of
// those before it are not known, the link is kept for good.
func (l *Links) share(ctx context.Context, at Place, link *nl.Link, known bool) error {
	switch {
	case !known:
		l.step("disown " + link.Name)
		return at.Handle.Apply(ctx, nl.SetAlias(link.Index, disowned))
	case link.Alias == "" || !link.Up:
		return l.complete(ctx, at, link)
	}
	return nil
}

// usersOf returns the name of the directory with the holders of a link. A colon is in no
// interface's name.
func usersOf(link string, by attachment.ID, inPod bool) string {
	if !inPod {
		return link
	}
	sum := sha256.Sum256([]byte(by.ContainerID))
	return hex.EncodeToString(sum[:16]) + ":" + link
}

// linkOf returns the link whose holders are in a directory, and whether it is in a pod.
func linkOf(users string) (link string, inPod bool) {
	if _, link, ok := strings.Cut(users, ":"); ok {
		return link, true
	}
	return users, false
}

// nameOf returns the name of the link for a VLAN: MASTER.ID, or where that is too long, a derived
// one.
func nameOf(master string, id int) string {
	name := fmt.Sprintf("%s.%d", master, id)
	if len(name) < unix.IFNAMSIZ {
		return name
	}
	sum := sha256.Sum256([]byte(master))
	return fmt.Sprintf("%.4s%x.%d", master, sum[:3], id)
}

// find finds the link for a VLAN of a master; ErrNoLink if there is none. It has the usual name, or
// whatever name an administrator chose.
func find(ctx context.Context, h *nl.Handle, master *nl.Link, id int) (*nl.Link, error) {
	usual, err := h.Link(ctx, nameOf(master.Name, id))
	if err == nil && usual.VLAN == id && usual.ParentIndex == master.Index {
		return usual, nil
	}
	if err != nil && !errors.Is(err, nl.ErrNoLink) {
		return nil, err
	}
	link, err := h.VLAN(ctx, master.Index, id)
	if errors.Is(err, nl.ErrNoLink) && usual != nil {
		return nil, failure.WithFix(fmt.Errorf("interface %s exists and is not VLAN %d of %s",
			usual.Name, id, master.Name),
			"rename that interface, or make the VLAN's under a name of your own")
	}
	return link, err
}

// ours reports whether this package made a link.
func ours(link *nl.Link) bool {
	return link.VLAN != 0 && (link.Alias == Alias || link.Alias == "" && link.Group == group)
}

// make makes a link. One that is ready has an alias and is up.
func (l *Links) make(
	ctx context.Context, at Place, name string, master *nl.Link, id int,
) (*nl.Link, error) {
	l.step("add " + name)
	switch err := at.Handle.AddVLAN(ctx, nl.NewLink{Name: name, Group: group}, master.Index, id); {
	case errors.Is(err, unix.EOPNOTSUPP):
		return nil, failure.WithFix(err,
			"load the kernel module 8021q on this node, or choose a master that can have VLANs")
	case err != nil:
		return nil, err
	}
	link, err := at.Handle.Link(ctx, name)
	if err != nil {
		return nil, err
	}
	return link, l.complete(ctx, at, link)
}

// complete names a link as ours and sets it up. The node takes no part in the VLAN: without IPv6 it
// neither answers there nor listens to routers. A master that is down is no error: the kernel sets
// its VLAN links up with it.
func (l *Links) complete(ctx context.Context, at Place, link *nl.Link) error {
	l.step("complete " + link.Name)
	err := sysctl.Try(at.NS, sysctl.Setting{
		Key: "net/ipv6/conf/" + link.Name + "/disable_ipv6", Value: "1",
	})
	if err != nil {
		return err
	}
	err = at.Handle.Apply(ctx, nl.SetAlias(link.Index, Alias), nl.SetUp(link.Index))
	if errors.Is(err, unix.ENETDOWN) {
		return nil
	}
	return err
}

// Release removes the holder of an attachment, and with the last one of a link the link.
func (l *Links) Release(ctx context.Context, by attachment.ID, at Finder) error {
	if found, err := l.concerns(by); !found || err != nil {
		return err
	}
	return l.each(ctx, func(dir hostfile.Dir, users string, names []string) error {
		if !slices.Contains(names, by.Hash()) {
			return nil
		}
		return l.release(ctx, dir, users, by.Hash(), at)
	})
}

// concerns reports whether a holder is there, or something that was not finished. It takes no lock,
// for most attachments use no VLAN: nobody but the attachment itself, whose operations come one
// after the other, makes its holder.
func (l *Links) concerns(by attachment.ID) (bool, error) {
	dir, err := hostfile.OpenDir(l.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("open directory of VLAN links: %w", err)
	}
	defer dir.Close()
	all, err := dir.Names()
	if err != nil || slices.Contains(all, unfinished) {
		return true, err
	}
	for _, users := range all {
		names, err := holders(dir, users)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil || len(names) == 0 || slices.Contains(names, by.Hash()) {
			return true, err
		}
	}
	return false, nil
}

// Keep releases the holders of a network but those that are valid.
func (l *Links) Keep(ctx context.Context, network string, valid []attachment.ID, at Finder) error {
	return l.each(ctx, func(dir hostfile.Dir, users string, names []string) error {
		var errs []error
		for _, name := range names {
			held, err := read(dir, users, name)
			if err == nil && held.Network == network && !slices.Contains(valid, held) {
				err = l.release(ctx, dir, users, name, at)
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	})
}

// each calls do, under the lock, with each link's directory and the holders in it, and goes on past
// errors. Directories that are empty afterwards are removed.
func (l *Links) each(
	ctx context.Context, do func(dir hostfile.Dir, users string, names []string) error,
) error {
	dir, err := l.lock(ctx, false)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer dir.Close()
	all, err := dir.Names()
	errs := []error{err}
	for _, users := range all {
		names, err := holders(dir, users)
		if err == nil {
			err = do(dir, users, names)
		}
		errs = append(errs, err)
		if err := os.Remove(filepath.Join(l.Dir, users)); err != nil && !errors.Is(err, unix.ENOTEMPTY) {
			errs = append(errs, fmt.Errorf("remove directory of a VLAN link: %w", err))
		}
	}
	return errors.Join(errs...)
}

// step is where tests kill the process.
func (l *Links) step(change string) {
	if l.Step != nil {
		l.Step(change)
	}
}

// lock opens and locks the directory; closing it unlocks. With create it is made.
func (l *Links) lock(ctx context.Context, create bool) (dir hostfile.Dir, err error) {
	if create {
		if err := os.MkdirAll(l.Dir, 0o700); err != nil {
			return hostfile.NoDir(), fmt.Errorf("make directory of VLAN links: %w", err)
		}
	}
	if dir, err = hostfile.OpenDir(l.Dir); err != nil {
		return hostfile.NoDir(), fmt.Errorf("open directory of VLAN links: %w", err)
	}
	if err := hostfile.Lock(ctx, dir.FD()); err != nil {
		dir.Close()
		return hostfile.NoDir(), fmt.Errorf("lock %s: %w", l.Dir, err)
	}
	if err := dir.Remove(unfinished); err != nil {
		dir.Close()
		return hostfile.NoDir(), err
	}
	return dir, nil
}

// unfinished is the name of a holder that is being written. A colon is in no interface's name.
const unfinished = ":new"

// hold writes a holder, unless it is there. known reports whether the link had a holder before.
func (l *Links) hold(
	dir hostfile.Dir, users string, by attachment.ID,
) (known, fresh bool, err error) {
	l.step("hold " + users)
	if err := dir.Make(users, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return false, false, err
	}
	names, err := holders(dir, users)
	if err != nil || slices.Contains(names, by.Hash()) {
		return len(names) > 0, false, err
	}
	content, err := json.Marshal(by)
	if err != nil {
		return false, false, fmt.Errorf("encode holder: %w", err)
	}
	if err := dir.Write(unfinished, unix.O_CREAT|unix.O_TRUNC, 0o600, content); err != nil {
		return false, false, err
	}
	to, err := dir.Dir(users)
	if err != nil {
		return false, false, err
	}
	defer to.Close()
	err = dir.Rename(unfinished, to, by.Hash())
	return len(names) > 0, err == nil, err
}

// release removes a holder of a link, by the name of its file. The link goes before the last
// holder.
func (l *Links) release(
	ctx context.Context, dir hostfile.Dir, users, file string, at Finder,
) error {
	in, err := dir.Dir(users)
	if err != nil {
		return err
	}
	defer in.Close()
	names, err := in.Names()
	if err != nil {
		return err
	}
	if len(names) == 1 {
		if err := l.remove(ctx, users, at); err != nil {
			return err
		}
	}
	l.step("release " + users)
	return in.Remove(file)
}

// remove removes a link that is ours. One that is gone, or whose namespace is, is removed already.
func (l *Links) remove(ctx context.Context, users string, at Finder) error {
	name, inPod := linkOf(users)
	h, err := at(inPod)
	if err != nil || h == nil {
		return err
	}
	link, err := h.Link(ctx, name)
	if errors.Is(err, nl.ErrNoLink) {
		return nil
	}
	if err != nil || !ours(link) {
		return err
	}
	l.step("remove " + name)
	return h.DeleteLink(ctx, name)
}

// holders lists the holders of a link.
func holders(dir hostfile.Dir, users string) ([]string, error) {
	in, err := dir.Dir(users)
	if err != nil {
		return nil, err
	}
	defer in.Close()
	return in.Names()
}

// read returns the attachment that a holder is of.
func read(dir hostfile.Dir, users, name string) (held attachment.ID, err error) {
	data, err := hostfile.Read(filepath.Join(dir.Path(), users, name), maxHolder)
	if err != nil {
		return held, err
	}
	if err := json.Unmarshal(data, &held); err != nil {
		return held, fmt.Errorf("decode holder %s of VLAN link %s: %w", name, users, err)
	}
	return held, nil
}
