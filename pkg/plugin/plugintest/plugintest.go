// Package plugintest runs single plugins as a runtime would, on a node and in pods that are network
// namespaces of the test: ours in-process, or the reference's binaries, by the same calls.
//
// It is support for tests only. A Node and all that it made is gone when the test ends.
package plugintest

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	cniinvoke "github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/types/create"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/invoke"
	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/plugin"
)

// Runner runs one CNI command of a plugin on a node, with the environment and stdin of the
// protocol; it returns stdout.
type Runner interface {
	Run(ctx context.Context, node *Node, kind string, environ []string, stdin []byte) ([]byte, error)
}

// Plugins runs these in-process; a type that is not among them is an error.
type Plugins map[string]*plugin.Plugin

// Run makes a session for the one command.
func (p Plugins) Run(
	ctx context.Context, node *Node, kind string, environ []string, stdin []byte,
) ([]byte, error) {
	d, done := p.open(node)
	defer done()
	return d.Run(ctx, node, kind, environ, stdin)
}

// open begins an operation on a sandbox.
func (p Plugins) open(node *Node) (*delegates, func()) {
	d := &delegates{node: node}
	session := plugin.NewSession(node.Host.Path)
	d.run = func(kind string) (*plugin.Bound, bool) {
		found, ok := p[kind]
		if !ok {
			return nil, false
		}
		return session.Bind(found), true
	}
	return d, session.Close
}

// delegates runs IPAM plugins in the session of the plugin that asks; one that is not in-process is
// a script of the node's.
type delegates struct {
	version.PluginDecoder
	node *Node
	run  func(kind string) (*plugin.Bound, bool)
}

// Run returns one command of the operation.
func (d *delegates) Run(
	ctx context.Context, _ *Node, kind string, environ []string, stdin []byte,
) ([]byte, error) {
	bound, ok := d.run(kind)
	if !ok {
		return nil, fmt.Errorf("plugintest: no plugin %q", kind)
	}
	return Run(ctx, bound, &invoke.Call{
		Environ: environ, Stdin: stdin, Exec: d, Terms: invoke.Terms{Limits: d.node.Limits},
	})
}

// Run returns one command of a plugin with this configuration. A key that it does not know is an
// error: there is no other plugin that may know it.
func Run(ctx context.Context, bound *plugin.Bound, call *invoke.Call) (stdout []byte, err error) {
	prepared, err := bound.Prepare(call.Stdin)
	if err != nil {
		return nil, err
	}
	if len(prepared.Unknown) > 0 {
		return nil, types.NewError(types.ErrInvalidNetworkConfig,
			"unknown keys: "+strings.Join(prepared.Unknown, ", "), "")
	}
	if err := cmp.Or(prepared.Refused, prepared.Foreign); err != nil {
		return nil, types.NewError(failure.Code(err), err.Error(), "")
	}
	return prepared.Run(ctx, call)
}

func (d *delegates) FindInPath(kind string, paths []string) (string, error) {
	if _, ok := d.run(kind); ok {
		return kind, nil
	}
	return cniinvoke.FindInPath(kind, paths)
}

func (d *delegates) ExecPlugin(
	ctx context.Context, path string, stdin []byte, environ []string,
) ([]byte, error) {
	if bound, ok := d.run(path); ok {
		return Run(ctx, bound, &invoke.Call{
			Environ: environ, Stdin: stdin, Exec: d, Terms: invoke.Terms{Limits: d.node.Limits},
		})
	}
	return Exec(ctx, d.node, path, environ, stdin)
}

// Reference runs the reference's binaries, those of BRAID_PLUGINS.
type Reference struct{}

// Run execs the binary in the node's namespace.
func (Reference) Run(
	ctx context.Context, node *Node, kind string, environ []string, stdin []byte,
) ([]byte, error) {
	return Exec(ctx, node, filepath.Join(ReferenceDir(node.tb), kind), environ, stdin)
}

// ReferenceDir returns the directory with the reference's plugins.
func ReferenceDir(tb testing.TB) string {
	tb.Helper()
	dir := os.Getenv("BRAID_PLUGINS")
	if dir == "" {
		tb.Fatal("BRAID_PLUGINS is not set: run `make test`, or BRAID_PLUGINS=$(scripts/plugins.sh) go " +
			"test ...")
	}
	return dir
}

// Exec runs a plugin's binary in the node's namespace. The error is the one that it printed, a
// *types.Error, where it did.
func Exec(
	ctx context.Context, node *Node, path string, environ []string, stdin []byte,
) ([]byte, error) {
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, path)
	cmd.Env = append(os.Environ(), environ...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(stdin), &stdout, &stderr
	err := node.Host.Run(cmd.Run)
	if err == nil {
		return stdout.Bytes(), nil
	}
	printed := &types.Error{}
	if json.Unmarshal(stdout.Bytes(), printed) == nil && (printed.Msg != "" || printed.Code != 0) {
		return nil, printed
	}
	return nil, fmt.Errorf("%w: %s", err, stderr.String())
}

// Node is a node: a network namespace and a directory.
type Node struct {
	Host *nettest.Namespace
	// Dir is for files: dataDir of IPAM, ...
	Dir string
	// Limits are the limits of all attachments; nil for none.
	Limits *attachment.Limits

	tb     testing.TB
	runner Runner
}

