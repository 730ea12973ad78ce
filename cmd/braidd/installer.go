package main

import (
	"fmt"
	"path/filepath"
	"time"

	nodev1 "github.com/braid-cni/braid/pkg/api/node/v1"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/install"
	"github.com/braid-cni/braid/pkg/install/defaultnet"
	"github.com/braid-cni/braid/pkg/install/own"
)

// installer keeps Braid on the node. The watch, which may be nil, is closed after it.
func (a *daemon) installer() (*install.Keeper, *install.Watch, error) {
	i := a.bare()
	var err error
	if i.Binaries, err = binaries(a.o.image, a.place.Bin, a.o.serve); err != nil {
		return nil, nil, err
	}
	keeper := &install.Keeper{Installer: i, Clock: install.SystemClock{}, Report: a.installed}
	watch, err := install.NewWatch()
	if err != nil {
		a.log.Warn("changes are seen late, as files cannot be watched", "error", err)
		keeper.Watcher = install.Poll{Clock: install.SystemClock{}, Every: install.Resync}
		return keeper, nil, nil
	}
	keeper.Watcher = watch
	return keeper, watch, nil
}

// binaries are those that are installed, in this order: where the agent serves calls, "braid" is
// the client, which needs the plugin beside it from the first moment on.
func binaries(image, dir string, client bool) (files []*own.File, err error) {
	from := map[string]string{"braid": "braid"}
	names := []string{"braid"}
	if client {
		from = map[string]string{"braid-full": "braid", "braid": "braid-client"}
		names = []string{"braid-full", "braid"}
	}
	for _, name := range names {
		f, err := own.Copy(filepath.Join(dir, name), 0o755, install.KindBinary,
			filepath.Join(image, from[name]))
		if err != nil {
			return nil, fmt.Errorf("the image has no CNI plugin: %w", err)
		}
		f.Check = install.CheckPlugin("braid")
		files = append(files, f)
	}
	return files, nil
}

// bare is the installer without what it installs.
func (a *daemon) bare() *install.Installer {
	return &install.Installer{
		Store: a.store, Place: a.place, Kubeconfig: a.kubeconfig(), Named: a.o.defaultNetwork,
		Move: a.o.movePrivate,
		Render: func(network *defaultnet.Candidate) ([]byte, error) {
			c, err := a.configuration(network.Path)
			if err != nil {
				return nil, err
			}
			a.nodeState.Store(&c.StateDir)
			return conf.Render(c)
		},
	}
}

// installed tells of what was found and done.
func (a *daemon) installed(r install.Report) {
	a.setHealth(partInstallation, r.Err)
	if a.trouble.worthEvent(r.Err, time.Now()) {
		a.log.Warn("the node is not as it is to be", "error", r.Err)
		a.tell("InstallationFailed", r.Err.Error())
	}
	for _, d := range r.Drifts {
		a.meters.Drifted(string(d.Cause))
		a.log.Warn("installed file was changed", "path", d.Path, "cause", d.Cause, "by", d.By, "repaired",
			r.Err == nil)
		a.tell("InstallationChanged", d.String())
	}
	if r.Outcome == nil {
		return
	}
	for _, path := range r.Outcome.Changed {
		a.log.Info("file installed", "path", path)
	}
	a.follows(r.Outcome.Network)
	a.installedConf.Store(&r.Outcome.Configuration)
	others := otherNetworks(a.place.Conf, r.Outcome.Configuration)
	a.restarting(func(known *restarts) { known.others = others })
	a.health.Update(func(report *nodev1.Report) {
		report.Config, report.Before, report.DefaultNetwork = r.Outcome.Configuration, nil, ""
		if r.Outcome.Network != nil {
			report.DefaultNetwork = r.Outcome.Network.Path
		}
		report.Before = before(a.place.Conf, r.Outcome.Configuration)
	})
}

// follows tells of a default network that takes the place of another.
func (a *daemon) follows(network *defaultnet.Candidate) {
	if network == nil {
		return // for a while: that it is not there is an error
	}
	if a.network != "" && a.network != network.Path {
		a.tell("DefaultNetworkChanged",
			fmt.Sprintf("the default network is now %s, of network %q; it was %s",
				network.Path, network.Name, a.network))
	}
	a.network = network.Path
}

// before are the files that the runtime reads before Braid's configuration.
func before(dir, configuration string) (names []string) {
	files, err := defaultnet.List(dir)
	if err != nil || configuration == "" {
		return nil
	}
	for _, f := range files {
		if f.Path == configuration {
			break
		}
		names = append(names, filepath.Base(f.Path))
	}
	return names
}
