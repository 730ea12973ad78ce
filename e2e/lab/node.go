package lab

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

//go:embed config/kubelet.yaml
var kubeletConfig []byte

// nodeBin is where a node has the binaries of scripts/lab.sh.
const nodeBin = "/opt/lab"

// Node is a machine of a cluster: container runtime, kubelet and what they run.
type Node struct {
	Name    string
	Address string // on eth0, the cluster's network
	Cluster *Cluster

	number  int // in the order of the cluster's nodes, from 0
	in      *sandbox
	cgroup  string // of all pods, below the root of each hierarchy
	of      *engine
	runtime *process
	kubelet *process
}

// newNode makes a machine with its links, on which nothing runs yet.
func newNode(ctx context.Context, c *Cluster, name string) (*Node, error) {
	number := len(c.nodes)
	root := c.dir.file("root-" + name)
	if err := os.Mkdir(root, 0o755); err != nil {
		return nil, fmt.Errorf("make node's directory: %w", err)
	}
	log := c.dir.logFile(name)
	in, err := newSandbox(c.tools+"/nodeinit", log, nodeNamespaces, "-root", root, "-hostname", name,
		"-bind", c.bin+"="+nodeBin)
	if err != nil {
		return nil, err
	}
	n := &Node{
		Name: name, Address: fmt.Sprintf("172.30.0.%d", 11+number), Cluster: c,
		number: number, in: in, cgroup: "/" + c.dir.id() + "/" + name, of: engines[c.runtime],
	}
	c.nodes = append(c.nodes, n) // from here on Stop takes care of it
	n.runtime = &process{
		name: n.of.argv[0], in: in, log: c.dir.logFile(name + "-" + n.of.argv[0]),
		argv: append([]string{nodeBin + "/" + n.of.argv[0]}, n.of.argv[1:]...),
		// It finds its helpers there, and what the machine has of them.
		env: []string{
			"PATH=" + nodeBin + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		},
	}
	n.kubelet = &process{
		name: "kubelet", in: in, log: c.dir.logFile(name + "-kubelet"),
		argv: []string{
			nodeBin + "/kubelet", "--config=/etc/kubernetes/kubelet.yaml",
			"--kubeconfig=/etc/kubernetes/kubelet.kubeconfig",
			"--node-ip=" + n.Address, // else it looks up its host name
		},
	}
	return n, n.plugIn(ctx)
}

// plugIn connects the node to the cluster's network and to the bare switches.
func (n *Node) plugIn(ctx context.Context) error {
	switches := map[string]string{"eth0": "cluster", "eth1": "lan"}
	for _, nic := range n.Cluster.nics {
		switches[nic] = nic
	}
	for device, bridge := range switches {
		if err := n.plug(ctx, device, bridge); err != nil {
			return err
		}
	}
	return n.in.ip(ctx,
		"link set lo up",
		"link set eth0 up",
		"link set eth1 up",
		"address add "+n.Address+"/24 dev eth0",
		"route add default via "+controlPlaneAddress)
}

// plug adds a NIC to the node. Its other end is a port of a switch.
func (n *Node) plug(ctx context.Context, device, bridge string) error {
	port := n.port(bridge)
	return n.Cluster.in.ip(ctx,
		fmt.Sprintf("link add %s type veth peer name %s netns %s", port, device, n.in.netns()),
		fmt.Sprintf("link set %s master %s up", port, bridge))
}

// port returns the name of the node's port of a bridge of the control plane.
func (n *Node) port(bridge string) string { return fmt.Sprintf("%s-%d", bridge, n.number) }

// Plug adds a NIC of Options.NICs that Unplug has taken: a new one, with another MAC.
func (n *Node) Plug(ctx context.Context, nic string) error { return n.plug(ctx, nic, nic) }

// Unplug takes a NIC of Options.NICs out of the node, with the links that are made on it.
func (n *Node) Unplug(ctx context.Context, nic string) error {
	return n.Cluster.in.ip(ctx, "link delete "+n.port(nic))
}

// Cable pulls the cable of a NIC of Options.NICs out of its switch, or puts it in again.
func (n *Node) Cable(ctx context.Context, nic string, in bool) error {
	state := "down"
	if in {
		state = "up"
	}
	return n.Cluster.in.ip(ctx, "link set "+n.port(nic)+" "+state)
}

// prepare starts the runtime and loads the images, then lets the test install what it wants.
func (n *Node) prepare(ctx context.Context) error {
	for file, content := range n.of.files {
		if err := n.WriteFile(file, content, 0o755); err != nil { // one is a script
			return err
		}
	}
	if err := n.StartRuntime(ctx); err != nil {
		return err
	}
	if err := n.LoadImages(ctx, n.Cluster.tools+"/images.tar"); err != nil {
		return err
	}
	if n.Cluster.prepare == nil {
		return nil
	}
	return n.Cluster.prepare(ctx, n)
}

