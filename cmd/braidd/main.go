// Command braidd is Braid's agent on a node. It puts Braid on the node and keeps it there, keeps
// the CNI plugin's credential good, says how the node is, and shares addresses that the node does
// not need. Pods get their networks without it: its end is no outage.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"k8s.io/klog/v2"

	"github.com/braid-cni/braid/pkg/cnicache"
	"github.com/braid-cni/braid/pkg/install/hostns"
	"github.com/braid-cni/braid/pkg/install/platform"
	"github.com/braid-cni/braid/pkg/loglevel"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// buildVersion is set by the linker.
var buildVersion = "devel"

const usage = `usage: braidd [flags]

Braid's agent. It runs on each node as a DaemonSet, whose manifest is in conf/deploy.

`

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	o, err := parse(args, stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		fmt.Fprintln(stderr, "braidd:", err) //nolint:errcheck // nobody to tell
		return 2
	case o.version:
		fmt.Fprintln(stdout, "braidd", buildVersion) //nolint:errcheck // nobody to tell
		return 0
	}
	log := slog.New(slog.NewTextHandler(strictjson.PrintableWriter(stderr),
		&slog.HandlerOptions{Level: o.level}))
	klog.SetSlogLogger(log)
	if err = o.enterNode(); err == nil {
		err = serve(ctx, o, log)
	}
	if err != nil {
		log.Error("the agent ends", "error", err)
		return 1
	}
	return 0
}

// options are the command line, and what the pod's environment says.
type options struct {
	// image is the directory of the binaries that are installed.
	image string
	// runDir is the node's /run.
	runDir string
	// runtimeCache is the directory of the runtime's libcni cache.
	runtimeCache string
	// netns is the path of the node's network namespace.
	netns string
	// inContainer is that the agent stays in the mount namespace that it was started in.
	inContainer bool
	// config has keys of Braid's configuration; empty for the defaults of all.
	config         string
	defaultNetwork string
	movePrivate    bool
	place          platform.Place
	nodeName       string
	// namespace and account are the CNI plugin's.
	namespace, account string
	// ownNamespace and pod name the agent's pod; token is the directory of its service account.
	ownNamespace, pod, podUID, token string
	server                           string
	// serve has the agent do the calls of the CNI plugin. Its client is on the node then.
	serve    bool
	stateDir string
	// uninstall takes Braid off the node; restore is Removal's.
	uninstall, keepFiles bool
	restore              string
	// metrics is the address that Prometheus asks; empty for none.
	metrics string
	level   slog.Level
	version bool
}

func serve(ctx context.Context, o *options, log *slog.Logger) error {
	if os.Getenv("GOGC") == "" {
		keepGarbageRoom()
	}
	a, err := newAgent(o, log)
	if err != nil {
		return err
	}
	if o.uninstall {
		return a.uninstall(ctx)
	}
	return a.run(ctx)
}

// enterNode moves the process to the node's mount namespace, where paths are what they are to the
// container runtime. It keeps the directories of the container that it reads.
func (o *options) enterNode() error {
	if o.inContainer {
		return nil
	}
	keep := map[string]string{"image": o.image, "token": o.token}
	if o.config != "" {
		keep["config"] = filepath.Dir(o.config)
	}
	ns, err := hostns.Host(o.hostSockets())
	if err != nil {
		return err
	}
	defer ns.Close()
	if err := hostns.Enter(ns, keep); err != nil {
		return err
	}
	dirs, err := hostns.Dirs()
	if err != nil {
		return err
	}
	o.image, o.token = dirs["image"], dirs["token"]
	if o.config != "" {
		o.config = filepath.Join(dirs["config"], filepath.Base(o.config))
	}
	return nil
}

// hostSockets returns where the container may see the sockets of container runtimes.
func (o *options) hostSockets() []string {
	sockets := hostns.Sockets()
	for i, socket := range sockets {
		if rest, ok := strings.CutPrefix(socket, "/run/"); ok {
			sockets[i] = filepath.Join(o.runDir, rest)
		}
	}
	return sockets
}

// beside returns the directory of this program, where the image has the binaries that are
// installed.
func beside() string {
	self, err := os.Executable()
	if err != nil {
		return "/"
	}
	return filepath.Dir(self)
}

// given are values of flags that are no option as they are.
type given struct{ profile, account, level string }

