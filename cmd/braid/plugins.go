package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/braid-cni/braid/cmd/internal/node"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/plugin/memory"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// runPlugin does one CNI operation of a plugin that is called under its own name, and returns the
// exit code. Warnings go to stderr.
func (a *app) runPlugin(ctx context.Context, kind string) int {
	plugin := node.NewPlugin(node.PluginOptions{
		Node: a.alone, Version: buildVersion, Now: a.now,
		Warn: func(w *failure.Error) {
			fmt.Fprintln(a.stderr, "warning:", strictjson.Printable(w.Error()))
		},
	})
	defer plugin.Close()
	operate := a.noting(func(args *skel.CmdArgs) error {
		out, err := plugin.Operate(ctx, &memory.Call{
			Kind: kind, Command: os.Getenv("CNI_COMMAND"), ContainerID: args.ContainerID,
			IfName:  args.IfName,
			Environ: os.Environ(), Stdin: args.StdinData,
		}, filepath.SplitList(args.Path))
		if err != nil {
			return failure.CNI(err)
		}
		if _, err := a.stdout.Write(out); err != nil {
			return fmt.Errorf("print result: %w", err)
		}
		return nil
	})
	tended := func(args *skel.CmdArgs) error {
		defer plugin.Tend(ctx)
		return operate(args)
	}
	return a.exitCode(skel.PluginMainFuncsWithError(skel.CNIFuncs{
		Add: tended, Del: tended, Check: tended, GC: tended, Status: operate,
	}, version.All, kind+" of braid "+buildVersion))
}
