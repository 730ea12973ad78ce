package hostfile

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/weaken"
)

// Dir is an open directory, for one goroutine. Its methods take names of entries in it, follow no
// symbolic link and, as what may be there in place of a file is opened too, wait for no peer.
// Errors are an [fs.PathError]; a NotRegularError is in that of what is no file. It is for state
// that each operation reads and writes: an [os.Root] makes half as many system calls again.
type Dir struct {
	fd   int
	path string
}

const namesBuffer = 8 << 10 // bytes

// NoDir is not open.
func NoDir() Dir { return Dir{fd: -1} }

// working returns the directory that paths are relative to.
func working() Dir { return Dir{fd: unix.AT_FDCWD} }

// OpenDir opens a directory by its path, which is no symbolic link.
func OpenDir(path string) (Dir, error) {
	fd, err := working().Open(path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	return Dir{fd, path}, linked(err)
}

// Close closes the directory, which releases its lock.
func (d Dir) Close() {
	if d.fd >= 0 {
		unix.Close(d.fd)
	}
}

// FD returns the directory's file descriptor, for calls that have no method here.
func (d Dir) FD() int { return d.fd }

// Path is for messages.
func (d Dir) Path() string { return d.path }

// Fail says in which file of the directory an operation failed.
func (d Dir) Fail(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: filepath.Join(d.path, name), Err: err}
}

// Open opens a file, or whatever is there in its place. The caller owns the descriptor.
func (d Dir) Open(name string, flags int, mode uint32) (int, error) {
	return d.open(name, flags|unix.O_NOFOLLOW, mode)
}

func (d Dir) open(name string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Openat(d.fd, name, flags|unix.O_NONBLOCK|unix.O_CLOEXEC, mode)
		link := err == unix.ELOOP && flags&unix.O_NOFOLLOW != 0
		switch {
		case err == nil:
			return fd, nil
		case err == unix.EINTR:
			continue
		// or a socket or pipe without a peer, a device, a directory
		case link, err == unix.ENXIO, err == unix.ENODEV, err == unix.EISDIR:
			err = &NotRegularError{Link: link}
		}
		return -1, d.Fail("open", name, err)
	}
}

// Dir opens a directory by its path in this one.
func (d Dir) Dir(path string) (Dir, error) {
	fd, err := d.Beneath(path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return NoDir(), linked(err)
	}
	return Dir{fd, filepath.Join(d.path, path)}, nil
}

// openTries bounds the repetition of an openat2(2) that renames of others disturb.
const openTries = 100

// Beneath opens what a path leads to, which stays beneath the directory and has no symbolic link in
// it. The caller owns the descriptor. A kernel that cannot hold a path to that opens nothing.
func (d Dir) Beneath(path string, flags int, mode uint32) (fd int, err error) {
	how := unix.OpenHow{
		Flags: uint64(flags | unix.O_CLOEXEC | unix.O_NONBLOCK), Mode: uint64(mode),
		Resolve: unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_BENEATH,
	}
	if weaken.Off(weaken.Symlinks) {
		how.Resolve = 0
	}
	for range openTries {
		fd, err = unix.Openat2(d.fd, path, &how)
		if !errors.Is(err, unix.EINTR) && !errors.Is(err, unix.EAGAIN) {
			break
		}
	}
	if errors.Is(err, unix.ENOSYS) {
		err = fmt.Errorf("%w: openat2 needs Linux 5.6", err)
	}
	if err != nil {
		return -1, d.Fail("open", path, err)
	}
	return fd, nil
}

// linked says more of the failure to open a directory where there is something else.
func linked(err error) error {
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		err = fmt.Errorf("%w, and symbolic links are not followed", err)
	}
	return err
}

// Make makes a directory.
func (d Dir) Make(name string, mode uint32) error {
	if err := unix.Mkdirat(d.fd, name, mode); err != nil {
		return d.Fail("mkdir", name, err)
	}
	return nil
}

// Read returns the content of a regular file of at most limit bytes.
func (d Dir) Read(name string, limit int64) (data []byte, st unix.Stat_t, err error) {
	return d.read(name, unix.O_NOFOLLOW, limit)
}

