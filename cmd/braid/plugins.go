package main

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/version"

	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/invoke"
	"github.com/braid-cni/braid/pkg/ipam/file"
	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/plugins/bridge"
	"github.com/braid-cni/braid/plugins/ipam/hostlocal"
	"github.com/braid-cni/braid/plugins/ipam/static"
	"github.com/braid-cni/braid/plugins/ipam/whereabouts"
	"github.com/braid-cni/braid/plugins/ipvlan"
	"github.com/braid-cni/braid/plugins/macvlan"
	"github.com/braid-cni/braid/plugins/passthru"
	"github.com/braid-cni/braid/plugins/portmap"
	"github.com/braid-cni/braid/plugins/sbr"
	"github.com/braid-cni/braid/plugins/tuning"
)

// plugins are those of this binary, by type. open is whereabouts'.
func plugins(open opener) map[string]*plugin.Plugin {
	return map[string]*plugin.Plugin{
		"bridge":          plugin.New(bridge.Plugin{}),
		"ipvlan":          plugin.New(ipvlan.Plugin{}),
		"macvlan":         plugin.New(macvlan.Plugin{}),
		conf.PassthruType: plugin.New(passthru.Plugin{}),
		"portmap":         plugin.New(portmap.Plugin{}),
		"sbr":             plugin.New(sbr.Plugin{}),
		"tuning":          plugin.New(tuning.Plugin{}),
		"host-local":      plugin.NewIPAM(hostlocal.Plugin{Boot: file.Kernel()}),
		"static":          plugin.NewIPAM(static.Plugin{}),
		"whereabouts":     plugin.NewIPAM(whereabouts.Plugin{Open: open, Files: whereabouts.Files()}),
	}
}

// standalone gives the plugin that the binary is called as, by a link or a copy of another name; nothing for Braid itself.
func standalone(name string) (kind string, ok bool) {
	kind = filepath.Base(name)
	_, ok = plugins(nil)[kind]
	return kind, ok
}

// runPlugin is one CNI operation of a plugin that is called under its own name. It gives the exit code.
func (a *app) runPlugin(ctx context.Context, kind string) int {
	log := slog.New(slog.DiscardHandler)
	exec := newExec(log, (&addresses{alone: a.alone, log: log}).open)
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
