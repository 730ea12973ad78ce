// Package invoke runs one plugin: in this process if the registry has its type, else the binary in
// the plugin path. If the in-process plugin does not know a key of the configuration, the binary of
// its type runs; without a binary the key is ignored with a warning.
//
// Contract: Exec is libcni's invoke.Exec. So the chain logic (prevResult, capabilities, result
// cache, reverse DEL, GC) stays in libcni. An Exec is for one operation on a sandbox, in which it
// reads each configuration once. Every failure is a *failure.Error that names the plugin; the
// plugin's own CNI error is in its chain. A binary is killed when ctx is done or when it prints too
// much, with all processes that it started, also those that left its process group and its session.
package invoke

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	cniinvoke "github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/weaken"
)

// Plugin is an in-process plugin.
type Plugin interface {
	// Prepare reads a configuration, and returns an error if it cannot be read.
	Prepare(config []byte) (*Prepared, error)
}

// Prepared is an in-process plugin with its configuration. It serves any number of calls.
type Prepared struct {
	// Run makes one call. Its stdin is the configuration with the keys of the call: name, cniVersion,
	// runtimeConfig, prevResult and the valid attachments.
	Run Operation
	// Unknown are the paths of the keys that the plugin does not know. Run ignores them.
	Unknown []string
	// Recased are the keys that Run reads although they are written in another case.
	Recased []Recased
	// Foreign is the error of a value that another implementation of the plugin's type knows, and this
	// one does not; nil if there is none.
	Foreign error
	// Refused is the error of an ADD whose keys are wrong: one looks like a slip of another, or is
	// there twice. Nil if there is none. Run works with what it reads.
	Refused error
	// Ignored are warnings of values that have no effect.
	Ignored []*failure.Error
	// Validate returns the error of an ADD whose values are wrong, whatever the pod and the node. It
	// may be nil.
	Validate func() error
	// Protect returns an error if a binary in its place could exceed the limits of an attachment. It
	// may be nil.
	Protect func(ctx context.Context, call *Call) error
	// Room returns for how many more attachments the plugin has what they need. It is nil where
	// there is room for any number.
	Room func(ctx context.Context, call *Call) (uint64, error)
}

// Recased is a key that is written otherwise than the plugin's README has it.
type Recased struct{ Path, Key string }

// Call is one call of the CNI protocol.
type Call struct {
	// Environ is the protocol's environment (CNI_COMMAND, ...).
	Environ []string
	Stdin   []byte
	// Exec runs other plugins for this one.
	Exec cniinvoke.Exec
	// Terms are the terms of the attachment.
	Terms Terms
}

// Operation is one CNI operation. It returns what the binary would print on stdout, promptly when
// ctx is done.
type Operation = func(ctx context.Context, call *Call) (stdout []byte, err error)

// Registry maps plugin types to those that run in-process. It is filled in cmd and never changes.
type Registry map[string]Plugin

// builtinPrefix marks the "path" of an in-process plugin; no path that FindInPath finds on disk
// starts like that.
const builtinPrefix = "builtin:"

// Exec runs plugins. It implements libcni's invoke.Exec. Make one for each operation on a sandbox:
// it keeps the configurations that it has read, and reads each once (see Written).
type Exec struct {
	version.PluginDecoder

	Builtin Registry
	// ForceExec lists types that are exec'd although Builtin has them (the "braid.exec" key).
	ForceExec []string
	// Inherit is a file that exec'd plugins keep open until they end: the sandbox's lock. May be nil.
	Inherit *os.File
	// Alone is true if this process has no children but those that it runs plugins in, one after the
	// other. What a plugin leaves behind becomes its child, and is killed with a plugin that is.
	Alone bool
	Log   *slog.Logger
	// RefuseUnknown makes an error of a key that the in-process plugin does not know, where there
	// is no binary of its type (the "braid.unknownKeys" key).
	RefuseUnknown bool
	// Warn, if set, is told what Find would return as warnings, at each ADD of an in-process
	// plugin: for one that is called without an engine. Such a plugin's DEL also passes over values
	// that only another implementation knows, since its ADD refused them.
	Warn func(*failure.Error)
	// Guard, if set, protects the node from binaries that run for an attachment that has limits.
	Guard Guard
	// Release, if set, is called by Close.
	Release func()

	mu sync.Mutex
	// prepared are the configurations that were read, by the plugin's type and their text.
	prepared map[string]map[string]*Prepared
}

var _ cniinvoke.Exec = (*Exec)(nil)

// Close ends the operation.
func (e *Exec) Close() {
	if e.Release != nil {
		e.Release()
	}
}

// Force has plugins of these types exec'd even if they are built in, and no others.
func (e *Exec) Force(kinds []string) { e.ForceExec = kinds }

