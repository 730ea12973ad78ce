// Package logfile writes logs to files on the node.
//
// Contract: a line that a file does not take, since the disk is full or read-only, goes to stderr,
// which the runtime logs. Files are of this user alone (0600). Who opens a log closes it: a plugin
// that runs in another process must leave no file open.
package logfile

import (
	"bytes"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"

	"golang.org/x/sys/unix"
	"gopkg.in/natefinch/lumberjack.v2"

	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/hostfile"
	"github.com/braid-cni/braid/pkg/loglevel"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// New returns Braid's own log: it goes to the configured file, which is rotated, and to stderr if
// asked to, and to other handlers.
func New(node *conf.Node, others ...slog.Handler) (log *slog.Logger, closeLog func() error) {
	options := &slog.HandlerOptions{Level: loglevel.Level(node.LogLevel)}
	handlers := slices.Clone(others)
	closeLog = func() error { return nil }
	if node.LogFile != "" {
		rotation := node.LogOptions
		file := &lumberjack.Logger{
			Filename: node.LogFile, MaxSize: rotation.MaxSize, MaxAge: rotation.MaxAge,
			MaxBackups: rotation.MaxBackups, Compress: rotation.Compress,
		}
		handlers = append(handlers,
			slog.NewTextHandler(strictjson.PrintableWriter(orStderr{file}), options))
		closeLog = file.Close
	}
	if node.LogToStderr {
		handlers = append(handlers, slog.NewTextHandler(strictjson.PrintableWriter(os.Stderr), options))
	}
	return slog.New(slog.NewMultiHandler(handlers...)), closeLog
}

// Open returns a log that a network's configuration names. Its path leads out of none of the roots
// that it lies beneath; any other path is the administrator's. A log of more than maxSize bytes
// gets the name ".old", in the place of the one before, if it was written here: what others write
// there is never renamed, and nothing is added to it if it is full or no text. A level that is none
// is the default.
func Open(
	path, levelName string, roots hostfile.Roots, maxSize int64,
) (log *slog.Logger, closeLog func() error, err error) {
	file, err := open(path, roots, maxSize)
	if err != nil {
		return nil, nil, err
	}
	return slog.New(slog.NewTextHandler(strictjson.PrintableWriter(orStderr{file}),
		&slog.HandlerOptions{Level: loglevel.Level(levelName)})), file.Close, nil
}

// OpenElse is Open for a log that its user can do without. Without a path, or where it cannot be
// used, the log is another one, which is told why. done closes it.
func OpenElse(
	other *slog.Logger, path, levelName string, roots hostfile.Roots, maxSize int64,
) (log *slog.Logger, done func()) {
	if path == "" {
		return other, func() {}
	}
	own, closeLog, err := Open(path, levelName, roots, maxSize)
	if err != nil {
		other.Warn("its own log cannot be used", "file", path, "error", err)
		return other, func() {}
	}
	return own, func() {
		if err := closeLog(); err != nil {
			other.Warn("close its own log", "file", path, "error", err)
		}
	}
}

func open(path string, roots hostfile.Roots, maxSize int64) (*os.File, error) {
	if !filepath.IsAbs(path) {
		return nil, errors.New("it is no absolute path")
	}
	place, ok := roots.Place(filepath.Dir(path))
	if !ok {
		place, _ = hostfile.Roots(nil).Place(filepath.Dir(path))
	}
	dir, err := place.Make(0o755)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	name := filepath.Base(path)
	if st, err := dir.Stat(name); err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Size > 0 {
		if err := giveWay(dir, name, maxSize > 0 && st.Size >= maxSize); err != nil {
			return nil, err
		}
	}
	fd, err := dir.Open(name, unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT, 0o600)
	if err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), path)
	if info, err := file.Stat(); err != nil || !info.Mode().IsRegular() {
		return nil, errors.Join(err, file.Close(), &hostfile.NotRegularError{})
	}
	return file, nil
}

// giveWay judges a file that is there by its beginning, and renames one of this package's that is
// full.
func giveWay(dir hostfile.Dir, name string, full bool) error {
	fd, err := dir.Open(name, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd) //nolint:errcheck // opened for reading
	start := make([]byte, 64)
	n, err := unix.Read(fd, start)
	if err != nil {
		return dir.Fail("read", name, err)
	}
	switch {
	case bytes.ContainsFunc(start[:n], func(r rune) bool {
		return r < ' ' && r != '\n' && r != '\r' && r != '\t' && r != '\x1b'
	}):
		return dir.Fail("write", name, errors.New("it is no text, so it is no log of this kind"))
	case full && bytes.HasPrefix(start[:n], []byte(slog.TimeKey+"=")):
		return dir.Rename(name, dir, name+".old")
	case full:
		return dir.Fail("write", name,
			errors.New("it is full, and of another program, which it is left to"))
	}
	return nil
}

// orStderr keeps a line that the file does not take, because the disk is full or read-only: the
// runtime logs stderr.
type orStderr struct{ w io.Writer }

func (o orStderr) Write(line []byte) (int, error) {
	if _, err := o.w.Write(line); err != nil {
		return os.Stderr.Write(line)
	}
	return len(line), nil
}