func (d Dir) read(name string, flags int, limit int64) (data []byte, st unix.Stat_t, err error) {
	fd, err := d.open(name, unix.O_RDONLY|flags, 0)
	if err != nil {
		return nil, st, err
	}
	defer unix.Close(fd)
	err = unix.Fstat(fd, &st)
	if err == nil && (st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > limit) {
		err = &NotRegularError{Limit: limit}
	}
	if err == nil {
		data, err = content(fd, st.Size, limit)
	}
	if err != nil {
		return nil, st, d.Fail("read", name, err)
	}
	return data, st, nil
}

// content reads a file that said to have so many bytes. Files of the kernel say 0 and are read to
// their end.
func content(fd int, size, limit int64) ([]byte, error) {
	data := make([]byte, 0, max(size, bytes.MinRead)+1)
	for {
		n, err := unix.Read(fd, data[len(data):cap(data)])
		if err != nil {
			return nil, err
		}
		data = data[:len(data)+n]
		switch {
		case int64(len(data)) > limit:
			return nil, &NotRegularError{Limit: limit}
		case n == 0 || int64(len(data)) == size:
			return data, nil
		}
		data = slices.Grow(data, bytes.MinRead)
	}
}

// Write writes a file that is opened with further flags: a new one, or one that is emptied.
func (d Dir) Write(name string, flags int, mode uint32, content []byte) error {
	fd, err := d.Open(name, unix.O_WRONLY|flags, mode)
	if err != nil {
		return err
	}
	err = errors.Join(WriteAll(fd, content), unix.Close(fd))
	if err != nil {
		return d.Fail("write", name, err)
	}
	return nil
}

// Overwrite writes a file that is known to be regular, if it is there. It is not emptied first:
// file systems that flush what was emptied (ext4) take longer for that than for all else. A process
// that is killed meanwhile may leave a mixture of both contents.
func (d Dir) Overwrite(name string, mode uint32, content []byte) error {
	fd, err := d.Open(name, unix.O_WRONLY|unix.O_CREAT, mode)
	if err != nil {
		return err
	}
	err = errors.Join(WriteAll(fd, content), unix.Ftruncate(fd, int64(len(content))), unix.Close(fd))
	if err != nil {
		return d.Fail("write", name, err)
	}
	return nil
}

// WriteAll writes to an open file all of the content, or it is an error.
func WriteAll(fd int, content []byte) error {
	n, err := unix.Write(fd, content)
	if err == nil && n < len(content) {
		err = unix.ENOSPC
	}
	return err
}

// Stat describes an entry.
func (d Dir) Stat(name string) (st unix.Stat_t, err error) {
	if err = unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		err = d.Fail("stat", name, err)
	}
	return st, err
}

// Has reports whether anything has the name.
func (d Dir) Has(name string) (bool, error) {
	var st unix.Stat_t
	err := unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch err {
	case nil:
		return true, nil
	case unix.ENOENT:
		return false, nil
	}
	return false, d.Fail("stat", name, err)
}

// Rename renames a file, in the same or in another directory, in the place of what has
// it.
func (d Dir) Rename(name string, to Dir, as string) error {
	if err := unix.Renameat(d.fd, name, to.fd, as); err != nil {
		return d.Fail("rename to "+filepath.Join(to.path, as)+" of", name, err)
	}
	return nil
}

// Remove removes a file. It is no error if there is none.
func (d Dir) Remove(name string) error {
	if err := unix.Unlinkat(d.fd, name, 0); err != nil && err != unix.ENOENT {
		return d.Fail("remove", name, err)
	}
	return nil
}

// RemoveAny is Remove that also removes a directory in which there is nothing.
func (d Dir) RemoveAny(name string) error {
	err := unix.Unlinkat(d.fd, name, 0)
	if err == unix.EISDIR {
		err = unix.Unlinkat(d.fd, name, unix.AT_REMOVEDIR)
	}
	if err != nil && err != unix.ENOENT {
		return d.Fail("remove", name, err)
	}
	return nil
}

// Names lists the directory, in no order.
func (d Dir) Names() (names []string, err error) {
	if _, err := unix.Seek(d.fd, 0, unix.SEEK_SET); err != nil {
		return nil, d.Fail("list", ".", err)
	}
	buffer := make([]byte, namesBuffer)
	for {
		n, err := unix.ReadDirent(d.fd, buffer)
		if err != nil {
			return nil, d.Fail("list", ".", err)
		}
		if n == 0 {
			return names, nil
		}
		_, _, names = unix.ParseDirent(buffer[:n], -1, names)
	}
}
