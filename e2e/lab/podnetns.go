package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// PodNetns returns a path, from outside, to the network namespace of a pod on the node. Pods with
// hostNetwork have none.
func (n *Node) PodNetns(ctx context.Context, namespace, name string) (string, error) {
	// The pod's sandbox container knows. Of several the last is the current one: a sandbox that died
	// is kept a while.
	filter := fmt.Sprintf(
		`labels."io.cri-containerd.kind"==sandbox,labels."io.kubernetes.pod.namespace"==%q,`+
			`labels."io.kubernetes.pod.name"==%q`, namespace, name)
	ids, err := n.Ctr(ctx, "containers", "list", "--quiet", filter)
	if err != nil {
		return "", err
	}
	var latest struct {
		CreatedAt time.Time
		netns     string
	}
	for _, id := range strings.Fields(ids) {
		out, err := n.Ctr(ctx, "containers", "info", id)
		if err != nil {
			return "", err
		}
		var info containerInfo
		if err := json.Unmarshal([]byte(out), &info); err != nil {
			return "", fmt.Errorf("read container %s: %w", id, err)
		}
		if info.CreatedAt.After(latest.CreatedAt) {
			latest.CreatedAt, latest.netns = info.CreatedAt, info.netns()
		}
	}
	if latest.netns == "" {
		return "", fmt.Errorf("find network namespace of pod %s/%s: no sandbox on node %s",
			namespace, name, n.Name)
	}
	return n.Path(latest.netns), nil
}

// containerInfo is what is needed of the output of ctr containers info.
type containerInfo struct {
	CreatedAt time.Time
	Spec      struct {
		Linux struct {
			Namespaces []struct {
				Type string `json:"type"`
				Path string `json:"path"`
			} `json:"namespaces"`
		} `json:"linux"`
	}
}

func (i containerInfo) netns() string {
	for _, namespace := range i.Spec.Linux.Namespaces {
		if namespace.Type == "network" {
			return namespace.Path
		}
	}
	return ""
}

// PodRun runs one of the machine's programs, such as ip, in the network namespace of a pod on the
// node.
func (n *Node) PodRun(
	ctx context.Context, namespace, name string, command ...string,
) (string, error) {
	netns, err := n.PodNetns(ctx, namespace, name)
	if err != nil {
		return "", err
	}
	return (*sandbox)(nil).output(ctx, "",
		append([]string{"nsenter", "--net=" + netns}, command...)...)
}
