package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/hostfile"
)

const (
	dirMode  = 0o755
	fileMode = 0o600

	lockName  = "lock"
	indexName = ".braid"
	// aside is how far, at least, the time that a directory is left with lies before the present one:
	// further than clocks are coarse.
	aside = 2 * time.Second
)

// session is the exclusive right to work on the directory of a store.
type session struct {
	*Store
	// leases is the directory, index the one of its index.
	leases, index hostfile.Dir
	// lock is the open lock file, -1 for none.
	lock int
	// mark is the file in the index whose modification time is that which the directory was left with
	// in this boot.
	mark string
	// changed is true if the directory must be left with a new time; unsure if it must not, because
	// the index may lack leases.
	changed, unsure bool
	// held is what all keys hold, if all leases were read.
	held map[attachment.ID][]netip.Addr
	// beside is the session of Store.Beside; nil where there is none.
	beside *session
}

// look opens the directory without the right to change anything.
func (s *Store) look() (*session, error) {
	place, err := s.place()
	if err != nil {
		return nil, err
	}
	x := &session{Store: s, index: hostfile.NoDir(), lock: -1, held: map[attachment.ID][]netip.Addr{}}
	x.leases, err = place.Open()
	return x, err
}

// begin waits until nobody else works on the directory. Where there is none, it is made, or the
// session is nil.
func (s *Store) begin(ctx context.Context, create bool) (x *session, err error) {
	for {
		if x, err = s.tryBegin(ctx, create); !errors.Is(err, errMoved) {
			return x, err
		}
	}
}

// tryBegin takes the lock of the directory. It is nil if there is none, unless it is to be created.
func (s *Store) tryBegin(ctx context.Context, create bool) (*session, error) {
	x, err := s.look()
	// what is no directory, and cannot be one, holds nothing
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) ||
		errors.Is(err, unix.ENAMETOOLONG) {
		if !create {
			return nil, nil
		}
		if x, err = s.create(); err != nil {
			return nil, err
		}
	}
	if err != nil {
		return nil, err
	}
	if err = x.enter(ctx); err != nil {
		x.end()
		return nil, err
	}
	return x, nil
}

func (s *Store) create() (*session, error) {
	place, err := s.place()
	if err == nil {
		err = s.step("make directory")
	}
	if err != nil {
		return nil, err
	}
	made, err := place.Make(dirMode)
	if err != nil {
		return nil, fmt.Errorf("make directory %s: %w", place, err)
	}
	made.Close()
	return s.look()
}

// enter takes the lock and opens the index.
func (x *session) enter(ctx context.Context) (err error) {
	x.lock, err = x.leases.Open(lockName, unix.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		if err := x.step("make lock"); err != nil {
			return err
		}
		x.lock, err = x.leases.Open(lockName, unix.O_RDWR|unix.O_CREAT, fileMode)
		if errors.Is(err, fs.ErrNotExist) {
			return errMoved
		}
	}
	if err != nil {
		return err
	}
	if err := x.wait(ctx); err != nil {
		return err
	}
	if err := x.stays(); err != nil {
		return err
	}
	x.index, err = x.leases.Dir(indexName)
	if errors.Is(err, fs.ErrNotExist) {
		if err := x.step("make index"); err != nil {
			return err
		}
		if err := x.leases.Make(indexName, dirMode); err != nil {
			return err
		}
		x.index, err = x.leases.Dir(indexName)
	}
	if err != nil {
		return err
	}
	boot, err := x.Boot.id()
	x.mark = markPrefix + boot
	return err
}

// wait takes the lock. It is the open file that has it, so goroutines exclude each other as
// processes do.
func (x *session) wait(ctx context.Context) error {
	err := hostfile.Lock(ctx, x.lock)
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return fmt.Errorf("wait for the lock %s: %w", filepath.Join(x.leases.Path(), lockName), err)
	default:
		return x.leases.Fail("lock", lockName, err)
	}
}

// end lets others in. A session that is nil has nobody out.
func (x *session) end() {
	if x == nil {
		return
	}
	x.beside.end()
	if x.changed && !x.unsure {
		x.remember() //nolint:errcheck // if it fails, the next operation reads all leases
	}
	x.index.Close()
	x.leases.Close()
	if x.lock >= 0 {
		unix.Close(x.lock) //nolint:errcheck // opened for reading
	}
}

// remember leaves the directory with a time that nothing else can give it: one in the past, to an
// arbitrary nanosecond.
func (x *session) remember() error {
	if err := x.step("mark"); err != nil {
		return err
	}
	ts := unix.NsecToTimespec(time.Now().Add(-aside - rand.N(time.Second)).UnixNano())
	if err := setTime(x.index, x.mark, ts); err != nil {
		return err
	}
	if err := x.step("mark directory"); err != nil {
		return err
	}
	return setTime(x.leases, ".", ts)
}

// catchUp brings the index up to date after a reboot, or after something else changed the
// directory.
func (x *session) catchUp(ctx context.Context) error {
	marked, err := x.index.Stat(x.mark)
	if errors.Is(err, fs.ErrNotExist) {
		return x.afterBoot(ctx)
	}
	if err != nil {
		return err
	}
	var now unix.Stat_t
	if err := unix.Fstat(x.leases.FD(), &now); err != nil || now.Mtim == marked.Mtim {
		return err
	}
	return x.sweep(ctx, func(*lease) bool { return false })
}

// step announces a change.
func (s *Store) step(change string) error {
	if s.Step == nil {
		return nil
	}
	return s.Step(change)
}

// makeLease makes a lease in one step: a file without a name gets its content first. It fails with
// fs.ErrExist if there is one.
func (x *session) makeLease(key attachment.ID, addr netip.Addr) error {
	if err := x.step("write lease"); err != nil {
		return err
	}
	text := key.ContainerID + lineBreak + key.IfName
	if x.named {
		return x.makeNamed(text, addr)
	}
	fd, err := unix.Openat(x.leases.FD(), ".", unix.O_TMPFILE|unix.O_WRONLY|unix.O_CLOEXEC, fileMode)
	if err != nil {
		return x.makeNamed(text, addr)
	}
	defer unix.Close(fd) //nolint:errcheck // what matters is that it was written
	if err := hostfile.WriteAll(fd, []byte(text)); err != nil {
		return x.leases.Fail("write", addr.String(), err)
	}
	return x.link(unix.AT_FDCWD, "/proc/self/fd/"+strconv.Itoa(fd), addr, unix.AT_SYMLINK_FOLLOW)
}

// makeNamed is for file systems that have no files without a name. If the process is killed
// meanwhile, the file stays until the next ADD or DEL.
func (x *session) makeNamed(text string, addr netip.Addr) error {
	if err := x.writeNew(text); err != nil {
		return err
	}
	return errors.Join(x.link(x.index.FD(), newName, addr, 0), x.removeNew())
}

// link makes the file of a lease out of one that is whole. It fails if the address has one.
func (x *session) link(at int, source string, addr netip.Addr, flags int) error {
	if err := x.step("link lease"); err != nil {
		return err
	}
	x.changed = true
	if err := unix.Linkat(at, source, x.leases.FD(), addr.String(), flags); err != nil {
		return x.leases.Fail("create", addr.String(), err)
	}
	return nil
}

// setTime sets the modification time of a file.
func setTime(d hostfile.Dir, name string, ts unix.Timespec) error {
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, ts}
	if err := unix.UtimesNanoAt(d.FD(), name, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return d.Fail("set time of", name, err)
	}
	return nil
}

func timeOf(ts unix.Timespec) time.Time { return time.Unix(ts.Unix()) }
