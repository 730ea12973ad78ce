package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	controlPlaneAddress = "172.30.0.1"
	// that of the Service kubernetes, whose address is on the same link, so that no kube-proxy is
	// needed
	controlPlanePort = 443
)

// Options of a cluster.
type Options struct {
	Nodes []string // names; default: one, node-1

	// NICs are more NICs of each node, which nobody has set up. Those of one name are on a switch of
	// their own, which has that name in the control plane's network namespace.
	NICs []string

	// Runtime runs the containers of all nodes; default: Containerd.
	Runtime Runtime

	// Prepare is called for each node when the runtime runs and the kubelet does not yet: the time at
	// which an operator installs the CNI plugins and their configuration. It may ask for kubeconfigs,
	// but the API server is only starting then. May be nil; the node is not Ready until something has
	// installed a network.
	Prepare func(context.Context, *Node) error
}

// Cluster is an API server with scheduler, controller-manager and nodes.
type Cluster struct {
	*API
	tools             string // directory of nodeinit and the images
	scheduler         *process
	controllerManager *process
	nodes             []*Node
	nics              []string
	runtime           Runtime
	prepare           func(context.Context, *Node) error
}

// StartCluster starts a cluster for one test. See NewCluster.
func StartCluster(tb testing.TB, options Options) *Cluster {
	tb.Helper()
	shared := NewShared(func() (*Cluster, error) { return NewCluster(options) })
	tb.Cleanup(func() { stopFor(tb, shared) })
	return shared.Get(tb)
}

// StartNode starts a cluster of one node for one test.
func StartNode(tb testing.TB, prepare func(context.Context, *Node) error) *Node {
	tb.Helper()
	return StartCluster(tb, Options{Prepare: prepare}).Node("node-1")
}

// NewCluster starts a cluster; the caller has to call Stop. When it returns, the nodes are
// registered; they are Ready where Prepare has given them a network (WaitReady). It needs root, and
// the binaries of scripts/lab.sh node, for CRI-O those of scripts/lab.sh crio.
func NewCluster(options Options) (*Cluster, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("start cluster: namespaces, mounts and cgroups need root")
	}
	if options.Runtime == "" {
		options.Runtime = Containerd
	}
	bin, err := binDir(slices.Concat(apiBinaries, nodeBinaries, engines[options.Runtime].binaries))
	if err != nil {
		return nil, err
	}
	dir, err := newWorkdir()
	if err != nil {
		return nil, err
	}
	c := &Cluster{
		API: &API{
			dir: dir, bin: bin, bind: "0.0.0.0", host: controlPlaneAddress, port: controlPlanePort,
		},
		tools:   dir.file("tools"),
		nics:    options.NICs,
		runtime: options.Runtime,
		prepare: options.Prepare,
	}
	if len(options.Nodes) == 0 {
		options.Nodes = []string{"node-1"}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	if err := c.launch(ctx, options.Nodes); err != nil {
		err = fmt.Errorf("start cluster: %w\n%s", err, c.Logs())
		return nil, errors.Join(err, c.Stop())
	}
	return c, nil
}

// launch starts all of the cluster, and returns when its nodes are registered.
func (c *Cluster) launch(ctx context.Context, nodes []string) error {
	if err := c.makeTools(ctx); err != nil {
		return err
	}
	if err := c.makeNetwork(ctx); err != nil {
		return err
	}
	if err := c.writeFiles(); err != nil {
		return err
	}
	// The API server takes seconds to be ready, in which nodes get their images and plugins.
	ready := make(chan error, 1)
	// Webhooks are reached by the pods behind a Service: here is no kube-proxy.
	go func() { ready <- c.API.launch(ctx, "--enable-aggregator-routing=true") }()
	err := c.addNodes(ctx, nodes)
	if err := errors.Join(err, <-ready); err != nil {
		return err
	}
	if err := c.startControllers(); err != nil {
		return err
	}
	for _, n := range c.nodes {
		if err := n.join(ctx); err != nil {
			return err
		}
	}
	return c.waitServiceAccount(ctx)
}

// waitServiceAccount waits for what no pod is admitted without and the controller-manager makes at
// its start.
func (c *Cluster) waitServiceAccount(ctx context.Context) error {
	client := c.Client()
	for {
		_, err := client.CoreV1().ServiceAccounts("default").Get(ctx, "default", metav1.GetOptions{})
		if err == nil || !apierrors.IsNotFound(err) {
			return err
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return c.controllerManager.describe(fmt.Errorf("wait for a service account: %w", err))
		}
	}
}

