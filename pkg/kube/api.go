package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	podv1 "github.com/braid-cni/braid/pkg/api/pod/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/kube/internal/objects"
)

const (
	defaultTimeout = 10 * time.Second
	// metadataType asks for an object's metadata alone: a pod's spec and status need not travel.
	metadataType = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
)

// APIOptions name the API server, and say how patiently it is asked.
type APIOptions struct {
	// Kubeconfig is a file. If empty, the service account of the pod counts that this process runs in.
	Kubeconfig string
	// ServiceAccount is the directory of the pod's token, if it is not in its usual place. Server is
	// the URL of the API server; if empty, the environment names it. Both count only without a
	// Kubeconfig.
	ServiceAccount, Server string
	// Version is Braid's version, for the user agent.
	Version string
	// NodeName is the host that events are reported from.
	NodeName string
	// Timeout bounds one call with all its retries; 0 means 10 s. An earlier deadline of the context
	// wins.
	Timeout time.Duration

	// content is the content of the kubeconfig, where it is in no file.
	content []byte
}

// API is an API server as source. Calls share one HTTP/2 connection, which the first makes, and
// have no rate limit. A call is tried again, with growing pauses, if the server cannot be reached,
// does not answer, or is overloaded or failing. If such a server then denies the call, it is tried
// again, too: the server may be starting.
type API struct {
	opts      APIOptions
	transport transporter

	mu     sync.Mutex
	client *client // nil until the first call
}

// NewAPI makes a source for a program that ends soon. The first call reads the kubeconfig and dials
// the server.
func NewAPI(opts APIOptions) (*API, error) { return newAPIOver(briefTransport, opts) }

// NewLastingAPI is NewAPI for a program that runs for days: it uses a new certificate authority
// when its file changes.
func NewLastingAPI(opts APIOptions) (*API, error) { return newAPIOver(rest.TransportFor, opts) }

// newAPIOver makes no connection yet: the first call does.
func newAPIOver(connections transporter, opts APIOptions) (*API, error) {
	if opts.Timeout < 0 {
		return nil, &failure.Error{
			Reason: failure.InvalidConfig, Field: "braid.timeouts.api",
			Err: fmt.Errorf("is %v", opts.Timeout), Fix: "make it positive",
		}
	}
	if opts.Timeout == 0 {
		opts.Timeout = defaultTimeout
	}
	return &API{opts: opts, transport: connections}, nil
}

// Close closes the connection. The next call would make a new one.
func (a *API) Close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.client != nil {
		a.client.close()
	}
}

// described is the part of a pod's or NAD's metadata that an ADD reads. It has no more of it: most
// of an answer is about who manages which field, and a new process takes longer to learn the whole
// type than to decode with it.
type described struct {
	Metadata struct {
		Namespace   string            `json:"namespace"`
		Name        string            `json:"name"`
		UID         types.UID         `json:"uid"`
		Annotations map[string]string `json:"annotations"`
	} `json:"metadata"`
}

func (d *described) GetNamespace() string { return d.Metadata.Namespace }
func (d *described) GetName() string      { return d.Metadata.Name }

func (d *described) objectMeta() metav1.ObjectMeta {
	m := &d.Metadata
	return metav1.ObjectMeta{
		Namespace: m.Namespace, Name: m.Name, UID: m.UID, Annotations: m.Annotations,
	}
}

// Pod returns a pod.
func (a *API) Pod(ctx context.Context, namespace, name string) (*podv1.Pod, error) {
	var pod struct {
		described
		objects.PodDetails
	}
	c := &call{
		verb: "get pod", namespace: namespace, name: name,
		request: func(c *client) *rest.Request {
			return c.core.Get().Namespace(namespace).Resource("pods").Name(name)
		},
	}
	if err := a.get(ctx, c, &pod, &pod); err != nil {
		return nil, err
	}
	return pod.Of(pod.objectMeta()), nil
}

// NAD returns a NAD, with the same part of its metadata. It comes from the server's memory, as for
// an informer, and is as old as the server's watch is late. If it is not there, etcd is asked: a
// pod may come right after its NAD.
func (a *API) NAD(
	ctx context.Context, namespace, name string,
) (*nadv1.NetworkAttachmentDefinition, error) {
	nad, err := a.nadAt(ctx, namespace, name, "0")
	if apierrors.IsNotFound(err) && !unserved(err) {
		nad, err = a.nadAt(ctx, namespace, name, "")
	}
	return nad, unservedNAD(err)
}

