package install

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settled is how long nothing changes before changes are taken to have come to an end, longest
	// for how long that is waited for.
	settled = 100 * time.Millisecond
	longest = time.Second
)

// Watch is a Watcher on inotify, for one goroutine. A directory that is missing is watched when it
// is there at a later Wait, and one that is a symbolic link is followed anew each time.
type Watch struct{ notify *fsnotify.Watcher }

// NewWatch fails where a node has no inotify instance left; use a Poll then.
func NewWatch() (*Watch, error) {
	notify, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("watch directories: %w", err)
	}
	return &Watch{notify}, nil
}

// Close ends the watch.
func (w *Watch) Close() error { return w.notify.Close() }

// Wait implements Watcher.
func (w *Watch) Wait(ctx context.Context, dirs []string, timeout <-chan time.Time) {
	if w.follow(dirs) {
		return // what happened in a directory before it was watched is not known
	}
	select {
	case <-ctx.Done():
	case <-timeout:
	case <-w.notify.Errors: //nolint:errcheck // changes were lost, which is a change
	case <-w.notify.Events:
		w.settle(ctx)
	}
}

// settle waits until nothing has changed for a moment, but not for ever.
func (w *Watch) settle(ctx context.Context) {
	long := time.After(longest)
	for {
		select {
		case <-w.notify.Events:
		case <-time.After(settled):
			return
		case <-long:
			return
		case <-ctx.Done():
			return
		}
	}
}

// follow watches just those directories, and reports whether one is new.
func (w *Watch) follow(dirs []string) (isNew bool) {
	resolved, watched := resolve(dirs), w.notify.WatchList()
	for _, path := range watched {
		if !slices.Contains(resolved, path) {
			w.notify.Remove(path) //nolint:errcheck // it is gone; a change too many is no harm
		}
	}
	for _, path := range resolved {
		if !slices.Contains(watched, path) && w.notify.Add(path) == nil {
			isNew = true
		}
	}
	return isNew
}

// resolve follows symbolic links, and leaves out what is not there or comes twice.
func resolve(dirs []string) (paths []string) {
	for _, dir := range dirs {
		if path, err := filepath.EvalSymlinks(dir); err == nil && !slices.Contains(paths, path) {
			paths = append(paths, path)
		}
	}
	return paths
}

// Poll is a Watcher that sees changes only when it looks.
type Poll struct {
	Clock Clock
	Every time.Duration
}

// Wait implements Watcher.
func (p Poll) Wait(ctx context.Context, _ []string, timeout <-chan time.Time) {
	select {
	case <-ctx.Done():
	case <-timeout:
	case <-p.Clock.After(p.Every):
	}
}

// SystemClock is the machine's.
type SystemClock struct{}

// Now implements Clock.
func (SystemClock) Now() time.Time { return time.Now() }

// After implements Clock.
func (SystemClock) After(d time.Duration) <-chan time.Time { return time.After(d) }

// dirOf returns the directory of an absolute path; empty for what is none.
func dirOf(path string) string {
	if !filepath.IsAbs(path) {
		return ""
	}
	return filepath.Dir(path)
}
