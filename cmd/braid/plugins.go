package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/invoke"
	"github.com/braid-cni/braid/plugins/builtin"
)

// runPlugin is one CNI operation of a plugin that is called under its own name. It gives the exit code.
func (a *app) runPlugin(ctx context.Context, kind string) int {
	log := slog.New(slog.DiscardHandler)
	open := (&addresses{alone: a.alone, log: log}).open
	exec := builtin.NewExec(log, builtin.Node{Open: open, StateDir: a.alone.StateDir})
	defer exec.Close()
	finish := func(op invoke.Operation, err error) error {
		if err != nil {
			return failure.CNI(err)
		}
		out, err := op(ctx, os.Environ())
		if err != nil {
			return failure.CNI(err)
		}
		if _, err := a.stdout.Write(out); err != nil {
			return fmt.Errorf("print result: %w", err)
		}
		return nil
	}
	run := func(args *skel.CmdArgs) error {
		op, unknown, err := exec.Builtin[kind].Prepare(args.StdinData)
		return finish(op, cmp.Or(err, unknown)) // there is no other plugin to ask
	}
	del := func(args *skel.CmdArgs) error {
		op, _, err := exec.Builtin[kind].Prepare(args.StdinData) // after an ADD that failed for them, the pod must be able to go
		return finish(op, err)
	}
	return a.exitCode(skel.PluginMainFuncsWithError(skel.CNIFuncs{Add: run, Del: del, Check: run, GC: run, Status: run},
		version.All, kind+" of braid "+buildVersion))
}