// New makes a node without links but loopback, whose plugins the runner runs.
func New(tb testing.TB, runner Runner) *Node {
	tb.Helper()
	return &Node{Host: nettest.New(tb), Dir: tb.TempDir(), tb: tb, runner: runner}
}

// With returns the same node with another runner.
func (n *Node) With(runner Runner) *Node {
	other := *n
	other.runner = runner
	return &other
}

// Operation returns the node for several commands that are one operation on a sandbox, as the
// engine's are; done ends it.
func (n *Node) Operation() (node *Node, done func()) {
	plugins, ok := n.runner.(Plugins)
	if !ok {
		return n, func() {}
	}
	same := *n
	same.runner, done = plugins.open(n)
	return &same, done
}

// Script puts an executable shell script into the node's plugin path, as an IPAM plugin of that
// type.
func (n *Node) Script(kind, body string) {
	n.tb.Helper()
	if err := os.MkdirAll(n.bin(), 0o700); err != nil {
		n.tb.Fatal(err)
	}
	err := os.WriteFile(filepath.Join(n.bin(), kind), []byte("#!/bin/sh\n"+body), 0o700)
	if err != nil {
		n.tb.Fatal(err)
	}
}

func (n *Node) bin() string { return filepath.Join(n.Dir, "bin") }

// Conf is a plugin's configuration.
type Conf map[string]any

// With returns a copy with further keys.
func (c Conf) With(more Conf) Conf {
	all := maps.Clone(c)
	maps.Copy(all, more)
	return all
}

// Pod is a pod: a network namespace and what a runtime says of it.
type Pod struct {
	*nettest.Namespace
	Node *Node
	// ID is CNI_CONTAINERID, IfName CNI_IFNAME, Args CNI_ARGS, NetNS CNI_NETNS.
	ID, IfName, Args, NetNS string
	// Prev is the result of the last Add, which Check and Del get as prevResult.
	Prev json.RawMessage
	// Ctx is the context of calls; the test's where it is nil.
	Ctx context.Context
}

// Pod makes a pod with an interface net1 to be.
func (n *Node) Pod(id string) *Pod {
	n.tb.Helper()
	ns := nettest.New(n.tb)
	return &Pod{Namespace: ns, Node: n, ID: id, IfName: "net1", NetNS: ns.Path}
}

// Call runs a command with the configuration as it is; without cniVersion and name they are 1.1.0
// and "net".
func (p *Pod) Call(command string, conf Conf) ([]byte, error) {
	conf = Conf{"cniVersion": "1.1.0", "name": "net"}.With(conf)
	stdin, err := json.Marshal(conf)
	if err != nil {
		p.Node.tb.Fatal(err)
	}
	kind, _ := conf["type"].(string)
	environ := []string{
		"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + p.ID, "CNI_NETNS=" + p.NetNS,
		"CNI_IFNAME=" + p.IfName, "CNI_ARGS=" + p.Args,
		"CNI_PATH=" + p.Node.bin() + ":" + ReferenceDir(p.Node.tb),
	}
	ctx := p.Ctx
	if ctx == nil {
		ctx = p.Node.tb.Context()
	}
	return p.Node.runner.Run(ctx, p.Node, kind, environ, stdin)
}

// Add runs ADD and keeps the result for Check and Del.
func (p *Pod) Add(conf Conf) (*types100.Result, error) {
	out, err := p.Call("ADD", conf)
	if err != nil {
		return nil, err
	}
	p.Prev = out
	return Parse(out)
}

// Parse reads a result of any version.
func Parse(out []byte) (*types100.Result, error) {
	var printed struct {
		CNIVersion string `json:"cniVersion"`
	}
	if err := json.Unmarshal(out, &printed); err != nil {
		return nil, err
	}
	result, err := create.Create(printed.CNIVersion, out)
	if err != nil {
		return nil, err
	}
	return types100.NewResultFromResult(result)
}

// Check runs CHECK with the last result.
func (p *Pod) Check(conf Conf) error { return p.after("CHECK", conf) }

// Del runs DEL with the last result.
func (p *Pod) Del(conf Conf) error { return p.after("DEL", conf) }

// after runs a command that gets the result of the ADD from the runtime.
func (p *Pod) after(command string, conf Conf) error {
	if p.Prev != nil {
		conf = conf.With(Conf{"prevResult": p.Prev})
	}
	_, err := p.Call(command, conf)
	return err
}

// GC runs GC; the attachments of these pods are valid.
func (n *Node) GC(conf Conf, valid ...*Pod) error {
	n.tb.Helper()
	list := []types.GCAttachment{}
	for _, p := range valid {
		list = append(list, types.GCAttachment{ContainerID: p.ID, IfName: p.IfName})
	}
	nobody := &Pod{Node: n}
	_, err := nobody.Call("GC", conf.With(Conf{"cni.dev/valid-attachments": list}))
	return err
}

// Status runs STATUS.
func (n *Node) Status(conf Conf) error {
	n.tb.Helper()
	_, err := (&Pod{Node: n}).Call("STATUS", conf)
	return err
}

// Code returns the CNI error code of a plugin's error; 999 where it says none, as the protocol's
// library prints it; 0 for nil.
func Code(err error) uint {
	if err == nil {
		return 0
	}
	if e, ok := errors.AsType[*types.Error](err); ok {
		return e.Code
	}
	return types.ErrInternal
}
