package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/plugins/builtin"
)

// runPlugin is one CNI operation of a plugin that is called under its own name. It gives the exit code.
func (a *app) runPlugin(ctx context.Context, kind string) int {
	log := slog.New(slog.DiscardHandler)
	open := (&addresses{alone: a.alone, log: log}).open
	exec := builtin.NewExec(log, builtin.Node{Open: open, StateDir: a.alone.StateDir})
	defer exec.Close()
	operate := func(args *skel.CmdArgs) error {
		prepared, err := exec.Builtin[kind].Prepare(args.StdinData)
		// There is no other plugin to ask. But after an ADD that failed for them the pod must be able to go.
		if err == nil && os.Getenv("CNI_COMMAND") != "DEL" {
			err = prepared.Unknown
		}
		if err != nil {
			return failure.CNI(err)
		}
		out, err := prepared.Run(ctx, os.Environ())
		if err != nil {
			return failure.CNI(err)
		}
		if _, err := a.stdout.Write(out); err != nil {
			return fmt.Errorf("print result: %w", err)
		}
		return nil
	}
	return a.exitCode(skel.PluginMainFuncsWithError(skel.CNIFuncs{Add: operate, Del: operate, Check: operate, GC: operate, Status: operate},
		version.All, kind+" of braid "+buildVersion))
}
