package record

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/hostfile"
)

// A full file system must not keep pods from going: their going is what makes room. So a DEL needs
// no room: a record is written in place if it cannot be replaced, and a file is kept in reserve to
// become the lock.

// reserved is how many files are kept in reserve, for as many operations at once.
const reserved = 8

// IsFull reports whether an error says that the file system, or the user's share of it, is full.
func IsFull(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// stateFailed classifies an error of the state directory's file system.
func stateFailed(err error) error {
	fix := "see that braid.stateDir can be written"
	switch {
	case errors.Is(err, fs.ErrPermission):
		fix = "run it as the user of braid.stateDir, root as a rule"
	case errors.Is(err, unix.EROFS):
		fix = "remount the file system of braid.stateDir for writing, or set braid.stateDir to another"
	case IsFull(err):
		fix = "make room, bytes or inodes, in the file system of braid.stateDir; deleting pods works " +
			"meanwhile"
	}
	return &failure.Error{Reason: failure.StateFailed, Field: "braid.stateDir", Err: err, Fix: fix}
}

func (s *Store) reserve(n int) string {
	return filepath.Join(s.dir, "reserve", fmt.Sprint(n))
}

// keepReserve makes the files of the reserve that are missing, as far as that is possible. The last
// is taken first, so there is one to look for.
func (s *Store) keepReserve() {
	_, err := os.Lstat(s.reserve(reserved - 1))
	if err == nil || s.ensure(filepath.Dir(s.reserve(0))) != nil {
		return
	}
	for n := range reserved {
		f, err := os.OpenFile(s.reserve(n), os.O_WRONLY|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return
		}
		f.Close() //nolint:errcheck // nothing was written
	}
}

// fromReserve moves a file of the reserve to this path, unless there is one by now.
func (s *Store) fromReserve(path string) error {
	err := fs.ErrNotExist
	for n := reserved - 1; n >= 0 && errors.Is(err, fs.ErrNotExist); n-- {
		err = unix.Renameat2(unix.AT_FDCWD, s.reserve(n), unix.AT_FDCWD, path, unix.RENAME_NOREPLACE)
	}
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// overwrite writes a file in place, in one call, if it takes no more room than it has. A process
// that is killed within that call may leave a record that cannot be read; DEL and GC know what to
// do with it.
func overwrite(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // what was written is checked
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	room := st.Blocks * 512
	if st.Mode&unix.S_IFMT != unix.S_IFREG || int64(len(data)) > room {
		return fmt.Errorf("%d bytes in the place of %d: %w", len(data), room, unix.ENOSPC)
	}
	padding := bytes.Repeat([]byte(" "), max(0, int(st.Size)-len(data)))
	if err := hostfile.WriteAll(int(f.Fd()), append(data, padding...)); err != nil {
		return err
	}
	return unix.Ftruncate(int(f.Fd()), int64(len(data)))
}
