package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/plugin/memory"
	"github.com/braid-cni/braid/pkg/strictjson"
	"github.com/braid-cni/braid/plugins/builtin"
)

// runPlugin is one CNI operation of a plugin that is called under its own name, and returns the
// exit code. Warnings go to stderr.
func (a *app) runPlugin(ctx context.Context, kind string) int {
	log := slog.New(slog.DiscardHandler)
	cluster := &addresses{alone: a.alone, log: log, now: a.now}
	exec := builtin.NewExec(log, builtin.Node{Open: cluster.open, StateDir: a.alone.StateDir})
	defer exec.Close()
	exec.Warn = func(w *failure.Error) {
		fmt.Fprintln(a.stderr, "warning:", strictjson.Printable(w.Error())) //nolint:errcheck // nobody to tell
	}
	tended := func(operate func(*skel.CmdArgs) error) func(*skel.CmdArgs) error {
		return func(args *skel.CmdArgs) error {
			defer cluster.tendUsed(ctx)
			return operate(args)
		}
	}
	given := &memory.Memory{Dir: filepath.Join(a.alone.StateDir, "standalone")}
	operate := func(args *skel.CmdArgs) error {
		path, err := exec.FindInPath(kind, filepath.SplitList(args.Path))
		if err != nil {
			return failure.CNI(err)
		}
		call := &memory.Call{
			Kind: kind, Command: os.Getenv("CNI_COMMAND"), ContainerID: args.ContainerID, IfName: args.IfName, Environ: os.Environ(), Stdin: args.StdinData,
		}
		out, err := given.Operate(ctx, call, func(ctx context.Context, environ []string, stdin []byte) ([]byte, error) {
			return exec.ExecPlugin(ctx, path, stdin, environ)
		})
		if err != nil {
			return failure.CNI(err)
		}
		if _, err := a.stdout.Write(out); err != nil {
			return fmt.Errorf("print result: %w", err)
		}
		return nil
	}
	return a.exitCode(skel.PluginMainFuncsWithError(skel.CNIFuncs{
		Add: tended(operate), Del: tended(operate), Check: tended(operate), GC: tended(operate), Status: operate,
	}, version.All, kind+" of braid "+buildVersion))
}
