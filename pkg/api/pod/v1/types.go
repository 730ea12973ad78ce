// Package v1 holds what Braid reads of a core/v1 Pod, in a form of its own: a process that attaches
// one pod takes longer to learn the whole type than to decode with it. Data only: nothing here
// reads, validates or decides.
package v1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Annotations that the kubelet puts on the pods that it runs, and where a mirror pod is concerned
// also on the API's object.
const (
	// SourceAnnotation says where the kubelet has the pod from: "api", or for a static pod "file"
	// or "http".
	SourceAnnotation = "kubernetes.io/config.source"
	// SeenAnnotation says when the kubelet saw the pod first.
	SeenAnnotation = "kubernetes.io/config.seen"
	// MirrorAnnotation of the API's copy of a static pod holds the uid that the kubelet, and so the
	// runtime, uses for it.
	MirrorAnnotation = "kubernetes.io/config.mirror"
)

// SourceAPI is the value of SourceAnnotation for a pod of the API server.
const SourceAPI = "api"

// Pod is a pod as its networks need to know it.
type Pod struct {
	// ObjectMeta has the namespace, the name, the uid and the annotations, and need not have more.
	metav1.ObjectMeta

	// MetaOnly says that nothing else is known of it: the fields below are empty whatever the pod
	// has.
	MetaOnly bool
	// NodeName is the node that the pod is bound to; empty if it is not.
	NodeName string
	// Requested are the resources that its containers request or are limited to, sorted, each once.
	// A quantity of 0 does not count.
	Requested []string
	// Claims are the names of its ResourceClaims, which are in its namespace: those that it names
	// itself, those that were made for it from templates, and the one that was made for its
	// extended resources. Sorted, each once.
	Claims []string
}

// Meta returns the metadata; nil for no pod.
func (p *Pod) Meta() *metav1.ObjectMeta {
	if p == nil {
		return nil
	}
	return &p.ObjectMeta
}
