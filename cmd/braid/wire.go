package main

import (
	"log/slog"
	"os"

	cniinvoke "github.com/containernetworking/cni/pkg/invoke"

	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/engine"
	"github.com/braid-cni/braid/pkg/invoke"
	"github.com/braid-cni/braid/pkg/kube"
	"github.com/braid-cni/braid/pkg/netns"
	"github.com/braid-cni/braid/pkg/nl"
	"github.com/braid-cni/braid/pkg/record"
	"github.com/braid-cni/braid/plugins/passthru"
)

const defaultManifests = "/etc/cni/net.d/braid.d/manifests"

// newEngine puts the standalone engine together. The caller closes the log after the operation.
func newEngine(cfg *conf.Config) (*engine.Engine, func() error, error) {
	log, closeLog := newLog(cfg)
	source, err := newSource(cfg)
	if err != nil {
		return nil, nil, err
	}
	return &engine.Engine{
		Source:        source,
		Devices:       kube.NewKubelet(cfg.Braid.PodResources),
		Namespaces:    namespaces{},
		Records:       record.New(cfg.Braid.StateDir),
		NewExec:       execs(cfg, builtin(), log),
		DeviceInfoDir: cfg.Braid.DeviceInfoDir,
		Log:           log,
	}, closeLog, nil
}

// newSource gives the directory of manifests if one is configured, an API server if there is a way to one, else the directory
// that is there by default: a node without Kubernetes needs no configuration.
func newSource(cfg *conf.Config) (engine.Source, error) {
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

// builtin is the registry of in-process plugins.
func builtin() invoke.Registry { return invoke.Registry{conf.PassthruType: passthru.Run} }

func execs(cfg *conf.Config, builtin invoke.Registry, log *slog.Logger) func(*os.File) cniinvoke.Exec {
	return func(lock *os.File) cniinvoke.Exec {
		return &invoke.Exec{Builtin: builtin, ForceExec: cfg.Braid.Exec, Inherit: lock, Log: log}
	}
}

// namespaces joins the two packages that work in network namespaces.
type namespaces struct{ nl.Sandbox }

func (namespaces) Alive(path string) bool { return netns.Alive(path) }

func (namespaces) Scratch() (string, func(), error) { return netns.Scratch() }