// join starts the kubelet and waits until it has registered the node.
func (n *Node) join(ctx context.Context) error {
	if err := n.makeCgroups(); err != nil {
		return err
	}
	config := strings.NewReplacer("CGROUP_ROOT", n.cgroup, "SOCKET", n.of.socket).
		Replace(string(kubeletConfig))
	if err := n.WriteFile("/etc/kubernetes/kubelet.yaml", []byte(config), 0o644); err != nil {
		return err
	}
	if err := n.WriteFile("/etc/kubernetes/ca.crt", n.Cluster.CA(), 0o644); err != nil {
		return err
	}
	kubeconfig, err := n.Cluster.Kubeconfig("system:node:"+n.Name, "system:nodes")
	if err != nil {
		return err
	}
	if err := n.Install(kubeconfig, "/etc/kubernetes/kubelet.kubeconfig", 0o600); err != nil {
		return err
	}
	if err := n.StartKubelet(); err != nil {
		return err
	}
	err = n.wait(ctx, func(*corev1.Node) bool { return true })
	if err != nil {
		return n.kubelet.describe(fmt.Errorf("wait until node %s is registered: %w", n.Name, err))
	}
	return nil
}

// WaitReady waits until the node is Ready and free of the taint that it had before.
func (n *Node) WaitReady(ctx context.Context) error {
	err := n.wait(ctx, func(node *corev1.Node) bool {
		for _, condition := range node.Status.Conditions {
			if condition.Type == corev1.NodeReady {
				return condition.Status == corev1.ConditionTrue && len(node.Spec.Taints) == 0
			}
		}
		return false
	})
	if err != nil {
		return n.kubelet.describe(fmt.Errorf("wait until node %s is Ready: %w", n.Name, err))
	}
	return nil
}

// wait waits until the node's object exists and is as wanted.
func (n *Node) wait(ctx context.Context, ok func(*corev1.Node) bool) error {
	client := n.Cluster.Client()
	for {
		node, err := client.CoreV1().Nodes().Get(ctx, n.Name, metav1.GetOptions{})
		if err == nil && ok(node) {
			return nil
		}
		if err != nil && !apierrors.IsNotFound(err) {
			return err
		}
		if !n.kubelet.running() {
			return errors.New("kubelet ended")
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return err
		}
	}
}

// StartRuntime starts the container runtime and waits until it answers. After KillRuntime it takes
// up the containers that it had.
func (n *Node) StartRuntime(ctx context.Context) error {
	if err := n.runtime.start(); err != nil {
		return err
	}
	for {
		err := n.answers(ctx)
		if err == nil {
			return nil
		}
		if !n.runtime.running() || ctx.Err() != nil {
			return n.runtime.describe(fmt.Errorf("start %s: %w", n.runtime.name, err))
		}
		if err := sleep(ctx, 20*time.Millisecond); err != nil {
			return n.runtime.describe(fmt.Errorf("start %s: %w", n.runtime.name, err))
		}
	}
}

// KillRuntime sends SIGKILL to the container runtime; containers go on.
func (n *Node) KillRuntime() { n.runtime.kill() }

// StartKubelet starts the kubelet; it does not wait.
func (n *Node) StartKubelet() error { return n.kubelet.start() }

// KillKubelet sends SIGKILL to the kubelet; containers go on.
func (n *Node) KillKubelet() { n.kubelet.kill() }

// halt ends the node as a power failure does.
func (n *Node) halt() {
	n.kubelet.kill()
	n.runtime.kill()
	n.in.stop()
}

// Run runs a command on the node, as root, and returns its stdout. The machine's programs are all
// there.
func (n *Node) Run(ctx context.Context, command ...string) (string, error) {
	return n.in.output(ctx, "", command...)
}

// Netns returns a path to the node's own network namespace.
func (n *Node) Netns() string { return n.in.netns() }

// Ctr runs ctr in the namespace in which the kubelet's containers are. Only containerd has it.
func (n *Node) Ctr(ctx context.Context, args ...string) (string, error) {
	return n.in.output(ctx, "", n.ctr(args...)...)
}

// ctr returns the command line of containerd's client, for the kubelet's namespace.
func (n *Node) ctr(args ...string) []string {
	return append([]string{
		nodeBin + "/ctr", "--address=/run/containerd/containerd.sock", "--namespace=k8s.io",
	}, args...)
}
