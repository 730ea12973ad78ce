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
	// settle is how long changes are let come to an end.
	settle = 100 * time.Millisecond
	// firstPause and lastPause bound the time between two repairs, which doubles until calm has
	// lasted.
	firstPause = time.Second
	lastPause  = 2 * time.Minute
	calm       = 10 * time.Minute
)

// Watcher waits for changes in directories.
type Watcher interface {
	// Wait returns when an entry of one of the directories has changed since the last Wait, when
	// timeout sends, or when ctx is done. It may return without a cause.
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
	// Report is told of each Apply; nil for nobody.
	Report func(Report)

	pause    time.Duration
	repaired time.Time // the last time; zero for never
}

// Run claims the node and keeps it until ctx is done, which is no error. It returns an
// [own.SupersededError] or [own.RetiredError] when the node is no longer this installer's. It starts
// no goroutine.
func (k *Keeper) Run(ctx context.Context) error {
	if err := k.Installer.Store.Claim(ctx); err != nil {
		return err
	}
	for ctx.Err() == nil {
		next := Resync
		if err := k.once(ctx); notOurs(err) {
			return err
		} else if err != nil {
			next = retry
		}
		k.Watcher.Wait(ctx, k.dirs(), k.Clock.After(next))
		k.sleep(ctx, settle)
	}
	return nil
}

func notOurs(err error) bool {
	_, superseded := errors.AsType[*own.SupersededError](err)
	_, retired := errors.AsType[*own.RetiredError](err)
	return superseded || retired
}

// once looks at the node and repairs it, if it is not too soon after the last repair.
func (k *Keeper) once(ctx context.Context) error {
	drifts, _ := k.Installer.Inspect(ctx) // what it fails of, Apply fails of, too
	if len(drifts) > 0 {
		k.backOff(ctx)
	}
	if ctx.Err() != nil {
		return nil //nolint:nilerr // Run's end is no error
	}
	out, err := k.Installer.Apply(ctx)
	if k.Report != nil && ctx.Err() == nil {
		k.Report(Report{Drifts: drifts, Outcome: out, Err: err, Pause: k.pause})
	}
	return err
}

// backOff waits for the time of the next repair, and doubles the pause after it.
func (k *Keeper) backOff(ctx context.Context) {
	since := k.Clock.Now().Sub(k.repaired)
	switch {
	case k.repaired.IsZero(), since > calm:
		k.pause = 0
	case since < k.pause:
		k.sleep(ctx, k.pause-since)
	}
	k.repaired = k.Clock.Now()
	k.pause = min(max(2*k.pause, firstPause), lastPause)
}

func (k *Keeper) sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-k.Clock.After(d):
	}
}

func (k *Keeper) dirs() []string {
	dirs := []string{k.Installer.Place.Conf, k.Installer.Place.Private, k.Installer.Place.Bin}
	for _, path := range []string{k.Installer.Kubeconfig, k.Installer.Named} {
		if at := dirOf(path); at != "" {
			dirs = append(dirs, at)
		}
	}
	return dirs
}
