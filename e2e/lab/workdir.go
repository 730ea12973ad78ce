package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

const workdirPrefix = "braid-lab-"

// workdir is the temporary directory of one lab. Its base name also names the lab's cgroups. The
// lock in it is held as long as the process lives, so that a later lab can tell what was left
// behind from what is in use, without trusting process ids.
type workdir struct {
	path string
	lock *os.File
}

// newWorkdir makes a directory, after removing those of labs whose process was killed.
func newWorkdir() (*workdir, error) {
	sweep(os.TempDir())
	path, err := os.MkdirTemp("", workdirPrefix)
	if err != nil {
		return nil, fmt.Errorf("make lab directory: %w", err)
	}
	lock, err := lockFile(filepath.Join(path, "lock"), os.O_CREATE)
	if err != nil {
		os.RemoveAll(path)
		return nil, err
	}
	w := &workdir{path: path, lock: lock}
	if err := os.Mkdir(w.file("log"), 0o755); err != nil {
		w.remove()
		return nil, fmt.Errorf("make lab directory: %w", err)
	}
	return w, nil
}

// remove removes the directory and the cgroups. Where BRAID_LAB_LOGS names a directory, the logs,
// whole, are copied there before.
func (w *workdir) remove() error {
	var kept error
	if dir := os.Getenv("BRAID_LAB_LOGS"); dir != "" {
		kept = os.CopyFS(filepath.Join(dir, w.id()), os.DirFS(w.file("log")))
	}
	err := errors.Join(kept, removeLeftovers(w.path))
	w.lock.Close()
	return err
}

func (w *workdir) id() string                 { return filepath.Base(w.path) }
func (w *workdir) file(name string) string    { return filepath.Join(w.path, name) }
func (w *workdir) logFile(name string) string { return filepath.Join(w.path, "log", name+".log") }

// sweep removes what labs whose process is gone have left in dir. What it cannot remove it leaves
// to the next one.
func sweep(dir string) {
	found, _ := filepath.Glob(filepath.Join(dir, workdirPrefix+"*"))
	for _, path := range found {
		info, err := os.Stat(path)
		if err != nil || time.Since(info.ModTime()) < time.Minute {
			continue // so young that its owner may not have locked it yet
		}
		lock, err := lockFile(filepath.Join(path, "lock"), 0)
		if err != nil {
			continue
		}
		removeLeftovers(path)
		lock.Close()
	}
}

// lockFile opens a file and locks it without waiting.
func lockFile(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|flags, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return f, nil
}

// removeLeftovers removes the cgroups and then the directory of a lab, in this order: without the
// directory nobody would look for the cgroups.
func removeLeftovers(path string) error {
	if err := removeCgroups(filepath.Base(path)); err != nil {
		return err
	}
	if err := os.RemoveAll(path); err != nil {
		return fmt.Errorf("remove lab directory: %w", err)
	}
	return nil
}

// replaceFile writes a file so that readers see either the old content or the new. The temporary
// name, hidden and without a known suffix, is one that containerd does not take for a network
// configuration.
func replaceFile(path string, content []byte, mode os.FileMode) error {
	temp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".lab")
	if err != nil {
		return err
	}
	_, err = temp.Write(content)
	err = errors.Join(err, temp.Chmod(mode), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		os.Remove(temp.Name())
	}
	return err
}
