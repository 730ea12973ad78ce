// Command braid is the CNI plugin that container runtimes call for every pod sandbox: it attaches
// the pod to all of its networks. It reads the CNI protocol's environment and stdin, runs the
// engine in this process, and prints the result of the default network or a CNI error on stdout.
// Called as macvlan, bridge, ... it is that plugin.
package main

import (
	"context"
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
	"github.com/braid-cni/braid/pkg/nodeid"
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

// cniVersions returns the versions of CNI that Braid speaks.
func cniVersions() version.PluginInfo { return version.VersionsStartingFrom("0.3.0") }

// asked returns the versions that the CNI library accepts for the command. conf.Load checks the
// version of the configuration, which may have none.
func asked() version.PluginInfo {
	if os.Getenv("CNI_COMMAND") == "VERSION" {
		return cniVersions()
	}
	return version.All
}

// app is one call of the program.
type app struct {
	stdout, stderr io.Writer
	// alone is the configuration of a plugin that is called under its own name.
	alone conf.Node
	// trace is engine.Engine's Trace, for tests that stop the process at each change of state.
	trace func(point string)
	// now is engine.Engine's Now, for tests that do not wait.
	now func() time.Time
	// succeeded is true if the operation succeeded. The CNI library may still object, for instance to
	// a CNI_NETNS that is the node's. That was judged before, and no DEL fails for it.
	succeeded bool
	// cniVersion is the configuration's, in which errors are expressed; empty until it is known.
	cniVersion string
}

// run does what the program is called as: a plugin of its own, or Braid.
func (a *app) run(args []string) int {
	kind, plugin := builtin.Called(args[0])
	if !plugin && len(args) > 1 && args[1] == "--version" {
		versions := cniVersions().SupportedVersions()
		fmt.Fprintf(a.stdout, "braid %s, CNI %s to %s\n", buildVersion, versions[0],
			versions[len(versions)-1]) //nolint:errcheck // nobody to tell
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
	operation := func(verb engine.Verb) func(*skel.CmdArgs) error {
		return a.noting(func(args *skel.CmdArgs) error { return a.do(ctx, verb, args) })
	}
	return a.exitCode(skel.PluginMainFuncsWithError(skel.CNIFuncs{
		Add: operation(engine.Add), Del: operation(engine.Del), Check: operation(engine.Check),
		GC: operation(engine.GC), Status: operation(engine.Status),
	}, asked(), "braid "+buildVersion))
}

// noting wraps an operation for the CNI library, and sets succeeded.
func (a *app) noting(operate func(*skel.CmdArgs) error) func(*skel.CmdArgs) error {
	return func(args *skel.CmdArgs) error {
		err := operate(args)
		a.succeeded = err == nil
		return err
	}
}

// exitCode prints the error, if there is one, and returns the exit code.
func (a *app) exitCode(err *types.Error) int {
	if err == nil || a.succeeded {
		return 0
	}
	if perr := a.printError(err); perr != nil {
		fmt.Fprintln(a.stderr, "print error:", perr) //nolint:errcheck // nobody to tell
	}
	return 1
}

// printError writes a CNI error.
func (a *app) printError(err *types.Error) error {
	data, jerr := node.PrintedError(err, a.cniVersion)
	if jerr != nil {
		return jerr
	}
	_, werr := a.stdout.Write(data)
	return werr
}

// afterAgent is set by braid-client if an agent may have finished the ADD, whose result was lost.
const afterAgent = "BRAID_AFTER_AGENT"

// do runs one operation of the engine. The error is the CNI error for the runtime; the engine has
// logged it.
func (a *app) do(ctx context.Context, verb engine.Verb, args *skel.CmdArgs) error {
	if err := node.NotByBraid(os.Getenv); err != nil {
		return failure.CNI(err)
	}
	op, err := node.NewOperation(verb, args)
	if err != nil {
		return err
	}
	op.Request.Runtime = nodeid.Program(os.Getppid())
	op.Request.Again = os.Getenv(afterAgent) != ""
	a.cniVersion = op.Config.CNIVersion
	e, closeLog, err := node.NewEngine(node.Options{
		Node: &op.Config.Node, Policy: &op.Config.Policy, Version: buildVersion, Alone: true,
		Trace: a.trace, Now: a.now,
	})
	if err != nil {
		return failure.CNI(fmt.Errorf("braid: %w", err))
	}
	out, err := op.Perform(ctx, e)
	if cerr := closeLog(); err == nil && cerr != nil {
		err = failure.CNI(fmt.Errorf("braid: %w", cerr))
	}
	if err != nil {
		return err
	}
	if _, err := a.stdout.Write(out); err != nil {
		return fmt.Errorf("print result: %w", err)
	}
	return nil
}