// builtin reports whether there is an in-process plugin of that type which may be used.
func (e *Exec) builtin(kind string) bool {
	return e.Builtin[kind] != nil && !slices.Contains(e.ForceExec, kind)
}

// InProcess reports whether a plugin with this configuration runs in-process. Binaries are looked
// for in paths.
func (e *Exec) InProcess(kind string, config []byte, paths []string, chosen Chosen) bool {
	if !e.builtin(kind) {
		return false
	}
	c, err := e.choose(kind, config, paths, chosen)
	return err != nil || c.path == ""
}

// Found is what Find found.
type Found struct {
	// Chosen is where the plugin runs, if its configuration has keys that the built-in one does not
	// know: later operations on the attachment run it there too. Nil otherwise.
	Chosen Chosen
	// Execd is true if a binary runs the plugin, and Path is where that is.
	Execd bool
	Path  string
	// Unknown is the first of those keys; empty for none.
	Unknown string
	// Warnings name keys that have no effect, or not the one that their writer may expect.
	Warnings []*failure.Error
}

// Find looks for what runs a plugin with this configuration. A configuration that the in-process
// plugin cannot read is an error: a DEL could not read it either.
func (e *Exec) Find(kind string, config []byte, paths []string) (Found, error) {
	if !e.builtin(kind) {
		path, err := e.FindInPath(kind, paths)
		return Found{Execd: true, Path: path}, err
	}
	c, err := e.choose(kind, config, paths, nil)
	if err != nil {
		return Found{}, err
	}
	if err := e.judge(kind, c); err != nil {
		return Found{}, err
	}
	found := Found{Warnings: c.warnings(kind), Execd: c.path != "", Path: c.path}
	if len(c.prepared.Unknown) > 0 {
		found.Chosen, found.Unknown = Chosen{kind: c.path == ""}, c.prepared.Unknown[0]
	}
	return found, nil
}

// FindInPath returns the path of the plugin of that type. A type is a plain file name: with a path
// separator in it, it is refused (CVE-2021-20206).
func (e *Exec) FindInPath(plugin string, paths []string) (string, error) {
	if e.builtin(plugin) {
		return builtinPrefix + plugin, nil
	}
	path, err := cniinvoke.FindInPath(plugin, paths)
	if err != nil {
		return "", &failure.Error{
			Reason: failure.PluginNotFound, Plugin: fmt.Sprintf("%.80q", plugin), Err: err,
			Fix: "install the plugin in " + strings.Join(paths, " or ") +
				", or correct the type in the network's configuration",
		}
	}
	if _, known := e.Builtin[plugin]; !known && isSelf(path) && !weaken.Off(weaken.Self) {
		return "", &failure.Error{
			Reason: failure.NADInvalid, Plugin: plugin,
			Err: fmt.Errorf("%s is Braid, which would call itself", path),
			Fix: "name the plugin that makes the interface, as bridge or macvlan",
		}
	}
	return path, nil
}

// ExecPlugin runs the plugin that FindInPath gave.
func (e *Exec) ExecPlugin(
	ctx context.Context, path string, stdin []byte, environ []string,
) ([]byte, error) {
	start := time.Now()
	path, run, err := e.place(ctx, path, stdin, environ)
	if err != nil {
		return nil, err
	}
	kind := strings.TrimPrefix(filepath.Base(path), builtinPrefix)
	call := &Call{Environ: environ, Stdin: stdin, Exec: e, Terms: termsOf(ctx)}
	var out []byte
	if run == nil {
		out, err = e.runProtected(ctx, kind, path, call)
	} else if out, err = run(ctx, call); err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
	}
	e.Log.DebugContext(ctx, "plugin ran",
		"plugin", kind, "path", path, "duration", time.Since(start), "failed", err != nil)
	if err != nil {
		return nil, &failure.Error{Reason: reasonOf(ctx, err), Plugin: kind, Err: err}
	}
	return out, nil
}

// place returns where a call runs, now that its configuration is known: by the operation of a
// built-in plugin, or by the binary at the path if there is none.
func (e *Exec) place(
	ctx context.Context, path string, stdin []byte, environ []string,
) (string, Operation, error) {
	kind, ok := strings.CutPrefix(path, builtinPrefix)
	if !ok {
		return path, nil, nil
	}
	c, err := e.decide(ctx, kind, stdin, environ)
	if err != nil {
		return "", nil, err
	}
	if c.path != "" {
		return c.path, nil, nil
	}
	return path, c.prepared.Run, nil
}

// reasonOf distinguishes a plugin that failed from one that was stopped, and from one that may not
// do what its configuration says.
func reasonOf(ctx context.Context, err error) failure.Reason {
	reason := failure.ReasonOf(err)
	if reason == failure.NodeProtected || reason == failure.PolicyRefused {
		return reason
	}
	if ctx.Err() != nil {
		return failure.TimedOut
	}
	return failure.PluginFailed
}
