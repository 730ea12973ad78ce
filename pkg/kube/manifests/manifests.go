package manifests

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	podv1 "github.com/braid-cni/braid/pkg/api/pod/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/kube/internal/objects"
)

const (
	statusSuffix = ".network-status.json"
	uidSuffix    = ".network-status.uid"
	eventsSuffix = ".events.jsonl"
	claimSuffix  = ".ipam-claim.json"
	maxStatus    = 256 << 10 // bytes: what an API server takes as annotations of one object
	maxEvents    = 100       // of one pod
	// bytes; a hundred events with the longest names and messages are a quarter of it
	maxEventsFile = 1 << 20
)

// Directory is a directory of manifests as source, for hosts without a cluster and for tests.
//
// Every regular file named *.yaml, *.yml or *.json, hidden ones excepted, holds Kubernetes objects:
// several documents, and Lists of objects. NADs, IPAMClaims and the metadata of Pods and Nodes are
// decoded strictly; of ResourceClaims and ResourceSlices is read which devices they name; other
// kinds are left alone. A namespace that is not given is "default"; a pod, node or claim without a
// uid gets one that follows from its name, and a node needs no manifest at all. The files are read
// by every call, so what is edited takes effect; they are never written.
//
// Beside them Braid writes, each file whole or not at all:
//
//	<namespace>_<pod>.network-status.json  the network-status annotation, word for word
//	<namespace>_<pod>.network-status.uid   the uid of its pod, if the manifest has one
//	<namespace>_<pod>.events.jsonl         the pod's last hundred events, a core/v1 Event a line
//	<namespace>_<claim>.ipam-claim.json    the status of an IPAMClaim, and the claim's uid
//	ipblocks/<name>.json                   an IPBlock; not read with the manifests
//
// The status and events of a pod stay when its manifest goes, as nobody tells Braid; whoever
// deletes the manifest deletes them.
type Directory struct {
	dir    string
	rename func(from, to string) error // os.Rename, except where a test has it fail
}

// New returns the source. The first call reads the directory, which a DEL does not need.
func New(dir string) (*Directory, error) {
	if !filepath.IsAbs(dir) {
		return nil, invalid(fmt.Errorf("is %.200q", dir), "make it an absolute path")
	}
	return &Directory{dir: dir, rename: os.Rename}, nil
}

// invalid returns the error that the directory of manifests cannot be used as it is.
func invalid(err error, fix string) error {
	return &failure.Error{Reason: failure.InvalidConfig, Field: "braid.manifests", Err: err, Fix: fix}
}

// Pod returns a pod, with the status that was published for it.
func (d *Directory) Pod(ctx context.Context, namespace, name string) (*podv1.Pod, error) {
	if err := objects.CheckNames(namespace, name); err != nil {
		return nil, fmt.Errorf("get pod: %w", err)
	}
	pod, err := d.pod(ctx, namespace, name)
	if err != nil {
		return nil, err
	}
	status, published, err := d.status(pod.Meta())
	if err != nil {
		return nil, unreadable("network-status of pod", namespace, name, err)
	}
	if published {
		pod.Annotations = maps.Clone(pod.Annotations)
		if pod.Annotations == nil {
			pod.Annotations = map[string]string{}
		}
		pod.Annotations[nadv1.StatusAnnotation] = status
	}
	return pod, nil
}

// metaManifest is a Pod or Node, of whose metadata all keys are known.
type metaManifest struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata"`

	Spec   json.RawMessage `json:"spec"`
	Status json.RawMessage `json:"status"`
}

// pod returns a pod as the manifest has it.
func (d *Directory) pod(ctx context.Context, namespace, name string) (*podv1.Pod, error) {
	var object metaManifest
	if err := d.find(ctx, podKind(), namespace, name, &object); err != nil {
		return nil, err
	}
	object.Namespace = namespace
	if object.UID == "" {
		object.UID = derivedUID(namespace, name)
	}
	var details objects.PodDetails
	for raw, out := range map[*json.RawMessage]any{
		&object.Spec: &details.Spec, &object.Status: &details.Status,
	} {
		if err := json.Unmarshal(*raw, out); len(*raw) > 0 && err != nil {
			return nil, &failure.Error{
				Reason: failure.InvalidAnnotation,
				Err:    fmt.Errorf("decode Pod %s/%s in %s: %w", namespace, name, d.dir, err),
				Fix:    "correct the manifest",
			}
		}
	}
	return details.Of(object.ObjectMeta), nil
}

// derivedUID returns the uid of a pod whose manifest gives none: a UUID of version 8, which is for
// such purposes (RFC 9562 s.5.8).
func derivedUID(namespace, name string) types.UID {
	sum := sha256.Sum256([]byte("braid manifests " + namespace + "/" + name))
	sum[6] = sum[6]&0x0f | 0x80
	sum[8] = sum[8]&0x3f | 0x80
	return types.UID(fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16]))
}

// NAD returns a network-attachment-definition.
func (d *Directory) NAD(
	ctx context.Context, namespace, name string,
) (*nadv1.NetworkAttachmentDefinition, error) {
	if err := objects.CheckNames(namespace, name); err != nil {
		return nil, fmt.Errorf("get NAD: %w", err)
	}
	nad := new(nadv1.NetworkAttachmentDefinition)
	if err := d.find(ctx, nadKind(), namespace, name, nad); err != nil {
		return nil, err
	}
	nad.Namespace = namespace
	return nad, nil
}

// PublishStatus writes the annotation beside the manifests. It does what an API server would: the
// pod has to be there, be the one that was given, and have the status that was given with it.
func (d *Directory) PublishStatus(
	ctx context.Context, pod *metav1.ObjectMeta, annotation string,
) error {
	if err := objects.CheckNames(pod.Namespace, pod.Name); err != nil {
		return fmt.Errorf("publish network-status: %w", err)
	}
	if err := objects.CheckUID("pod", pod); err != nil {
		return fmt.Errorf("publish network-status: %w", err)
	}
	if len(annotation) > maxStatus {
		return apierrors.NewRequestEntityTooLargeError(
			fmt.Sprintf("network-status has %d bytes, of at most %d", len(annotation), maxStatus))
	}
	return d.locked(ctx, func() error {
		current, err := d.pod(ctx, pod.Namespace, pod.Name)
		if err != nil {
			return err
		}
		if current.UID != pod.UID {
			return apierrors.NewConflict(objects.PodResource(), pod.Name,
				fmt.Errorf("its uid is %.80q and not %.80q", current.UID, pod.UID))
		}
		if !d.hasStatus(current.Meta(), pod.Annotations) {
			return apierrors.NewConflict(objects.PodResource(), pod.Name,
				errors.New("its network-status is another"))
		}
		return d.writeStatus(current.Meta(), annotation)
	})
}

// Event appends an event to the pod's, unless it is there.
func (d *Directory) Event(
	ctx context.Context, pod *metav1.ObjectMeta, eventType, reason, message string,
) error {
	ev, err := objects.NewEvent(objects.KindPod, pod, eventType, reason, message, "")
	if err != nil {
		return err
	}
	return d.locked(ctx, func() error { return d.appendEvent(pod, ev) })
}

// unreadable returns the error of a file that is not as Braid wrote it.
func unreadable(what, namespace, name string, err error) error {
	return &failure.Error{
		Reason: failure.APIUnavailable, Err: fmt.Errorf("read %s %s/%s: %w", what, namespace, name, err),
		Fix: "make the file readable, or remove it",
	}
}

// missing reports whether err means that there is no such file, also because none can have so long
// a name.
func missing(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENAMETOOLONG)
}
