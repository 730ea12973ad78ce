// Package invoke runs one delegate plugin: in-process where the registry has its type and that knows every key of the configuration, else
// the binary in the plugin path.
//
// Contract: Exec is libcni's invoke.Exec, so the chain logic (prevResult, capabilities, result cache, reverse DEL, GC) stays in
// libcni and there is no second chain executor. Every failure is a *failure.Error that names the plugin; a delegate's own CNI
// error, code and details, is in its chain. A plugin that is exec'd leads a process group of its own, which is killed as a whole
// when ctx is done.
package invoke

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	cniinvoke "github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/braid-cni/braid/pkg/failure"
)

// Plugin is an in-process plugin.
type Plugin interface {
	// Prepare reads a configuration, the stdin of the binary. The error is that of one that cannot be
	// read.
	Prepare(config []byte) (*Prepared, error)
}

// Prepared is an in-process plugin with its configuration.
type Prepared struct {
	Run Operation
	// Unknown names the keys that the plugin does not know; Run does without them. Nil for none.
	Unknown error
	// Validate returns what an ADD refuses of the configuration, whatever the pod and the node. It may
	// be nil.
	Validate func() error
}

// Operation is one CNI operation, with the protocol's environment (CNI_COMMAND, ...) as parameter; it gives what the binary would print on
// stdout. It returns promptly when ctx is done.
type Operation = func(ctx context.Context, environ []string) (stdout []byte, err error)

// Registry maps plugin types to those that run in-process. It is filled in cmd and never changes.
type Registry map[string]Plugin

// builtinPrefix marks the "path" of an in-process plugin; no path that FindInPath finds on disk starts like that.
const builtinPrefix = "builtin:"

// Exec runs plugins. It implements libcni's invoke.Exec. Make one for each operation on a sandbox.
type Exec struct {
	version.PluginDecoder

	Builtin Registry
	// ForceExec lists types that are exec'd although Builtin has them (the "braid.exec" key).
	ForceExec []string
	// Inherit is a file that exec'd plugins keep open until they end: the sandbox's lock. May be nil.
	Inherit *os.File
	Log     *slog.Logger
	// Release, if set, is called by Close.
	Release func()
}

var _ cniinvoke.Exec = (*Exec)(nil)

// Close ends the operation.
func (e *Exec) Close() {
	if e.Release != nil {
		e.Release()
	}
}

// builtin gives the in-process plugin of that type, unless it must not be used.
func (e *Exec) builtin(kind string) (Plugin, bool) {
	p, ok := e.Builtin[kind]
	return p, ok && !slices.Contains(e.ForceExec, kind)
}

// InProcess says whether a plugin with this configuration runs in-process.
func (e *Exec) InProcess(kind string, config []byte) bool {
	p, ok := e.builtin(kind)
	if !ok {
		return false
	}
	prepared, err := p.Prepare(config)
	return err != nil || prepared.Unknown == nil
}

// Find looks for what runs a plugin with this configuration. A configuration that the in-process
// plugin cannot read is an error: a DEL could not read it either. The warnings name keys that have no
// effect.
func (e *Exec) Find(kind string, config []byte, paths []string) (warnings []*failure.Error, err error) {
	if _, ok := e.builtin(kind); !ok {
		_, err = e.FindInPath(kind, paths)
		return nil, err
	}
	prepared, _, err := e.prepare(kind, config, paths)
	if err != nil || prepared == nil || prepared.Validate == nil {
		return nil, err
	}
	if err := prepared.Validate(); err != nil {
		return nil, invalidConfig(kind, err)
	}
	return nil, nil
}

// invalidConfig is the failure of a configuration that the plugin of the type refuses.
func invalidConfig(kind string, err error) error {
	return &failure.Error{Reason: failure.NADInvalid, Plugin: kind, Err: err, Fix: "correct the network's configuration"}
}

// prepare returns the in-process plugin, or else the path of the binary: a key that the one does not
// know may be one that the other knows. Without a binary it is an error that names the key.
func (e *Exec) prepare(kind string, config []byte, paths []string) (prepared *Prepared, path string, err error) {
	prepared, err = e.Builtin[kind].Prepare(config)
	if err != nil {
		return nil, "", invalidConfig(kind, err)
	}
	if prepared.Unknown == nil {
		return prepared, builtinPrefix + kind, nil
	}
	path, err = cniinvoke.FindInPath(kind, paths)
	if err != nil {
		return nil, "", &failure.Error{
			Reason: failure.NADInvalid, Plugin: kind, Err: prepared.Unknown,
			Fix: "correct the key, or install a plugin that knows it in " + strings.Join(paths, " or "),
		}
	}
	return nil, path, nil
}

// FindInPath gives the path of the plugin of that type. A type is a plain file name: with a path separator in it, it is refused
// (CVE-2021-20206).
func (e *Exec) FindInPath(plugin string, paths []string) (string, error) {
	if _, ok := e.builtin(plugin); ok {
		return builtinPrefix + plugin, nil
	}
	path, err := cniinvoke.FindInPath(plugin, paths)
	if err != nil {
		return "", &failure.Error{
			Reason: failure.PluginNotFound, Plugin: fmt.Sprintf("%.80q", plugin), Err: err,
			Fix: "install the plugin in " + strings.Join(paths, " or ") + ", or correct the type in the network's configuration",
		}
	}
	return path, nil
}

// ExecPlugin runs the plugin that FindInPath gave.
func (e *Exec) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	start := time.Now()
	var prepared *Prepared
	if kind, ok := strings.CutPrefix(path, builtinPrefix); ok { // only now is the configuration known
		var err error
		if prepared, path, err = e.prepare(kind, stdin, pathsOf(environ)); err != nil {
			return nil, err
		}
	}
	kind := strings.TrimPrefix(filepath.Base(path), builtinPrefix)
	var out []byte
	var err error
	if prepared == nil {
		out, err = e.run(ctx, path, stdin, environ)
	} else if out, err = prepared.Run(ctx, environ); err != nil && ctx.Err() != nil {
		err = fmt.Errorf("%w (%w)", context.Cause(ctx), err)
	}
	e.Log.DebugContext(ctx, "plugin ran", "plugin", kind, "path", path, "duration", time.Since(start), "failed", err != nil)
	if err != nil {
		return nil, &failure.Error{Reason: reasonOf(ctx), Plugin: kind, Err: err}
	}
	return out, nil
}

// pathsOf is CNI_PATH.
func pathsOf(environ []string) []string {
	for _, pair := range slices.Backward(environ) {
		if value, ok := strings.CutPrefix(pair, "CNI_PATH="); ok {
			return filepath.SplitList(value)
		}
	}
	return nil
}

// reasonOf tells a plugin that failed from one that was stopped.
func reasonOf(ctx context.Context) failure.Reason {
	if ctx.Err() != nil {
		return failure.TimedOut
	}
	return failure.PluginFailed
}
