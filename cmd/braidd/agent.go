package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/braid-cni/braid/cmd/internal/node"
	"github.com/braid-cni/braid/pkg/agent"
	"github.com/braid-cni/braid/pkg/agent/metrics"
	nodev1 "github.com/braid-cni/braid/pkg/api/node/v1"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/install"
	"github.com/braid-cni/braid/pkg/install/credential"
	"github.com/braid-cni/braid/pkg/install/defaultnet"
	"github.com/braid-cni/braid/pkg/install/own"
	"github.com/braid-cni/braid/pkg/install/platform"
	"github.com/braid-cni/braid/pkg/kube"
	"github.com/braid-cni/braid/pkg/record"
)

const (
	// timeout bounds one request to the API server, with its tries.
	timeout = 30 * time.Second
	// tokenLife is how long the CNI plugin's credential is good for. A quarter of it is left to
	// chance, so it outlives an API server that is away for a day.
	tokenLife = 48 * time.Hour
	// tendEvery is how often blocks of addresses that others ask for are looked at on a node
	// without traffic; lookEvery how often pods without their networks are looked for.
	tendEvery = time.Minute
	lookEvery = 5 * time.Minute
)

// The parts of the agent that pods depend on.
const (
	partInstallation = "installation"
	partCredential   = "credential"
)

// daemon is the agent of one node.
type daemon struct {
	o      *options
	log    *slog.Logger
	api    *kube.API
	place  platform.Place
	store  *own.Store
	health *agent.Health
	meters *metrics.Metrics
	// configured is the path of Braid's configuration; empty as long as there is none.
	configured atomic.Pointer[string]
}

func newAgent(o *options, log *slog.Logger) (*daemon, error) {
	place, err := platform.Find("/", o.place)
	if err != nil {
		return nil, err
	}
	api, err := kube.NewAPI(kube.APIOptions{
		ServiceAccount: o.token, Server: o.server, Version: buildVersion, NodeName: o.nodeName, Timeout: timeout,
	})
	if err != nil {
		return nil, err
	}
	return &daemon{
		o: o, log: log, api: api, place: place, store: &own.Store{Dir: o.stateDir, Self: o.podUID},
		health: agent.NewHealth(buildVersion, partInstallation, partCredential), meters: metrics.New(buildVersion),
	}, nil
}

// kubeconfig is the path of the CNI plugin's.
func (a *daemon) kubeconfig() string { return filepath.Join(a.o.stateDir, kubeconfigName) }

// run does all that the agent does until ctx is done, or the node is another installation's.
func (a *daemon) run(ctx context.Context) error {
	defer a.api.Close()
	a.log.InfoContext(ctx, "the agent begins", "version", buildVersion, "node", a.o.nodeName, "profile", a.place.Profile, "conf", a.place.Conf, "bin", a.place.Bin)
	if err := a.claim(ctx); err != nil || ctx.Err() != nil {
		return a.leave(ctx, err)
	}
	keeper, watch, err := a.installer()
	if err != nil {
		return err
	}
	if watch != nil {
		defer watch.Close() //nolint:errcheck // nothing was written
	}
	group, ctx := errgroup.WithContext(ctx)
	if a.o.metrics != "" {
		listener, err := new(net.ListenConfig).Listen(ctx, "tcp", a.o.metrics)
		if err != nil {
			return fmt.Errorf("serve metrics: %w", err)
		}
		group.Go(func() error { return a.meters.Serve(ctx, listener) })
	}
	group.Go(func() error { return a.leave(ctx, keeper.Run(ctx)) })
	group.Go(func() error { return a.credential().Run(ctx) })
	group.Go(func() error { a.health.Publish(ctx, a.api, a.o.nodeName, a.log); return nil })
	group.Go(func() error { agent.Every(ctx, tendEvery, a.tend); return nil })
	group.Go(func() error { agent.Every(ctx, lookEvery, a.look); return nil })
	return group.Wait()
}

