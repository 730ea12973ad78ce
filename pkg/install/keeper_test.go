package install_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/install"
	"github.com/braid-cni/braid/pkg/install/own"
	"github.com/braid-cni/braid/pkg/nettest"
)

// kept runs a Keeper on a host, with a real watch, and collects what it reports.
type kept struct {
	*host

	mu      sync.Mutex
	reports []install.Report
	end     chan error
}

func keep(t *testing.T, h *host, watcher install.Watcher) *kept {
	t.Helper()
	k := &kept{host: h, end: make(chan error, 1)}
	ctx, cancel := context.WithCancel(t.Context())
	keeper := &install.Keeper{
		Installer: h.Installer, Watcher: watcher, Clock: install.SystemClock{},
		Report: func(report install.Report) {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.reports = append(k.reports, report)
		},
	}
	go func() { k.end <- keeper.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-k.end; err != nil {
			t.Errorf("the keeper ended with %v", err)
		}
	})
	return k
}

func newWatch(t *testing.T) *install.Watch {
	t.Helper()
	w, err := install.NewWatch()
	must(t, err)
	t.Cleanup(func() { must(t, w.Close()) })
	return w
}

// until waits for something to be so, well before the next look that needs no sign.
func (k *kept) until(what string, so func() bool) {
	k.t.Helper()
	for end := time.Now().Add(install.Resync * 2 / 3); !so(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.t.Fatalf("not so: %s; reports are %+v", what, k.reports)
		}
	}
}

// calm waits until the keeper waits.
func (k *kept) calm() {
	looks := func() int {
		k.mu.Lock()
		defer k.mu.Unlock()
		return len(k.reports)
	}
	for last := -1; last != looks(); time.Sleep(time.Second) {
		last = looks()
	}
}

func (k *kept) repaired(cause install.Cause, by string) {
	k.t.Helper()
	k.until(string(cause)+" by "+by, func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		for _, report := range k.reports {
			for _, d := range report.Drifts {
				if d.Cause == cause && strings.Contains(d.By, by) &&
					strings.Contains(d.String(), string(cause)) && report.Err == nil {
					return true
				}
			}
		}
		return false
	})
	k.until("the runtime has Braid", func() bool {
		first, err := k.works()
		return err == nil && first == "braid"
	})
}

// Whoever renames, edits, removes or preempts the configuration, it is put back, and it is said who
// did.
func TestRepair(t *testing.T) {
	for name, test := range map[string]struct {
		do    func(h *host) error
		cause install.Cause
		by    string
	}{
		"cni.exclusive": {
			do: func(h *host) error {
				return os.Rename(h.conf("00-braid.conflist"), h.conf("00-braid.conflist.cilium_bak"))
			},
			cause: install.Renamed, by: "cilium with cni.exclusive",
		},
		"renamed": {do: func(h *host) error {
			return os.Rename(h.conf("00-braid.conflist"), h.conf("00-braid.conflist.old"))
		}, cause: install.Renamed, by: "00-braid.conflist.old"},
		"removed": {do: func(h *host) error {
			return os.Remove(h.conf("00-braid.conflist"))
		}, cause: install.Deleted},
		"preempted": {do: func(h *host) error {
			return os.WriteFile(h.conf("00-a.conflist"), []byte(calico), 0o600)
		}, cause: install.Preempted, by: `00-a.conflist of network "k8s-pod-network"`},
		"chained": {
			do: func(h *host) error {
				raw, err := os.ReadFile(h.conf("00-braid.conflist"))
				if err != nil {
					return err
				}
				chained := strings.Replace(string(raw), "\n  ]", `, {"type": "istio-cni"}]`, 1)
				return os.WriteFile(h.conf("00-braid.conflist"), []byte(chained), 0o600)
			},
			cause: install.Changed, by: "has the plugin istio-cni",
		},
		"emptied": {do: func(h *host) error {
			return os.Truncate(h.conf("00-braid.conflist"), 0)
		}, cause: install.Changed},
		"binary": {do: func(h *host) error {
			return os.Remove(filepath.Join(h.Place.Bin, "braid"))
		}, cause: install.Deleted},
		"directory": {
			do: func(h *host) error {
				return errors.Join(os.RemoveAll(h.Place.Conf), os.Mkdir(h.Place.Conf, 0o755),
					os.WriteFile(h.conf("10-flannel.conflist"), []byte(flannel), 0o600))
			},
			cause: install.Deleted,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := keep(t, newHost(t, options{}, "10-flannel.conflist", flannel), newWatch(t))
			k.until("installed", func() bool {
				first, err := k.works()
				return err == nil && first == "braid"
			})
			k.calm() // what is done between a look and a repair is repaired, too, but not seen
			must(t, test.do(k.host))
			k.repaired(test.cause, test.by)
		})
	}
}

