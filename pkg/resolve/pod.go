package resolve

import (
	"context"
	"encoding/json"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	podv1 "github.com/braid-cni/braid/pkg/api/pod/v1"
	"github.com/braid-cni/braid/pkg/failure"
)

// Pod asks the source for a pod, with its resources and claims. A pod that is gone, or
// replaced by another of the same name, is an error: its sandbox must not come up with addresses
// that nobody will release. An empty uid is that of any pod.
func (r *Resolver) Pod(
	ctx context.Context, namespace, name string, uid types.UID,
) (*podv1.Pod, error) {
	pod, err := r.Source.Pod(ctx, namespace, name)
	if apierrors.IsNotFound(err) {
		return nil, &failure.Error{
			Reason: failure.PodNotFound, Err: fmt.Errorf("get pod: %w", err),
			Fix: "it was deleted; the runtime will remove the sandbox",
		}
	}
	if err != nil {
		return nil, SourceError("get pod", err)
	}
	if uid != "" && pod.UID != uid && pod.Annotations[podv1.MirrorAnnotation] != string(uid) {
		return nil, &failure.Error{
			Reason: failure.PodNotFound,
			Err:    fmt.Errorf("pod of uid %.80q was replaced by one of uid %.80q", uid, pod.UID),
			Fix:    "the runtime will make a new sandbox for the new pod",
		}
	}
	return pod, nil
}

// PassedPod returns the pod as the runtime describes it by its annotations, a JSON object, and its
// uid; nil if it does not. They are of the object for which the kubelet makes the sandbox, and as
// good as a GET. Annotations that are null are none: CRI carries no empty map. The runtime knows a
// static pod by another uid than the API server does, so that one has to be fetched.
func PassedPod(namespace, name string, uid types.UID, raw json.RawMessage) *podv1.Pod {
	var annotations map[string]string
	if raw == nil || uid == "" || json.Unmarshal(raw, &annotations) != nil {
		return nil
	}
	if source, ok := annotations[podv1.SourceAnnotation]; ok && source != podv1.SourceAPI {
		return nil
	}
	// The kubelet added these: the API server's object does not have them.
	delete(annotations, podv1.SourceAnnotation)
	delete(annotations, podv1.SeenAnnotation)
	meta := metav1.ObjectMeta{Namespace: namespace, Name: name, UID: uid, Annotations: annotations}
	return &podv1.Pod{ObjectMeta: meta, MetaOnly: true}
}
