package lab

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Pod returns a pod that waits until it is deleted, and then ends at once.
func Pod(namespace, name string, annotations map[string]string) *corev1.Pod {
	no := false
	// podtool ends at once when told to. Zero would make the API server forget the pod before the
	// kubelet has taken it down.
	second := int64(1)
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Annotations: annotations},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{
				Name: "tool", Image: ToolImage, ImagePullPolicy: corev1.PullNever,
			}},
			TerminationGracePeriodSeconds: &second,
			// A token volume costs the kubelet a request and a mount per pod, and no pod here talks to the
			// API server.
			AutomountServiceAccountToken: &no,
			EnableServiceLinks:           &no,
		},
	}
}

// Exec runs a command in the first container of a pod, by way of the API server and the kubelet,
// and returns its stdout. Pods of ToolImage have one program, /tool.
func (c *Cluster) Exec(
	ctx context.Context, namespace, name string, command ...string,
) (string, error) {
	return c.Kubectl(ctx, append([]string{"exec", "--namespace=" + namespace, name, "--"},
		command...)...)
}

// WaitPodRunning waits until all containers of a pod are ready, and returns the pod. An error tells
// the pod's events.
func (c *Cluster) WaitPodRunning(ctx context.Context, namespace, name string) (*corev1.Pod, error) {
	client := c.Client()
	for {
		pod, err := client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
		if err == nil && podReady(pod) {
			return pod, nil
		}
		if ctx.Err() == nil && err != nil {
			return nil, fmt.Errorf("wait for pod: %w", err)
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return nil, fmt.Errorf("wait until pod %s/%s runs: %w\n%s",
				namespace, name, err, c.podEvents(namespace, name))
		}
	}
}

// podReady reports whether a pod's containers take part in its Services.
func podReady(pod *corev1.Pod) bool {
	for _, condition := range pod.Status.Conditions {
		if condition.Type == corev1.PodReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}

// WaitPodGone waits until a pod does not exist any more. By then its node has taken its network
// down, unless the pod was deleted with a grace period of zero.
func (c *Cluster) WaitPodGone(ctx context.Context, namespace, name string) error {
	client := c.Client()
	for {
		_, err := client.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			return nil
		}
		if ctx.Err() == nil && err != nil {
			return fmt.Errorf("wait for pod: %w", err)
		}
		if err := sleep(ctx, 50*time.Millisecond); err != nil {
			return fmt.Errorf("wait until pod %s/%s is gone: %w\n%s",
				namespace, name, err, c.podEvents(namespace, name))
		}
	}
}

// podEvents returns a pod's events as kubectl prints them. The context of who asks has usually
// ended.
func (c *Cluster) podEvents(namespace, name string) string {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	out, err := c.Kubectl(ctx, "events", "--namespace="+namespace, "--for=pod/"+name)
	if err != nil {
		return err.Error()
	}
	return out
}