// A file that is put in place while the node is looked at, as the credential's keeper does, is no
// drift.
func TestInspectDuringPut(t *testing.T) {
	h := newHost(t, options{}, "10-flannel.conflist", flannel)
	h.apply()
	var putting sync.WaitGroup
	done := make(chan struct{})
	putting.Go(func() {
		defer close(done)
		for i := range 200 {
			_, err := h.Store.Put(t.Context(),
				own.Bytes(h.Kubeconfig, 0o600, install.KindKubeconfig, fmt.Append(nil, i)))
			if err != nil {
				t.Error(err)
			}
		}
	})
	defer putting.Wait()
	for {
		drifts, err := h.Inspect(t.Context())
		if err != nil || len(drifts) > 0 {
			t.Fatalf("drifts %v, %v", drifts, err)
		}
		select {
		case <-done:
			return
		default:
		}
	}
}

// A default network that comes, goes and comes again under another name is followed.
func TestKeeperFollows(t *testing.T) {
	k := keep(t, newHost(t, options{}), newWatch(t))
	k.until("waits and says so", func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return len(k.reports) > 0 && failure.ReasonOf(k.reports[0].Err) == failure.NotReady
	})
	for _, name := range []string{"10-flannel.conflist", "20-flannel.conflist"} {
		must(t, os.WriteFile(k.conf(name), []byte(flannel), 0o600))
		k.until(name, func() bool {
			path, err := network(k.conf("00-braid.conflist"))
			return err == nil && path == k.conf(name)
		})
		must(t, os.Remove(k.conf(name)))
	}
}

// A directory that is a link may lead elsewhere later, as that of a snap does.
func TestKeeperFollowsLink(t *testing.T) {
	h := newHost(t, options{}, "10-flannel.conflist", flannel)
	dir := h.Place.Conf
	must(t, os.Rename(dir, dir+".1"))
	must(t, os.Symlink(filepath.Base(dir)+".1", dir))
	must(t, os.Mkdir(dir+".2", 0o755))
	must(t, os.WriteFile(filepath.Join(dir+".2", "10-flannel.conflist"), []byte(flannel), 0o600))
	k := keep(t, h, newWatch(t))
	k.until("installed", func() bool { return len(names(t, dir+".1")) == 2 })
	must(t, os.Symlink(filepath.Base(dir)+".2", dir+".new"))
	must(t, os.Rename(dir+".new", dir))
	must(t, os.WriteFile(filepath.Join(h.Place.Bin, "touched"), nil, 0o600)) // the next look
	k.until("installed there, too", func() bool { return len(names(t, dir+".2")) == 2 })
	k.calm() // nothing but the watch can show it
	must(t, os.Remove(filepath.Join(dir+".2", "00-braid.conflist")))
	k.until("watched there", func() bool { return len(names(t, dir+".2")) == 2 })
}