// Kubectl runs kubectl as UserAdmin and returns its stdout; its stderr is in the error.
func (c *Cluster) Kubectl(ctx context.Context, args ...string) (string, error) {
	config, err := c.Kubeconfig(UserAdmin)
	if err != nil {
		return "", err
	}
	// A cache of its own: the default is in the home directory.
	argv := append([]string{
		c.bin + "/kubectl", "--kubeconfig=" + config, "--cache-dir=" + c.dir.file("kubectl-cache"),
	}, args...)
	return c.in.output(ctx, "", argv...)
}

// Run runs a command where the API server is reached, as root, and returns its stdout; its stderr
// is in the error.
func (c *Cluster) Run(ctx context.Context, command ...string) (string, error) {
	return c.in.output(ctx, "", command...)
}

// makeTools builds the lab's own programs and packs the images.
func (c *Cluster) makeTools(ctx context.Context) error {
	if err := os.Mkdir(c.tools, 0o755); err != nil {
		return fmt.Errorf("make tools: %w", err)
	}
	const here = "github.com/braid-cni/braid/e2e/lab/"
	if err := Build(ctx, c.tools, here+"nodeinit", here+"podtool"); err != nil {
		return err
	}
	archive, err := os.Create(c.tools + "/images.tar")
	if err != nil {
		return fmt.Errorf("make images: %w", err)
	}
	return errors.Join(ociArchive(archive, c.tools+"/podtool", PauseImage, ToolImage), archive.Close())
}

// makeNetwork makes the control plane's network namespace, with the switches that nodes are plugged
// into.
func (c *Cluster) makeNetwork(ctx context.Context) (err error) {
	if c.in, err = newSandbox(c.tools+"/nodeinit", c.dir.logFile("control-plane"),
		controlPlaneNamespaces); err != nil {
		return err
	}
	batch := []string{
		"link set lo up",
		"address add " + serviceAddress + "/32 dev lo",
		"link add cluster type bridge",
		"address add " + controlPlaneAddress + "/24 dev cluster",
		"link set cluster up",
		"link add lan type bridge",
		"link set lan up",
	}
	for _, nic := range c.nics {
		batch = append(batch, "link add "+nic+" type bridge", "link set "+nic+" up")
	}
	return c.in.ip(ctx, batch...)
}

func (c *Cluster) startControllers() error {
	scheduler, err := c.Kubeconfig("system:kube-scheduler")
	if err != nil {
		return err
	}
	// Its own role only lets it make a service account per controller. All of them under one name,
	// with all rights, keep the audit log free of them.
	manager, err := c.Kubeconfig("system:kube-controller-manager", "system:masters")
	if err != nil {
		return err
	}
	// One of each is all there is: electing a leader would cost seconds at every start.
	c.scheduler = &process{
		name: "kube-scheduler", in: c.in, log: c.dir.logFile("kube-scheduler"),
		argv: []string{
			c.bin + "/kube-scheduler", "--kubeconfig=" + scheduler, "--leader-elect=false",
			"--kube-api-qps=1000", "--kube-api-burst=1000",
		},
	}
	c.controllerManager = &process{
		name: "kube-controller-manager", in: c.in,
		log: c.dir.logFile("kube-controller-manager"), argv: []string{
			c.bin + "/kube-controller-manager", "--kubeconfig=" + manager, "--leader-elect=false",
			"--service-account-private-key-file=" + c.dir.file("service-account.key"),
			"--root-ca-file=" + c.dir.file("ca.crt"),
			"--kube-api-qps=1000", "--kube-api-burst=1000",
			"--node-monitor-period=1s", // the not-ready taint goes soon after the node is Ready
		},
	}
	return errors.Join(c.scheduler.start(), c.controllerManager.start())
}

// Nodes returns all nodes, in the order in which they were added.
func (c *Cluster) Nodes() []*Node { return c.nodes }

// Node returns the node with the name, or nil.
func (c *Cluster) Node(name string) *Node {
	for _, n := range c.nodes {
		if n.Name == name {
			return n
		}
	}
	return nil
}

// AddNode adds a node to a running cluster.
func (c *Cluster) AddNode(ctx context.Context, name string) (*Node, error) {
	if err := c.addNodes(ctx, []string{name}); err != nil {
		return nil, err
	}
	n := c.Node(name)
	return n, n.join(ctx)
}

// addNodes makes nodes up to the point where only the kubelet is missing.
func (c *Cluster) addNodes(ctx context.Context, names []string) error {
	for _, name := range names {
		n, err := newNode(ctx, c, name)
		if err != nil {
			return fmt.Errorf("add node %s: %w", name, err)
		}
		if err := n.prepare(ctx); err != nil {
			return fmt.Errorf("add node %s: %w", name, err)
		}
	}
	return nil
}

// Stop ends everything with SIGKILL and removes every trace.
func (c *Cluster) Stop() error {
	for _, n := range c.nodes {
		n.halt()
	}
	c.scheduler.kill()
	c.controllerManager.kill()
	c.halt()
	c.in.stop()
	return c.dir.remove()
}
