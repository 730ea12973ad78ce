// Package admit judges pods, NADs and the pod templates of workloads when they are written to the
// API server, so that a mistake is seen by who makes it, and not by a pod that does not start.
//
// Contract: pure but for its Cluster, which it only reads. A pod is judged by the code of an ADD
// (pkg/resolve), so that nothing is denied here that a node would attach, but for what only the
// scheduler can keep: a pod whose networks exclude every node. What a node would find out by itself
// (links, free addresses, devices) is not judged, and the node judges anew what was admitted.
// "Not known" is a Verdict of its own, never a denial. A denial names object, field and remedy.
package admit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"

	admissionv1 "k8s.io/api/admission/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	podv1 "github.com/braid-cni/braid/pkg/api/pod/v1"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/resolve"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// Cluster is what is asked about the cluster. Errors are those of a resolve.Source.
type Cluster interface {
	NAD(ctx context.Context, namespace, name string) (*nadv1.NetworkAttachmentDefinition, error)
	NADs(ctx context.Context) ([]nadv1.NetworkAttachmentDefinition, error)
	Namespace(ctx context.Context, name string) (*metav1.ObjectMeta, error)
	Node(ctx context.Context, name string) (*metav1.ObjectMeta, error)
	// Pods returns the metadata of the pods of a namespace, of all if it is empty.
	Pods(ctx context.Context, namespace string) ([]metav1.ObjectMeta, error)
}

// Nodes is what is known of all nodes: their configuration, and what judges the plugins that they
// have. It does not change.
type Nodes struct {
	Config *conf.Config
	Finder resolve.Finder
}

// Reviewer is safe for concurrent use.
type Reviewer struct {
	Cluster Cluster
	// Nodes returns the present configuration of the nodes.
	Nodes func() (Nodes, error)
}

// Verdict is what becomes of a request.
type Verdict struct {
	// Denied is why it is denied; nil if it is not. Unknown is why that cannot be said: the API
	// server or the nodes' configuration could not be read.
	Denied, Unknown error
	// Warnings are told to who made the request.
	Warnings []*failure.Error
	// Patch is a JSON patch (RFC 6902) of the object; empty for none.
	Patch []byte
}

// deny adds an error: a denial, or that something is not known.
func (v *Verdict) deny(err error) {
	switch reason := failure.ReasonOf(err); {
	case err == nil:
	case reason == failure.APIUnavailable || reason == failure.TimedOut || reason == failure.NotReady:
		v.Unknown = cmp.Or(v.Unknown, err)
	default:
		v.Denied = cmp.Or(v.Denied, err)
	}
}

func (v *Verdict) warn(all ...*failure.Error) { v.Warnings = append(v.Warnings, all...) }

// Reason is the class of the denial, "Unknown", or empty.
func (v *Verdict) Reason() string {
	switch {
	case v.Denied != nil:
		return cmp.Or(string(failure.ReasonOf(v.Denied)), "Denied")
	case v.Unknown != nil:
		return "Unknown"
	}
	return ""
}

// Bounds of what API servers pass on to clients: of longer warnings they pass on the beginning, of
// more than 4096 bytes together nothing.
const (
	maxWarnings = 12
	maxWarning  = 256
)

// Response returns the verdict as an API server takes it.
func (v *Verdict) Response(req *admissionv1.AdmissionRequest) *admissionv1.AdmissionResponse {
	r := &admissionv1.AdmissionResponse{UID: req.UID, Allowed: v.Denied == nil && v.Unknown == nil}
	for _, w := range v.Warnings[:min(len(v.Warnings), maxWarnings)] {
		r.Warnings = append(r.Warnings, cut(strictjson.Printable(w.Error())))
	}
	switch {
	case v.Denied != nil:
		r.Result = status(req, v.Denied, metav1.StatusReasonForbidden, http.StatusForbidden)
	case v.Unknown != nil:
		r.Result = status(req, v.Unknown, metav1.StatusReasonServiceUnavailable,
			http.StatusServiceUnavailable)
	case len(v.Patch) > 0:
		kind := admissionv1.PatchTypeJSONPatch
		r.Patch, r.PatchType = v.Patch, &kind
	}
	return r
}

