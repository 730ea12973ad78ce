package lab

import (
	"context"
	_ "embed"
	"fmt"
)

var (
	//go:embed config/poweroff.sh
	powerOff string
	//go:embed config/poweron.sh
	powerOn string
)

// PowerOff ends all that runs on a node, as a power failure does: processes are killed, and their
// namespaces, mounts, links and cgroups are gone with /run and the packet filter. The NICs of
// Options.NICs are as if nobody had set them up. Disks keep what they have.
func (n *Node) PowerOff(ctx context.Context) error {
	n.kubelet.kill()
	n.runtime.kill()
	command := append([]string{"sh", "-euc", powerOff, "poweroff"}, n.Cluster.nics...)
	if _, err := n.Run(ctx, command...); err != nil {
		return fmt.Errorf("power off %s: %w", n.Name, err)
	}
	return removeCgroups(n.cgroup)
}

// PowerOn starts a node after PowerOff. What the kernel says of its boot is another, and the node's
// runtime and kubelet run.
func (n *Node) PowerOn(ctx context.Context) error {
	if _, err := n.Run(ctx, "sh", "-euc", powerOn); err != nil {
		return fmt.Errorf("power on %s: %w", n.Name, err)
	}
	if err := n.makeCgroups(); err != nil {
		return err
	}
	if err := n.StartRuntime(ctx); err != nil {
		return err
	}
	return n.StartKubelet()
}