// leave waits for the end of an agent whose node is no longer its own: one that ended would be
// started again and again.
func (a *daemon) leave(ctx context.Context, err error) error {
	_, retired := errors.AsType[*own.RetiredError](err)
	_, superseded := errors.AsType[*own.SupersededError](err)
	if !retired && !superseded {
		return err
	}
	a.log.WarnContext(ctx, "the node is left alone", "error", err)
	<-ctx.Done()
	return nil
}

// claim takes the node for this installation, which is the DaemonSet. Until the API server says
// which that is, what is on the node stays as it is.
func (a *daemon) claim(ctx context.Context) error {
	if !a.identify(ctx) {
		return nil
	}
	return a.store.Claim(ctx)
}

// identify waits for the API server to say which installation this is; false if ctx is done before.
func (a *daemon) identify(ctx context.Context) bool {
	err := wait.PollUntilContextCancel(ctx, 2*time.Second, true, func(ctx context.Context) (bool, error) {
		owner, err := a.api.OwnerOf(ctx, a.o.ownNamespace, a.o.pod)
		if err != nil {
			a.log.WarnContext(ctx, "the agent's own pod is not known yet", "error", err)
			return false, nil
		}
		a.store.Installation = string(owner)
		return true, nil
	})
	return err == nil
}

// installer keeps Braid on the node. The watch, which may be nil, is closed after it.
func (a *daemon) installer() (*install.Keeper, *install.Watch, error) {
	i := a.bare()
	binary, err := own.Copy(filepath.Join(a.place.Bin, "braid"), 0o755, install.KindBinary, filepath.Join(a.o.image, "braid"))
	if err != nil {
		return nil, nil, fmt.Errorf("the image has no CNI plugin: %w", err)
	}
	binary.Check = runs
	i.Binaries = append(i.Binaries, binary)
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

// bare is the installer without what it installs.
func (a *daemon) bare() *install.Installer {
	return &install.Installer{
		Store: a.store, Place: a.place, Kubeconfig: a.kubeconfig(), Named: a.o.defaultNetwork, Move: a.o.movePrivate,
		Render: func(network *defaultnet.Candidate) ([]byte, error) {
			c, err := a.configuration(network.Path)
			if err != nil {
				return nil, err
			}
			return conf.Render(c)
		},
	}
}

// runs tries a binary: one of another architecture, or cut short, is not put in its place.
func runs(ctx context.Context, path string) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, path, "--version").CombinedOutput()
	if err != nil {
		return fmt.Errorf("the CNI plugin does not run: %w: %.200s", err, out)
	}
	return nil
}

// installed tells of what was found and done.
func (a *daemon) installed(r install.Report) {
	a.setHealth(partInstallation, r.Err)
	for _, d := range r.Drifts {
		a.meters.Drifted(string(d.Cause))
		a.log.Warn("installed file was changed", "path", d.Path, "cause", d.Cause, "by", d.By, "repaired", r.Err == nil)
		a.tell("Warning", "InstallationChanged", d.String())
	}
	if r.Outcome == nil {
		return
	}
	for _, path := range r.Outcome.Changed {
		a.log.Info("file installed", "path", path)
	}
	a.configured.Store(&r.Outcome.Configuration)
	a.health.Update(func(report *nodev1.Report) {
		report.Config, report.Before, report.DefaultNetwork = r.Outcome.Configuration, nil, ""
		if r.Outcome.Network != nil {
			report.DefaultNetwork = r.Outcome.Network.Path
		}
		report.Before = before(a.place.Conf, r.Outcome.Configuration)
	})
}

