package node

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/ipam/block"
	"github.com/braid-cni/braid/pkg/logfile"
	"github.com/braid-cni/braid/pkg/nodeid"
	"github.com/braid-cni/braid/plugins/ipam/whereabouts"
)

// Addresses opens the cluster-wide addresses of this node.
type Addresses struct {
	// Source returns the source of the blocks for a configuration of whereabouts.
	Source func(*whereabouts.Conf) (Source, error)
	// Name is the name of the Node object of this machine, its hostname if empty.
	Name string
	// StateDir is the directory for state that lives until the node's next start.
	StateDir string
	// Rotation is how the log files that configurations name are rotated.
	Rotation conf.LogOptions
	Log      *slog.Logger
	// Trace is called for each change of state; nil for nobody.
	Trace func(point string)
	// Ahead is Options.Ahead.
	Ahead func(context.Context, *block.Manager, []block.Wish)
	// Now is the wall clock, time.Now if nil. The boot clock is as fast.
	Now func() time.Time
}

// Open implements builtin.Opener. It costs nothing yet: files are read, and the API server is
// dialled, when the manager needs them.
func (a *Addresses) Open(c *whereabouts.Conf) (*whereabouts.Addresses, error) {
	source, err := a.Source(c)
	if err != nil {
		return nil, err
	}
	name, err := nodeName(a.Name)
	if err != nil {
		return nil, err
	}
	log, done := logfile.OpenElse(a.Log.With("ipam", c.Type), c.LogFile, c.LogLevel,
		whereabouts.LogRoots(), int64(a.Rotation.MaxSize)<<20)
	m := &block.Manager{
		Store: source, Nodes: known{source}, Dir: filepath.Join(a.StateDir, "ipam"), NodeName: name,
		Boot: nodeid.Boot(a.StateDir), Log: log,
		Tell: teller(source, log), Step: a.step, Wall: a.Now,
	}
	if a.Now != nil {
		fast := time.Until(a.Now())
		m.Now = func() time.Time { return block.BootClock().Add(fast) }
	}
	addresses := &whereabouts.Addresses{Manager: m, Claims: source, Close: done}
	if a.Ahead != nil {
		lasting := *m // which outlives the operation, and its log
		lasting.Log, lasting.Tell, lasting.Step = a.Log, teller(source, a.Log), nil
		addresses.Got = func(ctx context.Context, wishes []block.Wish) { a.Ahead(ctx, &lasting, wishes) }
	}
	return addresses, nil
}

func (a *Addresses) step(change string) error {
	if a.Trace != nil {
		a.Trace("addresses: " + change)
	}
	return nil
}

// Tend implements engine.Upkeep: it does the upkeep of the node's blocks, of all networks, that is
// due.
func (a *Addresses) Tend(ctx context.Context) error {
	return a.tend(ctx, anyNetwork(), (*block.Manager).Tend)
}

// TendNow is Tend that also does what is not due yet.
func (a *Addresses) TendNow(ctx context.Context) error {
	return a.tend(ctx, anyNetwork(), (*block.Manager).TendNow)
}

func anyNetwork() *whereabouts.Conf { return &whereabouts.Conf{Type: "whereabouts"} }

// tend does one kind of upkeep of the blocks, with their state open as long.
func (a *Addresses) tend(
	ctx context.Context, c *whereabouts.Conf, tend func(*block.Manager, context.Context) error,
) error {
	m, err := a.Open(c)
	if err != nil {
		return err
	}
	defer m.Close()
	m.Step = nil // it is not of the sandbox whose changes are traced
	return tend(m.Manager, ctx)
}

// teller raises events.
func teller(
	events Source, log *slog.Logger,
) func(context.Context, string, types.UID, string, string) {
	return func(ctx context.Context, pod string, uid types.UID, reason, message string) {
		namespace, name, _ := strings.Cut(pod, "/")
		err := events.Event(ctx, &metav1.ObjectMeta{Namespace: namespace, Name: name, UID: uid},
			"Warning", reason, message)
		if err != nil {
			log.WarnContext(ctx, "event could not be raised",
				"pod", pod, "reason", reason, "message", message, "error", err)
		}
	}
}

// nodeName returns the name of this machine's Node object: the configured one, else the hostname.
func nodeName(configured string) (string, error) {
	if configured != "" {
		return configured, nil
	}
	return nodeid.Hostname()
}

// thisNode is the Node object of this machine, by its configured name.
type thisNode struct {
	nodes block.Nodes
	name  string
}

// ThisNode implements resolve.ThisNode.
func (t thisNode) ThisNode(ctx context.Context) (*metav1.ObjectMeta, error) {
	name, err := nodeName(t.name)
	if err != nil {
		return nil, err
	}
	return known{t.nodes}.Node(ctx, name)
}

// known adds how to name the node to the error if there is no Node of the name.
type known struct{ block.Nodes }

// Node returns the metadata of a Node object.
func (k known) Node(ctx context.Context, name string) (*metav1.ObjectMeta, error) {
	node, err := k.Nodes.Node(ctx, name)
	// a hostname need not be a name of objects
	if apierrors.IsNotFound(err) || apierrors.IsBadRequest(err) {
		return nil, &failure.Error{
			Reason: failure.InvalidConfig, Field: "braid.nodeName", Err: err,
			Fix: "set it to the name of the Node object of this machine",
		}
	}
	return node, err
}