// nadAt gets a NAD. With resourceVersion 0 the server answers from its memory, which may be late;
// with an empty one it asks etcd.
func (a *API) nadAt(
	ctx context.Context, namespace, name, resourceVersion string,
) (*nadv1.NetworkAttachmentDefinition, error) {
	var nad struct {
		described

		Spec nadv1.NetworkAttachmentDefinitionSpec `json:"spec"`
	}
	c := &call{
		verb: "get NAD", namespace: namespace, name: name,
		request: func(c *client) *rest.Request {
			return c.nads.Get().Namespace(namespace).Resource(nadv1.Resource).Name(name).
				VersionedParams(&metav1.GetOptions{ResourceVersion: resourceVersion}, metav1.ParameterCodec)
		},
	}
	if err := a.get(ctx, c, &nad, &nad); err != nil {
		return nil, err
	}
	return &nadv1.NetworkAttachmentDefinition{ObjectMeta: nad.objectMeta(), Spec: nad.Spec}, nil
}

// unservedNAD distinguishes a NAD that is not there from an API server that has never heard of
// NADs; to callers both are "not found".
func unservedNAD(err error) error {
	if !unserved(err) {
		return err
	}
	return &failure.Error{
		Reason: failure.NADNotFound,
		Err:    fmt.Errorf("the API server serves no %s.%s: %w", nadv1.Resource, nadv1.GroupName, err),
		Fix:    "install the CustomResourceDefinition of conf/crd",
	}
}

// unserved reports whether the server does not serve the resource at all: the path was not found,
// not the object.
func unserved(err error) bool {
	status, ok := errors.AsType[*apierrors.StatusError](err)
	return ok && apierrors.IsNotFound(err) &&
		apierrors.HasStatusCause(status, metav1.CauseTypeUnexpectedServerResponse)
}

// patchStep is an operation of a JSON patch (RFC 6902).
type patchStep struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// firstAnnotation returns the JSON patch of PublishStatus for a pod without annotations, which has
// no object to add one to. A test for null holds if the key is absent.
func firstAnnotation(pod *metav1.ObjectMeta, annotation string) []patchStep {
	const path = "/metadata/annotations"
	value := map[string]string{nadv1.StatusAnnotation: annotation}
	return []patchStep{{"test", "/metadata/uid", pod.UID}, {"test", path, nil}, {"add", path, value}}
}

// statusPatch returns the JSON patch for a pod with annotations. It applies only if the pod's uid
// and network-status are as in pod.
func statusPatch(pod *metav1.ObjectMeta, annotation string) []patchStep {
	path := "/metadata/annotations/" + strings.NewReplacer("~", "~0", "/", "~1").
		Replace(nadv1.StatusAnnotation)
	var known any
	if status, ok := pod.Annotations[nadv1.StatusAnnotation]; ok {
		known = status
	}
	return []patchStep{
		{"test", "/metadata/uid", pod.UID}, {"test", path, known}, {"add", path, annotation},
	}
}

// PublishStatus replaces the pod's network-status annotation by one PATCH of pods/status. Other
// annotations stay as they are; a pod that has got its first one meanwhile costs another PATCH. A
// patch that is sent again because its answer was lost is a conflict if it was applied.
func (a *API) PublishStatus(ctx context.Context, pod *metav1.ObjectMeta, annotation string) error {
	if err := objects.CheckUID("pod", pod); err != nil {
		return err
	}
	if len(pod.Annotations) == 0 {
		err := a.patchStatus(ctx, pod, firstAnnotation(pod, annotation))
		if !apierrors.IsConflict(err) {
			return err
		}
	}
	return a.patchStatus(ctx, pod, statusPatch(pod, annotation))
}