// define defines the flags.
func (o *options) define(f *flag.FlagSet, g *given) {
	f.StringVar(&o.config, "config", "",
		"`file` with keys of Braid's configuration, a JSON object; the default network and the "+
			"kubeconfig are set by the agent. "+interfacesFile+
			" beside it, which may be missing, has the node's interfaces")
	f.StringVar(&o.defaultNetwork, "default-network", "",
		"`name` or file of the default network; by default the first configuration that can be one")
	f.StringVar(&g.profile, "profile", "auto",
		"`name` of the node's distribution: auto, "+strings.Join(platform.Names(), ", "))
	f.StringVar(&o.place.Conf, "cni-conf-dir", "",
		"`directory` of the runtime's CNI configurations; by default the profile's")
	f.StringVar(&o.place.Bin, "cni-bin-dir", "",
		"`directory` of the runtime's CNI plugins; by default the profile's")
	f.StringVar(&o.place.Private, "private-conf-dir", "",
		"`directory` of the default network's configuration, where the runtime does not look; by "+
			"default the profile's")
	f.BoolVar(&o.movePrivate, "move-default-network", false,
		"move the default network's files to the private directory, so that no pod ever starts "+
			"without Braid")
	f.StringVar(&o.nodeName, "node-name", os.Getenv("NODE_NAME"),
		"`name` of the Node object; by default $NODE_NAME")
	f.StringVar(&g.account, "service-account", "",
		"`namespace/name` of the ServiceAccount of the CNI plugin; by default braid-cni in the agent's "+
			"own namespace")
	f.StringVar(&o.token, "token-dir", "/var/run/secrets/kubernetes.io/serviceaccount",
		"`directory` of the agent's own token")
	f.StringVar(&o.server, "api-server", "",
		"`URL` of the API server, for the agent and the CNI plugin; by default what the pod's "+
			"environment says")
	f.StringVar(&o.runDir, "run-dir", "/run",
		"`directory` in the container that is the node's /run: the runtime's socket in it shows the "+
			"node's mount namespace")
	f.BoolVar(&o.inContainer, "stay", false,
		"stay in the mount namespace that the agent is started in, in place of the node's")
	f.StringVar(&o.stateDir, "state-dir", "/var/lib/braid",
		"`directory` of the agent's state, which outlives a reboot")
	f.BoolVar(&o.serve, "serve", false,
		"do the calls of the CNI plugin, which its client hands over; without it, the plugin does "+
			"them alone")
	f.StringVar(&o.metrics, "metrics-address", os.Getenv("BRAID_METRICS_ADDRESS"),
		"`address` to serve metrics on, such as :9876; by default $BRAID_METRICS_ADDRESS, and without "+
			"it none")
	f.BoolVar(&o.uninstall, "uninstall", os.Getenv("BRAID_UNINSTALL") != "",
		"take Braid off the node, as `kubectl braid uninstall` asks; by default whether "+
			"$BRAID_UNINSTALL is set")
	f.BoolVar(&o.keepFiles, "keep-files", os.Getenv("BRAID_KEEP_FILES") != "",
		"with -uninstall: leave the binary and the kubeconfig; by default whether $BRAID_KEEP_FILES "+
			"is set")
	f.StringVar(&o.restore, "restore", os.Getenv("BRAID_RESTORE"),
		"with -uninstall: `file` of the node with the configuration that it had before; by default "+
			"$BRAID_RESTORE")
	f.StringVar(&g.level, "log-level", loglevel.Default,
		"`level` of the log: debug, info, warn or error")
	f.BoolVar(&o.version, "version", false, "print the version")
}

func parse(args []string, stderr io.Writer) (*options, error) {
	o := &options{
		image: beside(), netns: "/proc/self/ns/net", runtimeCache: cnicache.Runtime,
		ownNamespace: os.Getenv("POD_NAMESPACE"), pod: os.Getenv("POD_NAME"),
		podUID: os.Getenv("POD_UID"),
	}
	f := flag.NewFlagSet("braidd", flag.ContinueOnError)
	f.SetOutput(stderr)
	f.Usage = func() {
		fmt.Fprint(stderr, usage) //nolint:errcheck // nobody to tell
		f.PrintDefaults()
	}
	g := &given{}
	o.define(f, g)
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("argument %q is unknown", f.Arg(0))
	}
	if err := o.take(g); err != nil {
		return nil, err
	}
	return o, o.check()
}

// take takes over the values of flags that are no option as they are.
func (o *options) take(g *given) error {
	if g.profile != "auto" {
		o.place.Profile = g.profile
	}
	if _, err := loglevel.Name(g.level); err != nil {
		return fmt.Errorf("log-level: %w", err)
	}
	o.level = loglevel.Level(g.level)
	o.namespace, o.account = o.ownNamespace, "braid-cni"
	if g.account != "" {
		var ok bool
		if o.namespace, o.account, ok = strings.Cut(g.account, "/"); !ok {
			return fmt.Errorf("service-account: %q is no namespace/name", g.account)
		}
	}
	return nil
}

// check finds out what is missing.
func (o *options) check() error {
	switch {
	case o.version:
		return nil
	case o.nodeName == "":
		return errors.New("node-name: is empty, and so is $NODE_NAME")
	case o.namespace == "" || o.account == "":
		return errors.New("service-account: is empty, and so is $POD_NAMESPACE")
	case o.ownNamespace == "" || o.pod == "" || o.podUID == "":
		return errors.New("one of $POD_NAMESPACE, $POD_NAME and $POD_UID is empty; the DaemonSet of " +
			"conf/deploy sets them")
	}
	return nil
}
