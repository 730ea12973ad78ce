package warm

import (
	"context"
	"log/slog"
	"slices"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/cmd/internal/node"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/engine"
	"github.com/braid-cni/braid/pkg/ipam/block"
	"github.com/braid-cni/braid/pkg/loglevel"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// maxEngines is how many engines are kept: as a rule one, and another for a while after the
// configuration has changed.
const maxEngines = 4

// Engines has an engine for each configuration that calls have. All fields but Open are optional.
type Engines struct {
	Version string
	// Open connects to where Kubernetes' objects are.
	Open func(*conf.Node) (node.Source, error)
	// Observer is told what the engines have done.
	Observer engine.Observer
	// Upkeep has calls do what the node owes others. The agent does that itself.
	Upkeep bool
	// Trace is engine.Engine's.
	Trace func(point string)

	ahead block.Ahead

	once   sync.Once
	events chan func(context.Context)

	mu    sync.Mutex
	ready []*warm // the one that was used last comes first
}

// warm is an engine that is kept.
type warm struct {
	// key is the configuration, and kubeconfig the file that it names.
	key        string
	kubeconfig stamp
	engine     *engine.Engine
	close      func()
	users      int
	dropped    bool
}

// keyOf is a configuration without what is a call's own.
func keyOf(c *conf.Config) string {
	own, policy := c.Node, c.Policy
	own.Warnings, policy.Warnings = nil, nil
	return string(strictjson.Marshal([]any{own, policy}))
}

// stamp tells a file from the one that takes its place.
type stamp struct {
	dev, ino uint64
	size     int64
	changed  unix.Timespec
}

func stampOf(path string) stamp {
	var st unix.Stat_t
	if path == "" || unix.Stat(path, &st) != nil {
		return stamp{}
	}
	return stamp{st.Dev, st.Ino, st.Size, st.Mtim}
}

// get returns the engine of a configuration, which is made if there is none: its kubeconfig is read
// again when that has changed. release gives it back.
func (w *Engines) get(c *conf.Config) (e *engine.Engine, release func(), err error) {
	now, key := stampOf(c.Kubeconfig), keyOf(c)
	w.mu.Lock()
	defer w.mu.Unlock()
	at := slices.IndexFunc(w.ready, func(have *warm) bool {
		return have.key == key && have.kubeconfig == now
	})
	var use *warm
	if at >= 0 {
		use = w.ready[at]
		w.ready = slices.Delete(w.ready, at, at+1)
	} else {
		if use, err = w.make(c); err != nil {
			return nil, nil, err
		}
		use.key, use.kubeconfig = key, now
	}
	w.ready = slices.Insert(w.ready, 0, use)
	use.users++
	for len(w.ready) > maxEngines {
		w.drop(w.ready[len(w.ready)-1])
		w.ready = w.ready[:len(w.ready)-1]
	}
	return use.engine, func() { w.release(use) }, nil
}

func (w *Engines) release(used *warm) {
	w.mu.Lock()
	defer w.mu.Unlock()
	used.users--
	if used.dropped && used.users == 0 {
		used.close()
	}
}

func (w *Engines) drop(old *warm) {
	old.dropped = true
	if old.users == 0 {
		old.close()
	}
}

// Close drops all engines. Calls that are at work go on.
func (w *Engines) Close() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, old := range w.ready {
		w.drop(old)
	}
	w.ready = nil
}

func (w *Engines) make(c *conf.Config) (*warm, error) {
	source, err := w.Open(&c.Node)
	if err != nil {
		return nil, err
	}
	own := c.Node
	var logs []slog.Handler
	if own.LogToStderr { // that is the client's
		own.LogToStderr = false
		logs = append(logs, &perCall{level: loglevel.Level(own.LogLevel)})
	}
	e, closeLog, err := node.NewEngine(node.Options{
		Node: &own, Policy: &c.Policy, Version: w.Version, Source: source, Logs: logs, Trace: w.Trace,
		Ahead: w.reserveLater,
	})
	if err != nil {
		return nil, err
	}
	e.Reporter = &later{source, w.queue(), e.Log}
	if w.Observer != nil {
		e.Observer = engine.Observers{e.Observer, w.Observer}
	}
	if !w.Upkeep {
		e.Upkeep = nil
	}
	return &warm{engine: e, close: func() {
		closeLog() //nolint:errcheck // nobody to tell
		if closer, ok := source.(interface{ Close() }); ok {
			closer.Close()
		}
	}}, nil
}

// reserveLater has ReserveAhead look at what a call has used up, once the call has its answer: both
// would want the same files and the API server.
func (w *Engines) reserveLater(ctx context.Context, m *block.Manager, wishes []block.Wish) {
	afterCall(ctx, func() { w.ahead.After(m, wishes) })
}

// ReserveAhead reserves blocks of addresses, after the calls that have used them up, until ctx is
// done.
func (w *Engines) ReserveAhead(ctx context.Context) { w.ahead.Run(ctx) }