// cut shortens a warning, at the end of a character.
func cut(text string) string {
	if len(text) <= maxWarning {
		return text
	}
	return strings.ToValidUTF8(text[:maxWarning-3], "") + "..."
}

// status is a denial for clients: a text for people, the field and the class for programs.
func status(
	req *admissionv1.AdmissionRequest, err error, reason metav1.StatusReason, code int32,
) *metav1.Status {
	cause := metav1.StatusCause{
		Type: metav1.CauseType(failure.ReasonOf(err)), Message: strictjson.Printable(err.Error()),
	}
	if fe, ok := errors.AsType[*failure.Error](err); ok {
		cause.Field = fe.Field
	}
	text := fmt.Sprintf("%s %s: %s", strings.ToLower(req.Kind.Kind), nameOf(req), cause.Message)
	return &metav1.Status{
		Status: metav1.StatusFailure, Message: text, Reason: reason, Code: code,
		Details: &metav1.StatusDetails{
			Name: req.Name, Kind: req.Kind.Kind, Causes: []metav1.StatusCause{cause},
		},
	}
}

// nameOf names the object of a request, which may get its name later.
func nameOf(req *admissionv1.AdmissionRequest) string {
	return strings.TrimSuffix(req.Namespace+"/"+req.Name, "/")
}

// Review judges a request about any of the kinds that this package knows; others are allowed.
func (r *Reviewer) Review(ctx context.Context, req *admissionv1.AdmissionRequest) *Verdict {
	v := &Verdict{}
	nodes, err := r.Nodes()
	if err != nil {
		v.Unknown = fmt.Errorf("read the configuration of the nodes: %w", err)
		return v
	}
	one := &review{
		Nodes: nodes, req: req, source: &source{
			Cluster: r.Cluster, nads: map[string]*nadv1.NetworkAttachmentDefinition{},
		}, Verdict: v,
	}
	switch {
	case req.Kind.Kind == "Pod" && req.Operation == admissionv1.Create:
		one.pod(ctx)
	case req.Kind.Kind == nadv1.Kind && req.Operation == admissionv1.Delete:
		one.nadGone(ctx)
	case req.Kind.Kind == nadv1.Kind:
		one.nad(ctx)
	case slices.Contains(workloads(), req.Kind.Kind):
		one.workload(ctx)
	}
	return v
}

// Kinds are those that are judged.
func Kinds() []string { return append(workloads(), "Pod", nadv1.Kind) }

// review is that of one request.
type review struct {
	Nodes
	*Verdict

	req    *admissionv1.AdmissionRequest
	source *source
}

// source is the cluster as a resolve.Source, which keeps the NADs that were asked for: they are the
// same for all that is judged of one request.
type source struct {
	Cluster

	mu   sync.Mutex
	nads map[string]*nadv1.NetworkAttachmentDefinition
}

// NAD implements resolve.Source.
func (s *source) NAD(
	ctx context.Context, namespace, name string,
) (*nadv1.NetworkAttachmentDefinition, error) {
	key := namespace + "/" + name
	if known := s.known(key); known != nil {
		return known, nil
	}
	nad, err := s.Cluster.NAD(ctx, namespace, name)
	if err == nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.nads[key] = nad
	}
	return nad, err
}

// known returns a NAD that was asked for, by "namespace/name"; nil for none.
func (s *source) known(key string) *nadv1.NetworkAttachmentDefinition {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.nads[key]
}

// Pod implements resolve.Source. There is none yet.
func (s *source) Pod(_ context.Context, _, name string) (*podv1.Pod, error) {
	return nil, apierrors.NewNotFound(schema.GroupResource{Resource: "pods"}, name)
}
