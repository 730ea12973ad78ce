// Command braid is the CNI plugin that container runtimes call for every pod sandbox: it attaches the pod to all of its
// networks. It reads the CNI protocol's environment and stdin, runs the engine in this process, and prints the result of the
// default network or a CNI error on stdout. Called as macvlan, bridge, ... it is that plugin.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/braid-cni/braid/cmd/internal/node"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/engine"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/plugins/builtin"
)

// buildVersion is set by the linker.
var buildVersion = "devel"

const usage = `braid is a CNI plugin: a container runtime calls it, or cnitool does by hand.
It takes CNI_COMMAND and the other CNI_* variables, and a network configuration on stdin.
  braid --version   print the version
`

func main() {
	os.Exit((&app{stdout: os.Stdout, stderr: os.Stderr, alone: node.DefaultPlugin()}).run(os.Args))
}

// cniVersions are those that Braid speaks.
func cniVersions() version.PluginInfo { return version.VersionsStartingFrom("0.3.0") }

// asked are the versions that the CNI library lets pass for the command: conf.Load judges that of
// the configuration, which may have none.
func asked() version.PluginInfo {
	if os.Getenv("CNI_COMMAND") == "VERSION" {
		return cniVersions()
	}
	return version.All
}

// app is one invocation.
type app struct {
	stdout, stderr io.Writer
	// alone is for a plugin that is called under its own name.
	alone conf.Node
	// trace is engine.Engine's, for the tests that stop the process at each change of state.
	trace func(point string)
	// now is engine.Engine's, for the tests that do not wait.
	now func() time.Time
	// succeeded is that the operation did. What the CNI library finds wrong after that, as a
	// CNI_NETNS that is the node's, was judged before, and no DEL fails for it.
	succeeded bool
	// cniVersion is the configuration's, in which errors are expressed; empty until it is known.
	cniVersion string
}

func (a *app) run(args []string) int {
	kind, plugin := builtin.Called(args[0])
	if !plugin && len(args) > 1 && args[1] == "--version" {
		versions := cniVersions().SupportedVersions()
		fmt.Fprintf(a.stdout, "braid %s, CNI %s to %s\n", buildVersion, versions[0], versions[len(versions)-1]) //nolint:errcheck // nobody to tell
		return 0
	}
	if !plugin && os.Getenv("CNI_COMMAND") == "" {
		fmt.Fprint(a.stderr, usage) //nolint:errcheck // nobody to tell
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if plugin {
		return a.runPlugin(ctx, kind)
	}
	operation := func(load loader, operate operation) func(*skel.CmdArgs) error {
		return a.noting(func(args *skel.CmdArgs) error { return a.do(ctx, args, load, operate) })
	}
	return a.exitCode(skel.PluginMainFuncsWithError(skel.CNIFuncs{
		Add:    operation(conf.LoadForCall, a.add),
		Del:    operation(conf.LoadForRemoval, engine.Operator.Del),
		Check:  operation(conf.LoadForCall, engine.Operator.Check),
		GC:     operation(conf.LoadForRemoval, engine.Operator.GC),
		Status: operation(conf.LoadForCall, engine.Operator.Status),
	}, asked(), "braid "+buildVersion))
}

// noting is an operation for the CNI library whose success is noted.
func (a *app) noting(operate func(*skel.CmdArgs) error) func(*skel.CmdArgs) error {
	return func(args *skel.CmdArgs) error {
		err := operate(args)
		a.succeeded = err == nil
		return err
	}
}

// exitCode prints the error, if there is one.
func (a *app) exitCode(err *types.Error) int {
	if err == nil || a.succeeded {
		return 0
	}
	if perr := a.printError(err); perr != nil {
		fmt.Fprintln(a.stderr, "print error:", perr) //nolint:errcheck // nobody to tell
	}
	return 1
}

// printError writes a CNI error with the version that it is expressed in (CNI 1.1 "Error"), which the library leaves out.
func (a *app) printError(err *types.Error) error {
	data, jerr := json.MarshalIndent(struct {
		CNIVersion string `json:"cniVersion,omitempty"`
		*types.Error
	}{a.cniVersion, err}, "", "    ")
	if jerr != nil {
		return jerr
	}
	_, werr := fmt.Fprintln(a.stdout, string(data))
	return werr
}

// loader reads Braid's own configuration.
type loader func(stdin []byte) (*conf.Config, error)

// operation is a CNI operation.
type operation func(engine.Operator, context.Context, *engine.Request) error

func (a *app) add(o engine.Operator, ctx context.Context, req *engine.Request) error { //nolint:revive // the shape of a method expression
	result, err := o.Add(ctx, req)
	if err != nil {
		return err
	}
	return printResult(a.stdout, result, req.Call.CNIVersion)
}

// do runs one operation of the engine. The error is the CNI error for the runtime; the engine has logged it.
func (a *app) do(ctx context.Context, args *skel.CmdArgs, load loader, operate operation) error {
	if err := node.NotByBraid(); err != nil {
		return failure.CNI(err)
	}
	cfg, err := load(args.StdinData)
	if err != nil {
		return failure.CNI(fmt.Errorf("braid: %w", err))
	}
	req, err := engine.NewRequest(args, &cfg.Call)
	if err != nil {
		return failure.CNI(fmt.Errorf("braid: %w", err))
	}
	a.cniVersion = cfg.CNIVersion
	e, closeLog, err := node.NewEngine(node.Options{Node: &cfg.Node, Policy: &cfg.Policy, Version: buildVersion, Trace: a.trace, Now: a.now})
	if err != nil {
		return failure.CNI(fmt.Errorf("braid: %w", err))
	}
	if os.Getenv("CNI_COMMAND") == string(engine.Add) { // once for each pod, as its events
		for _, w := range cfg.Warnings() {
			e.Log.WarnContext(ctx, w.Error(), "reason", w.Reason)
		}
	}
	if err := errors.Join(operate(e, ctx, req), closeLog()); err != nil {
		return failure.CNI(fmt.Errorf("braid: %w", err))
	}
	return nil
}

// printResult writes the result in the version of Braid's own configuration (CNI 1.1 "Success").
func printResult(w io.Writer, result types.Result, cniVersion string) error {
	converted, err := result.GetAsVersion(cniVersion)
	if err != nil {
		return &failure.Error{
			Reason: failure.InvalidConfig, Field: "cniVersion", Err: fmt.Errorf("express the default network's result in CNI %s: %w", cniVersion, err),
			Fix: "use a newer cniVersion",
		}
	}
	return converted.PrintTo(w)
}
