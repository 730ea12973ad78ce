package own

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/hostfile"
)

// Bytes returns a File for a content in memory.
func Bytes(path string, mode fs.FileMode, kind string, content []byte) *File {
	digest, _ := DigestOf(bytes.NewReader(content)) // a reader of memory does not fail
	return &File{
		Path: path, Mode: mode, Kind: kind, Digest: digest,
		Open: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content)), nil },
	}
}

// Copy returns a File for the content of another file, which is read each time that it is written.
func Copy(path string, mode fs.FileMode, kind, source string) (*File, error) {
	open := func() (io.ReadCloser, error) { return os.Open(source) }
	r, err := open()
	if err != nil {
		return nil, fmt.Errorf("read what is to be installed: %w", err)
	}
	defer r.Close()
	digest, err := DigestOf(r)
	if err != nil {
		return nil, fmt.Errorf("read what is to be installed: %w", err)
	}
	return &File{Path: path, Mode: mode, Kind: kind, Digest: digest, Open: open}, nil
}

// temporary returns the name of a file before it is complete. It has no suffix that a container
// runtime takes for a configuration's.
func temporary(name string) string { return "." + name + ".braid-new" }

// open opens a directory; its own path may be a symbolic link, since the operator chose it.
func open(path string) (hostfile.Dir, error) {
	place, ok := hostfile.Roots(nil).Place(path)
	if !ok {
		return hostfile.NoDir(), &failure.Error{
			Reason: failure.InvalidConfig, NAD: path, Err: errors.New("is not an absolute path"),
			Fix: "give an absolute path",
		}
	}
	dir, err := place.Open()
	if err != nil {
		return dir, refused(path, "open directory", err)
	}
	return dir, nil
}

// makeDir is open for a directory that may be missing.
func (s *Store) makeDir(path string) (hostfile.Dir, error) {
	dir, err := open(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return dir, err
	}
	if err := s.step("make directory %s", path); err != nil {
		return hostfile.NoDir(), err
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		return hostfile.NoDir(), refused(path, "make directory", err)
	}
	return open(path)
}

// look compares a file with what it is to be. What is no regular file is an error.
func (s *Store) look(at hostfile.Dir, f *File, e *Entry) (State, error) {
	digest, st, err := s.digest(at, filepath.Base(f.Path))
	if errors.Is(err, fs.ErrNotExist) {
		return Missing, nil
	}
	if err != nil {
		return 0, err
	}
	same := digest == f.Digest
	switch {
	case same && hasMode(&st, f, e):
		return Right, nil
	case e != nil:
		return e.state(digest, same), nil
	case !same && filepath.Dir(f.Path) == s.Dir:
		return Changed, nil // nobody else's is there, so the ledger was lost
	}
	return Foreign, nil
}

// hasMode reports whether a file has the wanted mode, and is the Store's. Of a file that the Store
// did not put there, it is enough that it can be executed, or not, as wanted.
func hasMode(st *unix.Stat_t, f *File, e *Entry) bool {
	mode := fs.FileMode(st.Mode).Perm()
	return e == nil && runs(mode) == runs(f.Mode) ||
		mode == f.Mode.Perm() && st.Uid == uint32(os.Geteuid()) //nolint:gosec // an id
}

// state returns the state of a file in the ledger that is not right. same is that it has the wanted
// content.
func (e *Entry) state(digest string, same bool) State {
	switch {
	case !e.Installed && !e.Has(digest):
		return Foreign
	case same, !e.Has(digest):
		return Changed
	}
	return Old
}

// runs reports whether the owner may execute a file.
func runs(mode fs.FileMode) bool { return mode&0o100 != 0 }

