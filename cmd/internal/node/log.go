package node

import (
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	"gopkg.in/natefinch/lumberjack.v2"

	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/hostfile"
	"github.com/braid-cni/braid/plugins/ipam/whereabouts"
)

// newLog returns a log that goes to the configured file, which is rotated, and to stderr if asked
// to. Close releases the file: a plugin that is called within another process must not leave it
// open.
func newLog(node *conf.Node) (log *slog.Logger, closeLog func() error) {
	options := &slog.HandlerOptions{Level: level(node.LogLevel)}
	var handlers []slog.Handler
	closeLog = func() error { return nil }
	if node.LogFile != "" {
		rotation := node.LogOptions
		file := &lumberjack.Logger{
			Filename: node.LogFile, MaxSize: rotation.MaxSize, MaxAge: rotation.MaxAge, MaxBackups: rotation.MaxBackups, Compress: rotation.Compress,
		}
		handlers = append(handlers, slog.NewTextHandler(orStderr{file}, options))
		closeLog = file.Close
	}
	if node.LogToStderr {
		handlers = append(handlers, slog.NewTextHandler(os.Stderr, options))
	}
	return slog.New(slog.NewMultiHandler(handlers...)), closeLog
}

func level(name string) slog.Level {
	var l slog.Level
	if l.UnmarshalText([]byte(strings.ToUpper(name))) != nil {
		return slog.LevelInfo
	}
	return l
}

// orStderr keeps a line that the file does not take, because the disk is full or read-only: the runtime logs stderr.
type orStderr struct{ w io.Writer }

func (o orStderr) Write(line []byte) (int, error) {
	if _, err := o.w.Write(line); err != nil {
		return os.Stderr.Write(line)
	}
	return len(line), nil
}

// logOf returns the log that a configuration asks for, else that of the caller.
func (a *Addresses) logOf(c *whereabouts.Conf) (*slog.Logger, func()) {
	log := a.Log.With("ipam", c.Type)
	if c.LogFile == "" {
		return log, func() {}
	}
	file, err := openLog(c.LogFile, int64(a.Rotation.MaxSize)<<20)
	if err != nil {
		log.Warn("its own log cannot be used", "file", c.LogFile, "error", err)
		return log, func() {}
	}
	name, err := conf.LogLevel(c.LogLevel)
	if err != nil {
		name = conf.DefaultLogLevel
	}
	own := slog.New(slog.NewTextHandler(orStderr{file}, &slog.HandlerOptions{Level: level(name)}))
	return own, func() {
		if err := file.Close(); err != nil {
			log.Warn("close its own log", "file", c.LogFile, "error", err)
		}
	}
}

// openLog opens a log to append to. A network may have chosen its name, so nothing leads out of the
// directory for logs; any other path is the administrator's. A log of more than maxSize bytes gets
// the name ".old" in the place of the one before.
func openLog(path string, maxSize int64) (*os.File, error) {
	if !filepath.IsAbs(path) {
		return nil, errors.New("it is no absolute path")
	}
	place, ok := whereabouts.LogRoots().Place(filepath.Dir(path))
	if !ok {
		place, _ = hostfile.Roots(nil).Place(filepath.Dir(path))
	}
	dir, err := place.Make(0o755)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	name := filepath.Base(path)
	if st, err := dir.Stat(name); err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && maxSize > 0 && st.Size >= maxSize {
		if err := dir.Rename(name, dir, name+".old"); err != nil {
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