// patchStatus sends a JSON patch of a pod's status. A test in it that fails is a conflict.
func (a *API) patchStatus(ctx context.Context, pod *metav1.ObjectMeta, patch []patchStep) error {
	body, err := json.Marshal(patch)
	if err != nil {
		return fmt.Errorf("encode network-status: %w", err)
	}
	c := &call{
		verb: "publish network-status of pod", namespace: pod.Namespace, name: pod.Name,
		request: func(c *client) *rest.Request {
			return send(c.core.Patch(types.JSONPatchType).Namespace(pod.Namespace).Resource("pods").
				Name(pod.Name).SubResource("status").
				SetHeader("Accept", metadataType), body)
		},
	}
	_, err = a.do(ctx, c)
	return changedPod(err, pod)
}

// changedPod converts the answer to a patch whose tests fail, status 422 without a cause, to a
// conflict. With causes the patched object is invalid, for instance because its annotations are too
// long.
func changedPod(err error, pod *metav1.ObjectMeta) error {
	status, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok || !apierrors.IsInvalid(err) ||
		status.ErrStatus.Details != nil && len(status.ErrStatus.Details.Causes) > 0 {
		return err
	}
	conflict := apierrors.NewConflict(objects.PodResource(), pod.Name,
		fmt.Errorf("its uid is not %.80q any more, or its network-status is another", pod.UID))
	return fmt.Errorf("publish network-status of pod %s/%s: %w", pod.Namespace, pod.Name, conflict)
}

// Event records an event on the pod, which `kubectl describe pod` shows. The same words are
// recorded once per pod.
func (a *API) Event(
	ctx context.Context, pod *metav1.ObjectMeta, eventType, reason, message string,
) error {
	return a.event(ctx, objects.KindPod, pod, eventType, reason, message)
}

// NodeEvent records an event on the node. The same words are recorded once per node, as long as the
// API server keeps them.
func (a *API) NodeEvent(
	ctx context.Context, node *metav1.ObjectMeta, eventType, reason, message string,
) error {
	return a.event(ctx, objects.KindNode, node, eventType, reason, message)
}

// event records an event on an object. The same event again is no error.
func (a *API) event(
	ctx context.Context, kind string, of *metav1.ObjectMeta, eventType, reason, message string,
) error {
	ev, err := objects.NewEvent(kind, of, eventType, reason, message, a.opts.NodeName)
	if err != nil {
		return err
	}
	body, err := json.Marshal(ev)
	if err != nil {
		return fmt.Errorf("encode event: %w", err)
	}
	c := &call{
		verb: "record event", namespace: ev.Metadata.Namespace, name: ev.Metadata.Name,
		request: func(c *client) *rest.Request {
			return send(c.core.Post().Namespace(ev.Metadata.Namespace).Resource("events").
				SetHeader("Content-Type", runtime.ContentTypeJSON).SetHeader("Accept", metadataType), body)
		},
	}
	_, err = a.do(ctx, c)
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// named is an object that has been decoded.
type named interface {
	GetNamespace() string
	GetName() string
}

// get fetches an object into out. meta is out's own.
func (a *API) get(ctx context.Context, c *call, out any, meta named) error {
	body, err := a.do(ctx, c)
	if err != nil {
		return err
	}
	return a.decode(body, c, out, meta)
}

// decode reads an answer about one object. The answer must name the object: something other than an
// API server may answer every request with some JSON.
func (a *API) decode(body []byte, c *call, out any, meta named) error {
	if err := json.Unmarshal(body, out); err != nil {
		return a.strange(fmt.Errorf("decode answer: %w", err), c)
	}
	if meta.GetNamespace() != c.namespace || meta.GetName() != c.name {
		return a.strange(fmt.Errorf("the answer is about %.80q",
			meta.GetNamespace()+"/"+meta.GetName()), c)
	}
	return nil
}

// strange returns the error of an answer that no API server sends.
func (a *API) strange(err error, c *call) error {
	return &failure.Error{
		Reason: failure.APIUnavailable, Err: fmt.Errorf("%s: %w", c, err),
		Fix: "see that the server of " + a.origin() + " is a Kubernetes API server",
	}
}

// origin names, for messages, where the server's address comes from.
func (a *API) origin() string {
	if a.opts.Kubeconfig == "" {
		return "KUBERNETES_SERVICE_HOST"
	}
	return "kubeconfig " + a.opts.Kubeconfig
}
