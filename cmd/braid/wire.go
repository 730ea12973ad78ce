package main

import (
	"context"
	"os"
	"time"

	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/engine"
	"github.com/braid-cni/braid/pkg/ipam/block"
	"github.com/braid-cni/braid/pkg/kube"
	"github.com/braid-cni/braid/pkg/netns"
	"github.com/braid-cni/braid/pkg/nl"
	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/record"
	"github.com/braid-cni/braid/plugins/builtin"
)

const defaultManifests = "/etc/cni/net.d/braid.d/manifests"

// newEngine puts the standalone engine together. The caller closes the log after the operation. trace is told of each change of state, for
// tests; nil for nobody.
func newEngine(cfg *conf.Config, trace func(point string), now func() time.Time) (*engine.Engine, func() error, error) {
	log, closeLog := newLog(cfg.LogFile, cfg.LogLevel, cfg.LogToStderr, cfg.LogOptions)
	source, err := newSource(cfg)
	if err != nil {
		return nil, nil, err
	}
	_, remote := source.(*kube.API)
	cluster := &addresses{cfg: cfg, source: source, log: log, trace: trace, now: now}
	return &engine.Engine{
		Source:        source,
		Remote:        remote,
		Devices:       kube.NewDevices(kube.NewKubelet(cfg.Braid.PodResources), source),
		Namespaces:    namespaces{},
		Interiors:     interiors{},
		Records:       record.New(cfg.Braid.StateDir),
		NewExec:       execs(cfg, cluster),
		Upkeep:        cluster,
		DeviceInfoDir: cfg.Braid.DeviceInfoDir,
		Log:           log,
		Trace:         trace,
		Now:           now,
	}, closeLog, nil
}

// source is where Kubernetes' objects are.
type source interface {
	engine.Source
	block.Objects
	kube.Allocations
}

// newSource gives the directory of manifests if one is configured, an API server if there is a way to one, else the directory
// that is there by default: a node without Kubernetes needs no configuration.
func newSource(cfg *conf.Config) (source, error) {
	inCluster := os.Getenv("KUBERNETES_SERVICE_HOST") != ""
	if cfg.Braid.Manifests == "" && (cfg.Kubeconfig != "" || inCluster) {
		return kube.NewAPI(kube.APIOptions{
			Kubeconfig: cfg.Kubeconfig, Version: buildVersion, NodeName: cfg.Braid.NodeName, Timeout: cfg.Braid.Timeouts.API,
		})
	}
	if cfg.Braid.Manifests == "" {
		return kube.NewManifests(defaultManifests)
	}
	return kube.NewManifests(cfg.Braid.Manifests)
}

func execs(cfg *conf.Config, cluster *addresses) func(*os.File) engine.Exec {
	return func(lock *os.File) engine.Exec {
		exec := builtin.NewExec(cluster.log, builtin.Node{
			Open: cluster.open, StateDir: cfg.Braid.StateDir, DataRoots: cfg.Braid.DataRoots, Trace: cluster.trace,
		})
		exec.ForceExec, exec.Inherit, exec.RefuseUnknown = cfg.Braid.Exec, lock, cfg.Braid.RefuseUnknownKeys
		return exec
	}
}

// namespaces joins the packages that work in network namespaces.
type namespaces struct{ nl.Sandbox }

func (n namespaces) DeleteLinks(ctx context.Context, path string) error {
	return n.DeleteGroup(ctx, path, plugin.Group)
}

func (namespaces) Identity(path string) (string, error) { return netns.Identity(path) }

func (namespaces) Scratch() (string, func(), error) { return netns.Scratch() }

// interiors is nl.Sandbox with the engine's types.
type interiors struct{ nl.Sandbox }

func (i interiors) DefaultRoutes(ctx context.Context, path string) (engine.DefaultRoutes, error) {
	return i.Sandbox.DefaultRoutes(ctx, path)
}
