package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	runtimev1 "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// PodNetns returns a path, from outside, to the network namespace of a pod on the node. Pods with
// hostNetwork have none.
func (n *Node) PodNetns(ctx context.Context, namespace, name string) (string, error) {
	id, err := n.PodSandbox(ctx, namespace, name)
	if err != nil {
		return "", err
	}
	netns := ""
	err = n.cri(func(runtime runtimev1.RuntimeServiceClient) error {
		answer, err := runtime.PodSandboxStatus(ctx,
			&runtimev1.PodSandboxStatusRequest{PodSandboxId: id, Verbose: true})
		if err != nil {
			return err
		}
		var info sandboxInfo
		if err := json.Unmarshal([]byte(answer.GetInfo()["info"]), &info); err != nil {
			return fmt.Errorf("read sandbox %s: %w", id, err)
		}
		netns = info.netns()
		return nil
	})
	if err == nil && netns == "" {
		err = fmt.Errorf("pod %s/%s has none", namespace, name)
	}
	if err != nil {
		return "", fmt.Errorf("find network namespace: %w", err)
	}
	return n.Path(netns), nil
}

// PodSandbox returns the ID of a pod's sandbox on the node.
func (n *Node) PodSandbox(ctx context.Context, namespace, name string) (id string, err error) {
	err = n.cri(func(runtime runtimev1.RuntimeServiceClient) error {
		list, err := runtime.ListPodSandbox(ctx, &runtimev1.ListPodSandboxRequest{
			Filter: &runtimev1.PodSandboxFilter{LabelSelector: map[string]string{
				"io.kubernetes.pod.namespace": namespace, "io.kubernetes.pod.name": name,
			}},
		})
		// Of several the last is the current one: a sandbox that died is kept a while.
		var latest int64
		for _, s := range list.GetItems() {
			if s.GetCreatedAt() > latest {
				latest, id = s.GetCreatedAt(), s.GetId()
			}
		}
		return err
	})
	if err == nil && id == "" {
		err = fmt.Errorf("there is none on node %s", n.Name)
	}
	if err != nil {
		return "", fmt.Errorf("find sandbox of pod %s/%s: %w", namespace, name, err)
	}
	return id, nil
}

// RemoveSandboxes removes the sandboxes of a namespace that are stopped, as the kubelet does within
// a minute.
func (n *Node) RemoveSandboxes(ctx context.Context, namespace string) error {
	err := n.cri(func(runtime runtimev1.RuntimeServiceClient) error {
		list, err := runtime.ListPodSandbox(ctx, &runtimev1.ListPodSandboxRequest{
			Filter: &runtimev1.PodSandboxFilter{
				LabelSelector: map[string]string{"io.kubernetes.pod.namespace": namespace},
			},
		})
		for _, s := range list.GetItems() {
			if s.GetState() == runtimev1.PodSandboxState_SANDBOX_NOTREADY {
				_, rerr := runtime.RemovePodSandbox(ctx,
					&runtimev1.RemovePodSandboxRequest{PodSandboxId: s.GetId()})
				err = errors.Join(err, rerr)
			}
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("remove sandboxes of namespace %s: %w", namespace, err)
	}
	return nil
}

// sandboxInfo is what is needed of what a runtime tells of a sandbox when it is asked for all.
type sandboxInfo struct {
	Spec struct {
		Linux struct {
			Namespaces []struct {
				Type string `json:"type"`
				Path string `json:"path"`
			} `json:"namespaces"`
		} `json:"linux"`
	} `json:"runtimeSpec"`
}

// netns returns the path of the sandbox's network namespace; empty if it has the node's.
func (i sandboxInfo) netns() string {
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
