// Package node puts Braid together on a node, for the commands that work there: an engine with all
// its parts, or a built-in plugin that is called under its own name.
//
// Contract: nothing is dialled and no file is made before an operation needs it. Who opens closes.
package node

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/braid-cni/braid/pkg/cnicache"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/engine"
	"github.com/braid-cni/braid/pkg/ipam/block"
	"github.com/braid-cni/braid/pkg/kube/kubelet"
	"github.com/braid-cni/braid/pkg/kube/manifests"
	"github.com/braid-cni/braid/pkg/logfile"
	"github.com/braid-cni/braid/pkg/netns"
	"github.com/braid-cni/braid/pkg/nl"
	"github.com/braid-cni/braid/pkg/notes"
	"github.com/braid-cni/braid/pkg/plugin/link"
	"github.com/braid-cni/braid/pkg/record"
	"github.com/braid-cni/braid/pkg/resolve"
	"github.com/braid-cni/braid/plugins/builtin"
)

// Options are what an engine depends on besides the node itself.
type Options struct {
	Node   *conf.Node
	Policy *conf.Policy
	// Version is the program's version, for API servers.
	Version string
	// Source reads Kubernetes' objects. If nil, it is what OpenSource returns.
	Source Source
	// Logs are further handlers of the log, beside the configured ones.
	Logs []slog.Handler
	// Ahead, if set, is told for what an ADD has got addresses, so that blocks are reserved for the
	// next ones. It does not wait. The manager outlives the ADD.
	Ahead func(context.Context, *block.Manager, []block.Wish)
	// Alone is true if the process is for one operation, and runs nothing but plugins.
	Alone bool
	// Trace is called for each change of state, for tests; nil for nobody.
	Trace func(point string)
	// Now is the wall clock, for tests; time.Now if nil.
	Now func() time.Time
}

// saidFor is for how long a node does not repeat what the policy objects to in a NAD.
const saidFor = time.Hour

// NewEngine puts an engine together. The caller closes the log after the last operation.
func NewEngine(o Options) (e *engine.Engine, closeLog func() error, err error) {
	source := o.Source
	if source == nil {
		if source, err = OpenSource(o.Node, o.Version); err != nil {
			return nil, nil, err
		}
	}
	log, closeLog := logfile.New(o.Node, o.Logs...)
	addresses := &Addresses{
		Source: Only(source), Name: o.Node.NodeName, StateDir: o.Node.StateDir,
		Rotation: o.Node.LogOptions,
		Log:      log, Trace: o.Trace, Now: o.Now, Ahead: o.Ahead,
	}
	_, local := source.(*manifests.Directory)
	return &engine.Engine{
		Node:         o.Node,
		Policy:       o.Policy,
		RuntimeCache: cnicache.Runtime,
		Source:       remembering(source, o, !local),
		ThisNode:     thisNode{source, o.Node.NodeName},
		Remote:       !local,
		Reporter:     source,
		Devices:      kubelet.NewDevices(kubelet.New(o.Node.PodResources), source),
		Namespaces:   namespaces{},
		Interiors:    interiors{},
		Records:      record.New(o.Node.StateDir),
		NewExec:      execs(o.Node, o.Policy, addresses, o.Alone),
		Upkeep:       addresses,
		Observer:     violations{tallyOf(o.Node.StateDir), log},
		Said: &notes.Notes{
			Dir: filepath.Join(o.Node.StateDir, "said"), Life: saidFor, Now: o.Now,
		},
		Log:   log,
		Trace: o.Trace,
		Now:   o.Now,
	}, closeLog, nil
}

// execs returns what makes executors of plugins. alone is that the process does one operation only.
func execs(
	node *conf.Node, policy *conf.Policy, addresses *Addresses, alone bool,
) func(*os.File) engine.Exec {
	return func(lock *os.File) engine.Exec {
		exec := builtin.NewExec(addresses.Log, builtin.Node{
			Open: addresses.Open, StateDir: node.StateDir, DataRoots: policy.DataRoots,
			Trace: addresses.Trace,
		})
		exec.ForceExec, exec.Inherit = node.Exec, lock
		exec.RefuseUnknown, exec.Alone = policy.RefuseUnknownKeys, alone
		return exec
	}
}

// Judge returns a finder that judges configurations of plugins. It runs no plugin and opens
// nothing, so it works everywhere.
func Judge(node *conf.Node, policy *conf.Policy) resolve.Finder {
	return execs(node, policy, &Addresses{Log: slog.New(slog.DiscardHandler)}, false)(nil)
}

// namespaces joins the packages that work in network namespaces.
type namespaces struct{ nl.Sandbox }

func (n namespaces) DeleteLinks(ctx context.Context, path string) error {
	return n.DeleteGroup(ctx, path, link.Group)
}

func (namespaces) Identity(path string) (string, error) { return netns.Identity(path) }

func (namespaces) IsNode(path string) bool { return netns.IsNode(path) }

func (namespaces) Scratch() (string, func(), error) { return netns.Scratch() }

// interiors is nl.Sandbox with the engine's types.
type interiors struct{ nl.Sandbox }

func (i interiors) DefaultRoutes(ctx context.Context, path string) (engine.DefaultRoutes, error) {
	return i.Sandbox.DefaultRoutes(ctx, path)
}

// Links returns the indexes of the links of a sandbox's network namespace, by name.
func Links(ctx context.Context, path string) (map[string]int, error) {
	return nl.Sandbox{}.Links(ctx, path)
}
