package node

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/invoke"
	"github.com/braid-cni/braid/pkg/ipam/block"
	"github.com/braid-cni/braid/pkg/plugin/memory"
	"github.com/braid-cni/braid/plugins/builtin"
	"github.com/braid-cni/braid/plugins/ipam/whereabouts"
)

// Plugin runs built-in plugins that are called under their own names, without an engine. It is for
// one call.
type Plugin struct {
	exec      *invoke.Exec
	memory    memory.Memory
	addresses *Addresses
	// used is the configuration of the cluster-wide addresses that the call used; nil for none.
	used *whereabouts.Conf
}

// PluginOptions take the place of Braid's configuration for such a plugin.
type PluginOptions struct {
	Node    conf.Node
	Version string
	// Warn is called for each key or value that has no effect.
	Warn func(*failure.Error)
	// Now is as in Options.
	Now func() time.Time
}

// DefaultPlugin returns the configuration of a plugin that is called under its own name. Like the
// reference, it reads the node's name from NODENAME.
func DefaultPlugin() conf.Node {
	return conf.Node{
		NodeName: strings.TrimSpace(os.Getenv("NODENAME")), StateDir: conf.DefaultStateDir,
		Timeouts: conf.Timeouts{API: conf.DefaultAPITimeout},
	}
}

// NewPlugin prepares a call. The caller closes it.
func NewPlugin(o PluginOptions) *Plugin {
	p := &Plugin{memory: memory.Memory{Dir: filepath.Join(o.Node.StateDir, "standalone")}}
	p.addresses = &Addresses{
		Name: o.Node.NodeName, StateDir: o.Node.StateDir, Rotation: conf.DefaultLogOptions(),
		Log: slog.New(slog.DiscardHandler), Now: o.Now,
		Source: func(c *whereabouts.Conf) (Source, error) {
			p.used = c
			node := o.Node
			node.Kubeconfig = c.Kubernetes.Kubeconfig
			return OpenSource(&node, o.Version)
		},
	}
	p.exec = builtin.NewExec(p.addresses.Log,
		builtin.Node{Open: p.addresses.Open, StateDir: o.Node.StateDir})
	p.exec.Warn = o.Warn
	return p
}

// Operate runs the plugin of the call's kind, which may also be a binary in the path, and returns
// what it prints.
func (p *Plugin) Operate(ctx context.Context, call *memory.Call, path []string) ([]byte, error) {
	found, err := p.exec.FindInPath(call.Kind, path)
	if err != nil {
		return nil, err
	}
	return p.memory.Operate(ctx, call,
		func(ctx context.Context, environ []string, stdin []byte) ([]byte, error) {
			return p.exec.ExecPlugin(ctx, found, stdin, environ)
		})
}

// tendWithin bounds the time of Tend.
const tendWithin = time.Second

// Tend does the upkeep of the node's blocks that is due, if the call used cluster-wide addresses.
func (p *Plugin) Tend(ctx context.Context) {
	if p.used == nil {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, tendWithin)
	defer cancel()
	// It stays due if it fails, and nobody is there to be told.
	p.addresses.tend(ctx, p.used, (*block.Manager).Tend) //nolint:errcheck // see above
}

// Close ends the call.
func (p *Plugin) Close() { p.exec.Close() }