// Of two agents, the last that came keeps the node; the other ends.
func TestTwoKeepers(t *testing.T) {
	h := newHost(t, options{}, "10-flannel.conflist", flannel)
	first := &install.Keeper{
		Installer: h.Installer, Watcher: newWatch(t), Clock: install.SystemClock{},
	}
	end := make(chan error, 1)
	go func() { end <- first.Run(t.Context()) }()
	for first, err := h.works(); err != nil || first != "braid"; first, err = h.works() {
		time.Sleep(10 * time.Millisecond)
	}
	o := h.o
	o.Version = "2"
	next := &host{newInstaller(o), t, o}
	next.Store.Self = "next"
	keep(t, next, newWatch(t))
	if e, ok := errors.AsType[*own.SupersededError](<-end); !ok || e.By != "next" {
		t.Errorf("the first ended with %v", e)
	}
	for content := ""; content != "braid-full2"; time.Sleep(10 * time.Millisecond) {
		raw, err := os.ReadFile(filepath.Join(h.Place.Bin, "braid-full"))
		must(t, err)
		content = string(raw)
	}
}

// enemy is a Watcher and a Clock on which somebody undoes every repair at once.
type enemy struct {
	h       *host
	now     time.Time
	until   time.Time
	stop    context.CancelFunc
	repairs []time.Time
	peace   bool
	harm    func() bool // undoes a repair; nil: removes the configuration
}

func (e *enemy) Now() time.Time { return e.now }

func (e *enemy) After(d time.Duration) <-chan time.Time {
	ch := make(chan time.Time, 1)
	if d != install.Resync { // that is Wait's, which is interrupted
		e.now = e.now.Add(d)
		ch <- e.now
	}
	return ch
}

func (e *enemy) Wait(context.Context, []string, <-chan time.Time) {
	if e.now.After(e.until) {
		e.stop()
	}
	if e.peace {
		e.now = e.now.Add(install.Resync)
		return
	}
	e.now = e.now.Add(100 * time.Millisecond)
	if e.harm == nil {
		e.harm = func() bool { return os.Remove(e.h.conf("00-braid.conflist")) == nil }
	}
	if e.harm() {
		e.repairs = append(e.repairs, e.now)
	}
}

func (e *enemy) run(t *testing.T, k *install.Keeper, d time.Duration) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	e.stop, e.until = stop, e.now.Add(d)
	must(t, k.Run(ctx))
}

// There is no fight: who undoes each repair at once is answered ever less often. After a while of
// calm, a repair is quick again.
func TestBackOff(t *testing.T) {
	h := newHost(t, options{}, "10-flannel.conflist", flannel)
	e := &enemy{h: h, now: time.Now()}
	var last time.Duration
	k := &install.Keeper{
		Installer: h.Installer, Watcher: e, Clock: e,
		Report: func(report install.Report) {
			must(t, report.Err)
			last = report.Pause
		},
	}
	e.run(t, k, time.Hour)
	if n := len(e.repairs); n < 20 || n > 45 || last != 2*time.Minute {
		t.Errorf("%d repairs in an hour, the last pause is %v", n, last)
	}
	n := len(e.repairs)
	if e.repairs[2].Sub(e.repairs[0]) > 5*time.Second ||
		e.repairs[n-1].Sub(e.repairs[n-2]) < 2*time.Minute {
		t.Errorf("repairs were at %v", e.repairs)
	}
	e.peace = true
	e.run(t, k, 15*time.Minute)
	e.peace, e.repairs = false, nil
	e.run(t, k, 5*time.Second)
	if len(e.repairs) < 2 || last > 10*time.Second {
		t.Errorf("after calm: repairs at %v, pause %v", e.repairs, last)
	}
}

// Nor is there one with a default network's agent that writes its file again as soon as it is
// moved.
func TestBackOffMoving(t *testing.T) {
	h := newHost(t, options{Move: true}, "10-flannel.conflist", flannel)
	e := &enemy{h: h, now: time.Now(), harm: func() bool {
		_, err := os.Stat(h.conf("10-flannel.conflist"))
		h.write("10-flannel.conflist", flannel)
		return errors.Is(err, fs.ErrNotExist)
	}}
	e.run(t, &install.Keeper{Installer: h.Installer, Watcher: e, Clock: e}, time.Hour)
	if n := len(e.repairs); n < 20 || n > 45 {
		t.Errorf("moved %d times in an hour", n)
	}
	h.refersTo("00-braid.conflist", filepath.Join(h.Place.Private, "10-flannel.conflist"))
}

