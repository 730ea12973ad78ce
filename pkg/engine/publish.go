package engine

import (
	"context"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/resolve"
	"github.com/braid-cni/braid/pkg/status"
)

// published returns the attachments for network-status: all but an auxiliary chain that made no
// interface, whose name means nothing to the pod.
func published(auxiliary string, results []status.Result) []status.Result {
	return slices.DeleteFunc(slices.Clone(results), func(r status.Result) bool {
		is := auxiliary != "" && r.Attachment.Name == auxiliary && !r.Attachment.Default
		return is && !status.HasInterface(r)
	})
}

// tells reports whether a pod has network-status, and events, of its attachments. One that has the
// default network alone, and did not choose it, has neither: its status is in its podIPs. But what
// it has of another sandbox is replaced.
func tells(pod *metav1.ObjectMeta, attachments int) bool {
	if pod == nil || attachments > 1 {
		return pod != nil
	}
	for _, key := range []string{
		nadv1.NetworksAnnotation, nadv1.DefaultNetworkAnnotation, nadv1.StatusAnnotation,
	} {
		if pod.Annotations[key] != "" {
			return true
		}
	}
	return false
}

// writeStatus writes the pod's network-status, merged with what others wrote. If the runtime passed
// on the pod, its annotation may be old. Then the pod is fetched, which also shows whether it is
// gone.
func (e *Engine) writeStatus(
	ctx context.Context, pod *metav1.ObjectMeta, entries []nadv1.NetworkStatus,
) error {
	err := e.replaceStatus(ctx, pod, entries)
	if !apierrors.IsConflict(err) {
		return publishError(err)
	}
	current, err := e.resolver().Pod(ctx, pod.Namespace, pod.Name, pod.UID)
	if err != nil {
		return err
	}
	err = e.replaceStatus(ctx, current.Meta(), entries)
	if apierrors.IsConflict(err) {
		return &failure.Error{
			Reason: failure.APIUnavailable, Field: nadv1.StatusAnnotation,
			Err: fmt.Errorf("publish network-status: others write it at the same time: %w", err),
			Fix: "the runtime will try again; see who else writes the annotation",
		}
	}
	return publishError(err)
}

// replaceStatus merges the entries with the annotation as pod has it. The error is a conflict if
// the pod has another by now.
func (e *Engine) replaceStatus(
	ctx context.Context, pod *metav1.ObjectMeta, entries []nadv1.NetworkStatus,
) error {
	annotation, err := status.Merge(pod.Annotations[nadv1.StatusAnnotation], entries)
	if err != nil {
		e.Log.WarnContext(ctx, "replacing a network-status that cannot be read",
			"pod", pod.Namespace+"/"+pod.Name, "error", err)
	}
	return e.trace("publish status", func() error {
		return e.Reporter.PublishStatus(ctx, pod, annotation)
	})
}

// publishError classifies an error of the Reporter.
func publishError(err error) error {
	if err == nil {
		return nil
	}
	return resolve.SourceError("publish network-status", err)
}
