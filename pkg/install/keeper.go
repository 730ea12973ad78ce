package install

import (
	"context"
	"errors"
	"time"

	"github.com/braid-cni/braid/pkg/install/own"
)

const (
	// Resync is how often a node is looked at without a sign of change, as signs get lost.
	Resync = 30 * time.Second
	// retry is how often, as long as something is amiss.
	retry = 5 * time.Second
	// firstPause and lastPause bound the time between two repairs, which doubles until calm has
	// lasted.
	firstPause = time.Second
	lastPause  = 2 * time.Minute
	calm       = 10 * time.Minute
)

// Watcher waits for changes in directories.
type Watcher interface {
	// Wait returns when entries of one of the directories have changed since the last Wait, and do so
	// no longer; when timeout sends; or when ctx is done. It may return without a cause.
	Wait(ctx context.Context, dirs []string, timeout <-chan time.Time)
}

// Clock is the time. Nobody sets it.
type Clock interface {
	Now() time.Time
	After(d time.Duration) <-chan time.Time
}

// Report is what a Keeper found and did.
type Report struct {
	// Drifts were found before, and are repaired unless Err is set.
	Drifts  []Drift
	Outcome *Outcome
	// Err is why the node is not as it is to be.
	Err error
	// Pause is how long the next repair will wait at least.
	Pause time.Duration
}

// Keeper applies an Installer, and again when what it installed is changed.
type Keeper struct {
	Installer *Installer
	Watcher   Watcher
	Clock     Clock
	// Report is called for each Apply; nil for nobody.
	Report func(Report)

	claimed  bool
	pause    time.Duration // after the last repair
	repaired time.Time     // the last time; zero for never
}

// Run claims the node and keeps it until ctx is done, which is no error. It returns an
// [own.SupersededError] or [own.RetiredError] when the node is no longer this installer's. Whatever
// else goes wrong is reported, and tried again. It starts no goroutine.
func (k *Keeper) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		next := Resync
		if err := k.once(ctx); notOurs(err) {
			return err
		} else if err != nil {
			next = retry
		}
		k.Watcher.Wait(ctx, k.dirs(), k.Clock.After(next))
	}
	return nil
}

// notOurs reports whether the node is another installer's by now, or is being uninstalled.
func notOurs(err error) bool {
	_, superseded := errors.AsType[*own.SupersededError](err)
	_, retired := errors.AsType[*own.RetiredError](err)
	return superseded || retired
}

// once looks at the node and makes it right, and reports that.
func (k *Keeper) once(ctx context.Context) error {
	report, err := k.tend(ctx)
	if ctx.Err() != nil {
		return nil //nolint:nilerr // Run's end is no error
	}
	if k.Report != nil {
		report.Err, report.Pause = err, k.pause
		k.Report(report)
	}
	return err
}

// tend looks at the node once and repairs it. Who undoes that again and again is given more and
// more time, so that two installers do not fight at full speed.
func (k *Keeper) tend(ctx context.Context) (report Report, err error) {
	report.Outcome = &Outcome{}
	if !k.claimed {
		if err := k.Installer.Store.Claim(ctx); err != nil {
			return report, err
		}
		k.claimed = true
	}
	report.Drifts, _ = k.Installer.Inspect(ctx) // what it fails of, Apply fails of, too
	if len(report.Drifts) > 0 && !k.repaired.IsZero() {
		if since := k.Clock.Now().Sub(k.repaired); since < k.pause {
			k.sleep(ctx, k.pause-since)
		}
	}
	report.Outcome, err = k.Installer.Apply(ctx)
	if len(report.Drifts) > 0 && len(report.Outcome.Changed) > 0 {
		k.backOff()
	}
	return report, err
}

// backOff doubles the pause after a repair. A drift that is none of ours to repair costs no pause.
func (k *Keeper) backOff() {
	now := k.Clock.Now()
	if k.repaired.IsZero() || now.Sub(k.repaired) > calm {
		k.pause = 0
	}
	k.repaired = now
	k.pause = min(max(2*k.pause, firstPause), lastPause)
}

func (k *Keeper) sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-k.Clock.After(d):
	}
}

// dirs are the directories in which a change is a reason to look.
func (k *Keeper) dirs() []string {
	dirs := []string{k.Installer.Place.Conf, k.Installer.Place.Private, k.Installer.Place.Bin}
	for _, path := range []string{k.Installer.Kubeconfig, k.Installer.Named} {
		if at := dirOf(path); at != "" {
			dirs = append(dirs, at)
		}
	}
	return dirs
}