// What is not ours to repair delays nothing.
func TestPreemptedByMetaPlugin(t *testing.T) {
	h := newHost(t, options{}, "10-flannel.conflist", flannel, "00-a-multus.conf", multus)
	e := &enemy{h: h, now: time.Now(), peace: true}
	reports := 0
	e.run(t, &install.Keeper{
		Installer: h.Installer, Watcher: e, Clock: e,
		Report: func(report install.Report) {
			must(t, report.Err)
			if reports++; reports > 1 && (len(report.Drifts) != 1 || report.Pause != 0) {
				t.Errorf("report is %+v", report)
			}
		},
	}, time.Hour)
	if reports < 100 {
		t.Errorf("only %d looks in an hour", reports)
	}
}

// A node whose state cannot be written is no reason to end.
func TestKeeperWithoutState(t *testing.T) {
	h := newHost(t, options{}, "10-flannel.conflist", flannel)
	must(t, os.Rename(h.Store.Dir, h.Store.Dir+".away"))
	must(t, os.WriteFile(h.Store.Dir, nil, 0o600))
	k := keep(t, h, newWatch(t))
	k.until("it is said", func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return len(k.reports) > 0 && failure.ReasonOf(k.reports[0].Err) == failure.StateFailed
	})
	must(t, os.Remove(h.Store.Dir))
	must(t, os.Rename(h.Store.Dir+".away", h.Store.Dir))
	k.until("it is installed", func() bool {
		first, err := k.works()
		return err == nil && first == "braid"
	})
}

// A directory that comes later is found, and one that cannot be written is told about.
func TestKeeperDirectories(t *testing.T) {
	h := newHost(t, options{})
	must(t, os.Remove(h.Place.Conf))
	k := keep(t, h, newWatch(t))
	k.until("it is said", func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		return len(k.reports) > 0 && failure.ReasonOf(k.reports[0].Err) == failure.NotReady
	})
	nettest.NeedsRoot(t)
	must(t, os.Mkdir(h.Place.Conf, 0o755))
	must(t, unix.Mount("tmpfs", h.Place.Conf, "tmpfs", 0, ""))
	t.Cleanup(func() { unix.Unmount(h.Place.Conf, unix.MNT_DETACH) })
	h.write("10-flannel.conflist", flannel)
	must(t, unix.Mount("", h.Place.Conf, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
	k.until("it is said, too", func() bool {
		k.mu.Lock()
		defer k.mu.Unlock()
		err := k.reports[len(k.reports)-1].Err
		return failure.ReasonOf(err) == failure.StateFailed && strings.Contains(err.Error(), "read-only")
	})
	h.has(h.Place.Conf, "10-flannel.conflist")
	must(t, unix.Mount("", h.Place.Conf, "", unix.MS_REMOUNT, ""))
	k.until("it is installed", func() bool {
		first, err := k.works()
		return err == nil && first == "braid"
	})
}

// Nothing of a watch is left when it is closed.
func TestWatchOwnsItsGoroutines(t *testing.T) {
	before := goleak.IgnoreCurrent()
	w, err := install.NewWatch()
	must(t, err)
	dir := t.TempDir()
	timeout := make(chan time.Time)
	w.Wait(t.Context(), []string{dir, filepath.Join(dir, "later")}, timeout) // it is new
	must(t, os.Mkdir(filepath.Join(dir, "later"), 0o755))
	w.Wait(t.Context(), []string{dir, filepath.Join(dir, "later")}, timeout)
	must(t, os.WriteFile(filepath.Join(dir, "later", "file"), nil, 0o600))
	w.Wait(t.Context(), []string{dir, filepath.Join(dir, "later")}, timeout)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w.Wait(ctx, []string{dir, filepath.Join(dir, "later")}, timeout)
	must(t, w.Close())
	goleak.VerifyNone(t, before)
}

func TestPoll(t *testing.T) {
	e := &enemy{now: time.Now()}
	start := e.now
	install.Poll{Clock: e, Every: 5 * time.Second}.Wait(t.Context(), nil, make(chan time.Time))
	if e.now.Sub(start) != 5*time.Second {
		t.Errorf("polled after %v", e.now.Sub(start))
	}
}
