package record

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// goneFor is how long a sandbox that was removed is remembered at least. Runtimes repeat a DEL for
// as long as it fails, and the kubelet removes each sandbox once more, a minute or so after its
// pod.
const goneFor = time.Hour

// Gone reports whether all that was recorded of the sandbox was removed not long ago. If there is
// no record either, nothing is left of it.
func (b *Sandbox) Gone() bool {
	now := b.store.now()
	for _, at := range []time.Time{now, now.Add(-goneFor)} {
		if _, err := os.Lstat(filepath.Join(b.store.gone(at), b.id)); err == nil {
			return true
		}
	}
	return false
}

// markGone remembers what Gone says. Names of an hour are in one directory, so that they are
// forgotten together.
func (b *Sandbox) markGone() error {
	dir := b.store.gone(b.store.now())
	create := func() error {
		f, err := os.OpenFile(filepath.Join(dir, b.id), os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return err
		}
		return f.Close()
	}
	err := create()
	if errors.Is(err, fs.ErrNotExist) {
		if err := b.store.turnHour(dir); err != nil {
			return err
		}
		err = create()
	}
	if err != nil {
		return stateFailed(fmt.Errorf("note that sandbox %s is gone: %w", b.id, err))
	}
	return nil
}

// unmarkGone takes back markGone, for a container ID that is used again.
func (b *Sandbox) unmarkGone() error {
	now := b.store.now()
	for _, at := range []time.Time{now, now.Add(-goneFor)} {
		err := os.Remove(filepath.Join(b.store.gone(at), b.id))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return stateFailed(fmt.Errorf("forget that sandbox %s is gone: %w", b.id, err))
		}
	}
	return nil
}

// gone returns the directory for the hour of a time.
func (s *Store) gone(at time.Time) string {
	return filepath.Join(s.dir, "gone", strconv.FormatInt(at.Unix()/int64(goneFor/time.Second), 10))
}

// turnHour makes the directory of an hour and removes those of all but the one before.
func (s *Store) turnHour(dir string) error {
	if err := s.ensure(filepath.Dir(dir)); err != nil {
		return err
	}
	if err := s.ensure(dir); err != nil {
		return err
	}
	hours, err := os.ReadDir(filepath.Dir(dir))
	if err != nil {
		return stateFailed(fmt.Errorf("list sandboxes that are gone: %w", err))
	}
	last := filepath.Base(s.gone(s.now().Add(-goneFor)))
	for _, h := range hours {
		if h.Name() == last || h.Name() == filepath.Base(dir) {
			continue
		}
		if err := os.RemoveAll(filepath.Join(filepath.Dir(dir), h.Name())); err != nil {
			return stateFailed(fmt.Errorf("forget sandboxes that are gone: %w", err))
		}
	}
	return nil
}
