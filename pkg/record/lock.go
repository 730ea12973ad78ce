package record

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/hostfile"
)

// Sandbox is the exclusive right to work on one sandbox, across processes.
type Sandbox struct {
	store *Store
	id    string
	file  *os.File
	// unfinished is true if the record that was last loaded or saved is not complete, or not known to
	// be. One that is damaged is as a complete one: nobody but the sandbox's own DEL can do anything
	// about it.
	unfinished bool
	// absent is true if there was no record when it was last loaded.
	absent bool
	// later is true if a later Braid's record is there, which this one leaves as it is.
	later bool
}

// Lock locks a sandbox, and waits until no other operation works on it. If ctx is done before, the
// error has reason Busy.
//
// The lock is an flock on a file of its own. Binaries inherit File. So a binary that outlives a
// killed engine keeps the sandbox locked until it is finished, and a retried DEL does not run
// beside the ADD that it has to take back.
func (s *Store) Lock(ctx context.Context, containerID string) (*Sandbox, error) {
	if err := ValidateContainerID(containerID); err != nil {
		return nil, err
	}
	if err := s.ensure(s.sandboxes()); err != nil {
		return nil, err
	}
	b := &Sandbox{store: s, id: containerID}
	var err error
	for locked := false; err == nil && !locked; {
		locked, err = b.lock(func(fd int) (bool, error) {
			err := hostfile.Lock(ctx, fd)
			return err == nil, err
		})
	}
	switch {
	case err == nil:
		return b, nil
	case ctx.Err() != nil:
		return nil, &failure.Error{
			Reason: failure.Busy,
			Err: fmt.Errorf("lock sandbox %s: another operation, or a delegate that it started, is at "+
				"work: %w", containerID, err),
			Fix: "wait for it; `fuser " + b.lockPath() + "` tells which process it is",
		}
	default:
		return nil, stateFailed(fmt.Errorf("lock sandbox %s: %w", containerID, err))
	}
}

func (b *Sandbox) lockPath() string { return b.store.path(b.id) + ".lock" }

// lock takes the lock in that way. The file is removed by whoever finishes with the sandbox, so a
// lock counts only if the file that was locked is still the one of that name.
func (b *Sandbox) lock(take func(fd int) (bool, error)) (bool, error) {
	f, err := os.OpenFile(b.lockPath(), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if IsFull(err) && b.store.fromReserve(b.lockPath()) == nil {
		f, err = os.OpenFile(b.lockPath(), os.O_RDWR|unix.O_NOFOLLOW, 0)
		if errors.Is(err, fs.ErrNotExist) { // whoever had it has finished
			return false, nil
		}
	}
	if err != nil {
		return false, err
	}
	locked, err := take(int(f.Fd()))
	if locked && sameFile(f, b.lockPath()) {
		b.file = f
		return true, nil
	}
	f.Close() //nolint:errcheck // nothing was written
	return false, err
}

// sameFile reports whether the open file is the one that has the path now.
func sameFile(f *os.File, path string) bool {
	held, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Lstat(path)
	return err == nil && os.SameFile(held, named)
}

// TryLock is Lock that does not wait. It returns nil if another operation is at work.
func (s *Store) TryLock(containerID string) (*Sandbox, error) {
	if err := ValidateContainerID(containerID); err != nil {
		return nil, err
	}
	b := &Sandbox{store: s, id: containerID}
	locked, err := b.lock(hostfile.TryLock)
	if err != nil {
		return nil, stateFailed(fmt.Errorf("lock sandbox %s: %w", containerID, err))
	}
	if !locked {
		return nil, nil
	}
	return b, nil
}

// Unfinished returns the sandboxes that an operation is at work on, was killed at, or could not
// bring to its end: those with a lock file. It costs one look at the directory, however many
// records there are.
func (s *Store) Unfinished() ([]string, error) {
	entries, err := os.ReadDir(s.sandboxes())
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, stateFailed(fmt.Errorf("list records: %w", err))
	}
	var ids []string
	for _, e := range entries {
		if id, ok := strings.CutSuffix(e.Name(), ".json.lock"); ok {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

// The waits between two tries at a sandbox of somebody else: each is twice as long as the one
// before.
const (
	firstPutOff = 10 * time.Second
	maxPutOff   = 10 * time.Minute
)

// Due reports whether somebody else's unfinished sandbox may be tried. It costs one look at the
// lock file, whose modification time is when.
func (s *Store) Due(containerID string) bool {
	info, err := os.Lstat(s.path(containerID) + ".lock")
	if err != nil {
		return true
	}
	wait := info.ModTime().Sub(s.now())
	return wait <= 0 || wait > maxPutOff // a clock that was set back keeps nothing waiting
}

// PutOff has Due wait before the next try. The inode's own time of change is when the modification
// time was set, and so tells how long the last wait was.
func (b *Sandbox) PutOff() error {
	var st unix.Stat_t
	if err := unix.Fstat(int(b.file.Fd()), &st); err != nil {
		return stateFailed(fmt.Errorf("put off sandbox %s: %w", b.id, err))
	}
	last := time.Duration(unix.TimespecToNsec(st.Mtim) - unix.TimespecToNsec(st.Ctim))
	wait := min(max(2*last.Round(time.Second), firstPutOff), maxPutOff)
	now := b.store.now()
	if err := os.Chtimes(b.lockPath(), now, now.Add(wait)); err != nil {
		return stateFailed(fmt.Errorf("put off sandbox %s: %w", b.id, err))
	}
	return nil
}

// File returns the locked file, for delegates to inherit.
func (b *Sandbox) File() *os.File { return b.file }

// Unlock unlocks the sandbox. If nothing is unfinished, it removes the lock file, and what a killed
// process left of a write. So a lock file that nobody holds marks a sandbox that needs a hand.
// Unlock works even if a plugin left a process behind that holds the file.
func (b *Sandbox) Unlock() {
	if !b.unfinished {
		os.Remove(b.tmp())      //nolint:errcheck // there is none, as a rule
		os.Remove(b.lockPath()) //nolint:errcheck // a lock file too many does no harm
	}
	b.Release()
}

// Release unlocks the sandbox and changes nothing: it stays marked as it was found.
func (b *Sandbox) Release() {
	unix.Flock(int(b.file.Fd()), unix.LOCK_UN) //nolint:errcheck // closing does the same
	b.file.Close()                             //nolint:errcheck // nothing was written
}