// setHealth says how a part is.
func (a *daemon) setHealth(part string, err error) {
	a.health.Set(part, err)
	a.meters.Ready(a.health.Ready())
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

// tell raises an event on the node, which `kubectl describe node` finds by the node's name.
func (a *daemon) tell(eventType, reason, message string) {
	ctx, cancel := context.WithTimeout(context.Background(), timeout) //nolint:forbidigo // who reports has none
	defer cancel()
	of := &metav1.ObjectMeta{Name: a.o.nodeName, UID: types.UID(a.o.nodeName)}
	if err := a.api.NodeEvent(ctx, of, eventType, reason, message); err != nil {
		a.log.Warn("event not raised", "reason", reason, "message", message, "error", err)
	}
}

// credential keeps the CNI plugin's kubeconfig.
func (a *daemon) credential() *credential.Keeper {
	var last *own.File
	return &credential.Keeper{
		Source: tokens{a}, Trial: trial{a}, Clock: install.SystemClock{},
		Kubeconfig: func(token string) ([]byte, error) { return a.api.TokenKubeconfig(token, a.o.server) },
		Write: func(ctx context.Context, kubeconfig []byte) error {
			last = own.Bytes(a.kubeconfig(), 0o600, install.KindKubeconfig, kubeconfig)
			_, err := a.store.Put(ctx, last)
			return err
		},
		Intact: func() bool {
			if last == nil {
				return true
			}
			state, err := a.store.Look(context.Background(), last) //nolint:forbidigo // it reads one file
			return err != nil || state == own.Right
		},
		Own: func() ([]byte, error) { return os.ReadFile(filepath.Join(a.o.token, "token")) },
		Report: func(expires time.Time, err error) {
			a.setHealth(partCredential, err)
			if err != nil {
				a.log.Warn("the CNI plugin's credential was not renewed", "error", err)
				return
			}
			a.log.Info("the CNI plugin's credential was renewed", "expires", expires)
			a.meters.CredentialExpires(expires)
			a.health.Update(func(report *nodev1.Report) { report.CredentialExpires = metav1.NewTime(expires) })
		},
	}
}

// tokens makes tokens of the CNI plugin's account, bound to this node.
type tokens struct{ a *daemon }

func (t tokens) Request(ctx context.Context) (credential.Token, error) {
	o := t.a.o
	object, err := t.a.api.Node(ctx, o.nodeName)
	if err != nil {
		return credential.Token{}, err
	}
	token, err := t.a.api.RequestToken(ctx, kube.TokenAsk{Namespace: o.namespace, Account: o.account, Node: o.nodeName, NodeUID: object.UID, Life: tokenLife})
	return credential.Token{Value: token.Value, Expires: token.Expires, Life: token.Life}, err
}

// trial has the API server say whom it takes the bearer of a kubeconfig for.
type trial struct{ a *daemon }

func (t trial) Try(ctx context.Context, kubeconfig []byte) error {
	id, err := kube.TryKubeconfig(ctx, kubeconfig, kube.APIOptions{Version: buildVersion, NodeName: t.a.o.nodeName, Timeout: timeout})
	if err != nil {
		return err
	}
	if want := strings.Join([]string{"system:serviceaccount", t.a.o.namespace, t.a.o.account}, ":"); id.Username != want {
		return fmt.Errorf("the API server takes the new token for %.80q, not for %s", id.Username, want)
	}
	return nil
}

// nodeState is the directory of the CNI plugin's state, as its configuration has it.
func (a *daemon) nodeState() string {
	if path := a.configured.Load(); path != nil && *path != "" {
		if cfg, err := conf.LoadFile(*path); err == nil {
			return cfg.StateDir
		}
	}
	return conf.DefaultStateDir
}

// tend shares blocks of addresses, and gives idle ones back.
func (a *daemon) tend(ctx context.Context) {
	addresses := &node.Addresses{Source: node.Only(a.api), Name: a.o.nodeName, StateDir: a.nodeState(), Log: a.log}
	if err := addresses.TendNow(ctx); err != nil && !errors.Is(err, context.Canceled) {
		a.log.WarnContext(ctx, "blocks of addresses are not tended", "error", err)
	}
}

// look looks for pods that were started without their networks.
func (a *daemon) look(ctx context.Context) {
	started, err := a.api.StartedPodsOn(ctx, a.o.nodeName)
	if err != nil {
		a.log.WarnContext(ctx, "pods of the node are not known", "error", err)
		return
	}
	records, err := record.New(a.nodeState()).Read()
	if err != nil {
		a.log.WarnContext(ctx, "records of the node are not known", "error", err)
		return
	}
	unattached := agent.Unattached(started, records)
	a.meters.Unattached(len(unattached))
	a.health.Update(func(report *nodev1.Report) { report.Unattached = unattached })
}