// digest reads a file, unless its metadata are those of the last time.
func (s *Store) digest(at hostfile.Dir, name string) (string, unix.Stat_t, error) {
	st, err := at.Stat(name)
	if err != nil {
		return "", st, err
	}
	path := filepath.Join(at.Path(), name)
	s.note(path, st)
	s.mu.Lock()
	last := s.seen[path]
	s.mu.Unlock()
	st.Atim = unix.Timespec{}
	if last.digest != "" && last.stat == st {
		return last.digest, st, nil
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return "", st, inTheWay(path, st.Mode)
	}
	digest, err := readDigest(at, name)
	if err != nil {
		return "", st, refused(path, "read", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seen == nil {
		s.seen = map[string]glance{}
	}
	s.seen[path] = glance{st, digest}
	return digest, st, nil
}

// readDigest reads a file.
func readDigest(at hostfile.Dir, name string) (string, error) {
	fd, err := at.Open(name, unix.O_RDONLY, 0)
	if err != nil {
		return "", err
	}
	file := os.NewFile(uintptr(fd), filepath.Join(at.Path(), name))
	defer file.Close()
	return DigestOf(file)
}

// write makes the content durable under another name, and then renames it.
func (s *Store) write(ctx context.Context, at hostfile.Dir, f *File) error {
	temp := temporary(filepath.Base(f.Path))
	if err := at.Remove(temp); err != nil { // of a run that was killed
		return refused(f.Path, "replace", err)
	}
	if err := s.step("create %s", f.Path); err != nil {
		return err
	}
	err := s.complete(ctx, at, temp, f)
	if err == nil {
		err = s.rename(at, temp, f)
	}
	if err != nil {
		return errors.Join(err, at.Remove(temp))
	}
	if err := s.step("sync directory %s", at.Path()); err != nil {
		return err
	}
	return syncDir(at)
}

// complete makes the temporary file, waits until it is on the disk, and has it checked.
func (s *Store) complete(ctx context.Context, at hostfile.Dir, temp string, f *File) error {
	if err := s.fill(at, temp, f); err != nil {
		return err
	}
	if err := s.step("sync %s", f.Path); err != nil {
		return err
	}
	if err := syncFile(at, temp); err != nil {
		return refused(f.Path, "write", err)
	}
	if f.Check == nil {
		return nil
	}
	if err := f.Check(ctx, filepath.Join(at.Path(), temp)); err != nil {
		return fmt.Errorf("check %s before it is installed: %w", f.Path, err)
	}
	return nil
}

// rename moves the temporary file to its path, and notes which file it is.
func (s *Store) rename(at hostfile.Dir, temp string, f *File) error {
	if err := s.step("rename %s", f.Path); err != nil {
		return err
	}
	st, err := at.Stat(temp)
	if err == nil {
		err = at.Rename(temp, at, filepath.Base(f.Path))
	}
	if err != nil {
		return refused(f.Path, "replace", err)
	}
	s.note(f.Path, st)
	return nil
}

// fill writes the temporary file. No child is forked while it is open for writing: the child would
// have it open, too, for a moment, in which the file cannot be executed ("text file busy").
func (s *Store) fill(at hostfile.Dir, temp string, f *File) error {
	source, err := f.Open()
	if err != nil {
		return fmt.Errorf("read what is to be installed as %s: %w", f.Path, err)
	}
	defer source.Close()
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	fd, err := at.Open(temp, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL, uint32(f.Mode.Perm()))
	if err != nil {
		return refused(f.Path, "write", err)
	}
	file := os.NewFile(uintptr(fd), f.Path)
	digest, err := s.pour(file, source, f)
	if err := errors.Join(err, file.Close()); err != nil {
		return refused(f.Path, "write", err)
	}
	if digest != f.Digest {
		return &failure.Error{
			Reason: failure.StateFailed, NAD: f.Path,
			Err: errors.New("its source has changed or is not complete"),
			Fix: "see that the image was pulled as a whole",
		}
	}
	return nil
}

// pour copies the content into the file, and returns its digest.
func (s *Store) pour(file *os.File, source io.Reader, f *File) (string, error) {
	if err := s.step("write %s", f.Path); err != nil {
		return "", err
	}
	if err := file.Chmod(f.Mode.Perm()); err != nil { // whatever the umask is
		return "", err
	}
	return DigestOf(io.TeeReader(source, file))
}

// syncFile waits until a file is on the disk, which a descriptor for reading can do, too.
func syncFile(at hostfile.Dir, name string) error {
	fd, err := at.Open(name, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	return errors.Join(unix.Fsync(fd), unix.Close(fd))
}

// syncDir waits until a directory's entries are on the disk.
func syncDir(at hostfile.Dir) error {
	// not every file system can
	if err := unix.Fsync(at.FD()); err != nil && !errors.Is(err, unix.EINVAL) {
		return refused(at.Path(), "sync directory", err)
	}
	return nil
}

// refused returns the error of a change that the file system does not make.
func refused(path, verb string, err error) error {
	fix := ""
	switch {
	case errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		fix = "make room on the file system of " + filepath.Dir(path)
	case errors.Is(err, unix.EROFS), errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		fix = "choose a directory that can be written, or bake this very file into the node's image"
	case errors.Is(err, unix.ENOTDIR), errors.Is(err, unix.ELOOP):
		fix = "see that each part of the path is a directory"
	}
	return &failure.Error{
		Reason: failure.StateFailed, NAD: path, Err: fmt.Errorf("%s: %w", verb, bare(err)), Fix: fix,
	}
}

// bare takes off the path, which the error above it has.
func bare(err error) error {
	if e, ok := errors.AsType[*fs.PathError](err); ok {
		return e.Err
	}
	return err
}

// foreign is the error of a file that the Store does not replace.
func foreign(path string) error {
	return &failure.Error{
		Reason: failure.FileInTheWay, NAD: path,
		Err: errors.New("is not from this installer, and differs from what it would install"),
		Fix: "remove the file, or choose another directory",
	}
}

// inTheWay is the error of a path that has no regular file. mode is that of stat(2).
func inTheWay(path string, mode uint32) error {
	kind := map[uint32]string{
		unix.S_IFDIR: "a directory", unix.S_IFLNK: "a symbolic link", unix.S_IFIFO: "a named pipe",
		unix.S_IFSOCK: "a socket",
	}[mode&unix.S_IFMT]
	if kind == "" {
		kind = "a device"
	}
	return &failure.Error{
		Reason: failure.FileInTheWay, NAD: path, Err: fmt.Errorf("is %s, not a regular file", kind),
		Fix: "remove it, or choose another directory",
	}
}
