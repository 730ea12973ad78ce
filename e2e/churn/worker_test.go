package churn_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/ipam/alloc"
	"github.com/braid-cni/braid/pkg/ipam/block"
	"github.com/braid-cni/braid/pkg/kube"
)

// asWorker makes the test binary a worker: the JSON of one.
const asWorker = "BRAID_CHURN_WORKER"

// worker is a process that adds and deletes containers of one node for as long as it lives. It
// writes what it does into a journal, from which the one that takes its place after a kill goes on.
type worker struct {
	Kubeconfig string
	// Dir is the directory of all: a node's state is below it, and the journals.
	Dir      string
	Node, ID int
	Boot     string
}

// entry is a line of a journal. An address is the container's from "has", when its Add has
// succeeded, to "leaves", when its Del begins.
type entry struct {
	// At is the time since the machine was booted.
	At time.Duration
	// What is "adds", "has", "leaves" or "gone".
	What, Container string
	Addrs           []netip.Addr `json:",omitempty"`
}

func now() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic(err)
	}
	return time.Duration(t.Nano())
}

func (w *worker) journal() string {
	return filepath.Join(w.Dir, fmt.Sprintf("%d-%d.journal", w.Node, w.ID))
}

// manager is the node's. age is by how much its clock is ahead.
func (w *worker) manager(age time.Duration) (*block.Manager, error) {
	api, err := kube.NewAPI(kube.APIOptions{
		Kubeconfig: w.Kubeconfig, Version: "churn", Timeout: 5 * time.Second,
	})
	if err != nil {
		return nil, err
	}
	return &block.Manager{
		Store: api, Nodes: api, Dir: filepath.Join(w.Dir, nodeName(w.Node)), NodeName: nodeName(w.Node),
		Log: slog.New(slog.DiscardHandler),
		Boot: func() (string, error) {
			return w.Boot, nil
		}, Now: func() time.Time { return time.Unix(0, int64(now()+age)) },
	}, nil
}

// ranges are what the containers ask for, each for all of one of these lists: more than the nodes
// can have blocks of, one block for all of them, and one that is never full.
func ranges() [][]string {
	return [][]string{{"10.0.0.0/24"}, {"10.1.0.0/28"}, {"10.2.0.0/16", "fd02::/64"}}
}

func wishes(list []string) ([]block.Wish, error) {
	var all []block.Wish
	for _, cidr := range list {
		w, err := alloc.NewWindow(netip.MustParsePrefix(cidr), netip.Addr{}, netip.Addr{}, nil, nil)
		if err != nil {
			return nil, err
		}
		all = append(all, block.Wish{Space: block.SpaceOf("churn", ""), Window: w})
	}
	return all, nil
}

func holder(container string) block.Holder {
	return block.Holder{ID: attachment.ID{Network: "churn", ContainerID: container, IfName: "net1"}}
}

// readJournal returns the lines; none where there is no journal.
func readJournal(path string) (list []entry, err error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close() //nolint:errcheck // opened for reading
	for r := bufio.NewReader(f); ; {
		line, err := r.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return list, nil
		}
		var e entry
		if err == nil {
			err = json.Unmarshal(line, &e)
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		list = append(list, e)
	}
}

// work is the worker's main: it ends by a kill, or with a panic, which the parent reports.
func work() {
	var w worker
	if err := json.Unmarshal([]byte(os.Getenv(asWorker)), &w); err != nil {
		panic(err)
	}
	if err := w.run(context.Background()); err != nil {
		panic(err)
	}
}

// most is how many containers a worker has at most.
const most = 4

func (w *worker) run(ctx context.Context) error {
	m, err := w.manager(0)
	if err != nil {
		return err
	}
	has, unfinished, err := w.resume()
	if err != nil {
		return err
	}
	for _, container := range unfinished {
		if err := w.del(ctx, m, container); err != nil {
			return err
		}
	}
	for i := 0; ; i++ {
		if len(has) == most || len(has) > 0 && rand.IntN(2) == 0 {
			at := rand.IntN(len(has))
			if err := w.del(ctx, m, has[at]); err != nil {
				return err
			}
			has = slices.Delete(has, at, at+1)
			continue
		}
		container := fmt.Sprintf("c-%d-%d-%d-%d", w.Node, w.ID, os.Getpid(), i)
		added, err := w.add(ctx, m, container)
		if err != nil {
			return err
		}
		if added {
			has = append(has, container)
		}
		if rand.IntN(20) == 0 { // as the node's daemon will; errors are those of an API that is away
			m.Tend(ctx) //nolint:errcheck,gosec // see above
		}
	}
}

// resume reads what the worker's predecessors have left: containers that have their addresses, and
// those whose Add or Del was not finished.
func (w *worker) resume() (has, unfinished []string, err error) {
	list, err := readJournal(w.journal())
	last := map[string]string{}
	for _, e := range list {
		last[e.Container] = e.What
	}
	for container, what := range last {
		switch what {
		case "has":
			has = append(has, container)
		case "adds", "leaves":
			unfinished = append(unfinished, container)
		}
	}
	return has, unfinished, err
}

// note appends a line to the journal, in one write.
func (w *worker) note(what, container string, addrs ...netip.Addr) error {
	line, err := json.Marshal(entry{now(), what, container, addrs})
	if err != nil {
		return err
	}
	f, err := os.OpenFile(w.journal(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(line, '\n'))
	return errors.Join(err, f.Close())
}

// add reports whether the container has got its addresses. That none is free, or that the API is
// away, is no error.
func (w *worker) add(ctx context.Context, m *block.Manager, container string) (bool, error) {
	want, err := wishes(ranges()[rand.IntN(len(ranges()))])
	if err != nil {
		return false, err
	}
	if err := w.note("adds", container); err != nil {
		return false, err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	addrs, err := m.Add(ctx, holder(container), want, nil)
	if err != nil {
		return false, w.del(ctx, m, container)
	}
	return true, w.note("has", container, addrs...)
}

// del tries until it succeeds, as a runtime does: addresses in the API need an API.
func (w *worker) del(ctx context.Context, m *block.Manager, container string) error {
	if err := w.note("leaves", container); err != nil {
		return err
	}
	for start := time.Now(); ; time.Sleep(50 * time.Millisecond) {
		err := m.Del(ctx, holder(container).ID)
		if err == nil {
			return w.note("gone", container)
		}
		if time.Since(start) > time.Minute {
			return fmt.Errorf("container %s cannot be deleted: %w", container, err)
		}
	}
}
