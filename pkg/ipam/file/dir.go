package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const (
	dirMode  = 0o755
	fileMode = 0o600
)

// errNotRegular is of what is no regular file, or too large a one.
var errNotRegular = errors.New("is not a regular file of a few bytes, and symbolic links are not followed")

// dir is an open directory. Its methods take names of files in it, and follow no symbolic link.
type dir struct {
	fd int
	// path is for messages.
	path string
}

func (d dir) fail(op, name string, err error) error {
	return &fs.PathError{Op: op, Path: filepath.Join(d.path, name), Err: err}
}

func (d dir) close() {
	if d.fd >= 0 {
		unix.Close(d.fd) //nolint:errcheck // opened for reading
	}
}

// open opens a file, or whatever is there in its place, without waiting for a peer.
func (d dir) open(name string, flags int, mode uint32) (int, error) {
	for {
		fd, err := unix.Openat(d.fd, name, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, mode)
		switch err {
		case nil:
			return fd, nil
		case unix.EINTR:
			continue
		case unix.ELOOP, unix.ENXIO, unix.ENODEV, unix.EISDIR: // a link, a socket or pipe without a peer, a device, a directory
			err = errNotRegular
		}
		return -1, d.fail("open", name, err)
	}
}

// subdir opens a directory.
func (d dir) subdir(name string) (dir, error) {
	fd, err := d.open(name, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if errors.Is(err, unix.ENOTDIR) {
		err = fmt.Errorf("%w, and symbolic links are not followed", err)
	}
	return dir{fd, filepath.Join(d.path, name)}, err
}

// read gives the content of a regular file of at most limit bytes.
func (d dir) read(name string, limit int64) (data []byte, st unix.Stat_t, err error) {
	fd, err := d.open(name, unix.O_RDONLY, 0)
	if err != nil {
		return nil, st, err
	}
	defer unix.Close(fd) //nolint:errcheck // opened for reading
	err = unix.Fstat(fd, &st)
	if err == nil && (st.Mode&unix.S_IFMT != unix.S_IFREG || st.Size > limit) {
		err = errNotRegular
	}
	var n int
	if err == nil {
		data = make([]byte, st.Size)
		n, err = unix.Read(fd, data)
	}
	if err != nil {
		return nil, st, d.fail("read", name, err)
	}
	return data[:n], st, nil
}

// write writes a file that is opened with further flags: a new one, or one that is known to be regular.
func (d dir) write(name string, flags int, content string) error {
	fd, err := d.open(name, unix.O_WRONLY|flags, fileMode)
	if err != nil {
		return err
	}
	err = errors.Join(writeAll(fd, content), unix.Close(fd))
	if err != nil {
		return d.fail("write", name, err)
	}
	return nil
}

// overwrite writes a file that is known to be regular, if it is there. It is not emptied first: file systems that flush what was emptied
// (ext4) take longer for that than for all else. A process that is killed meanwhile may leave a mixture of both contents.
func (d dir) overwrite(name, content string) error {
	fd, err := d.open(name, unix.O_WRONLY|unix.O_CREAT, fileMode)
	if err != nil {
		return err
	}
	err = errors.Join(writeAll(fd, content), unix.Ftruncate(fd, int64(len(content))), unix.Close(fd))
	if err != nil {
		return d.fail("write", name, err)
	}
	return nil
}

func writeAll(fd int, content string) error {
	n, err := unix.Write(fd, []byte(content))
	if err == nil && n < len(content) {
		err = unix.ENOSPC
	}
	return err
}

// stat describes a file.
func (d dir) stat(name string) (st unix.Stat_t, err error) {
	if err = unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		err = d.fail("stat", name, err)
	}
	return st, err
}

// has says whether anything has the name.
func (d dir) has(name string) (bool, error) {
	var st unix.Stat_t
	err := unix.Fstatat(d.fd, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	switch err {
	case nil:
		return true, nil
	case unix.ENOENT:
		return false, nil
	}
	return false, d.fail("stat", name, err)
}

// remove removes a file. It is no error if there is none.
func (d dir) remove(name string) error {
	if err := unix.Unlinkat(d.fd, name, 0); err != nil && err != unix.ENOENT {
		return d.fail("remove", name, err)
	}
	return nil
}

// names lists the directory, in no order.
func (d dir) names() ([]string, error) {
	at, err := d.subdir(".")
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(at.fd), d.path)
	defer f.Close()
	return f.Readdirnames(-1)
}

// setTime sets the modification time of a file.
func (d dir) setTime(name string, ts unix.Timespec) error {
	times := []unix.Timespec{{Nsec: unix.UTIME_OMIT}, ts}
	if err := unix.UtimesNanoAt(d.fd, name, times, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return d.fail("set time of", name, err)
	}
	return nil
}

func timeOf(ts unix.Timespec) time.Time { return time.Unix(ts.Unix()) }
