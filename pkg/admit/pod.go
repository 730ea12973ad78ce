package admit

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	podv1 "github.com/braid-cni/braid/pkg/api/pod/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/policy"
	"github.com/braid-cni/braid/pkg/resolve"
	"github.com/braid-cni/braid/pkg/selection"
)

// pod judges a pod, and changes it so that the scheduler knows what its networks need.
func (r *review) pod(ctx context.Context) {
	var pod corev1.Pod
	if err := json.Unmarshal(r.req.Object.Raw, &pod); err != nil {
		r.Denied = fmt.Errorf("decode the pod: %w", err)
		return
	}
	changes := r.judge(ctx, pod.ObjectMeta, &pod.Spec)
	if r.Denied != nil || r.Unknown != nil {
		return
	}
	patch, err := changes.patch(r.req.Object.Raw)
	if err != nil {
		r.Denied = err
		return
	}
	r.Patch = patch
}

// judge judges a pod of the request's namespace, or what a template makes, and returns how it would
// have to be changed.
func (r *review) judge(ctx context.Context, meta metav1.ObjectMeta, spec *corev1.PodSpec) *changes {
	meta.Namespace = r.req.Namespace
	c := &changes{}
	r.deny(c.wantPodInfo(meta.Annotations))
	resolver := &resolve.Resolver{
		Node: &r.Config.Node, Policy: &r.Config.Policy, Source: r.source, Elsewhere: true,
	}
	pod := &podv1.Pod{ObjectMeta: meta, MetaOnly: true}
	expected, judged, err := resolver.Expect(ctx, resolve.Any(&r.Config.Call), pod, r.Finder, nil)
	r.deny(err)
	for i := range judged {
		// of the rest the NAD's author was warned, and the pod gets an event
		if judged[i].Effect == policy.Enforce {
			r.deny(judged[i].Failure())
		}
	}
	var nads []attached // as often as the pod has them
	for i := range expected {
		r.warn(expected[i].Warnings...)
		if nad := r.source.known(expected[i].Name); nad != nil && expected[i].Origin != nil {
			nads = append(nads, attached{nad, expected[i].Origin.Selection})
		}
	}
	if r.Denied != nil || r.Unknown != nil {
		return c
	}
	r.deny(r.place(ctx, c, spec, nads))
	r.warn(c.devices(spec, nads)...)
	c.rooms(spec, nads)
	return c
}

// attached is a NAD that the pod has, and what of its annotation asks for it.
type attached struct {
	*nadv1.NetworkAttachmentDefinition

	selection *selection.Selection
}

// place finds out on which nodes the pod may run.
func (r *review) place(
	ctx context.Context, c *changes, spec *corev1.PodSpec, nads []attached,
) error {
	demands, err := demandsOf(nads)
	if err != nil || len(demands) == 0 {
		return err
	}
	if err := compatible(demands, spec); err != nil {
		return err
	}
	if spec.NodeName != "" {
		if err := r.bound(ctx, spec.NodeName, demands); err != nil {
			return err
		}
	}
	c.demands = demands
	return nil
}

// demandsOf returns what NADs demand of nodes, each NAD once.
func demandsOf(nads []attached) (demands []demand, err error) {
	for _, nad := range nads {
		name := nad.Namespace + "/" + nad.Name
		if slices.ContainsFunc(demands, func(d demand) bool { return d.nad == name }) {
			continue
		}
		d, err := demandOf(nad.NetworkAttachmentDefinition)
		if err != nil {
			return nil, err
		}
		if len(d.needs) > 0 {
			demands = append(demands, d)
		}
	}
	return demands, nil
}

// changes are those of a pod.
type changes struct {
	demands   []demand
	resources map[string]int64 // how much more, by resource
	podInfo   bool
}

// PodInfoAnnotation on a pod has its annotations, and so its network-status, mounted in its
// containers, as files of PodInfoPath.
const (
	PodInfoAnnotation = "braid-cni.io/podnetinfo"
	PodInfoPath       = "/etc/podnetinfo"
)

// wantPodInfo reads PodInfoAnnotation.
func (c *changes) wantPodInfo(annotations map[string]string) error {
	switch value := strings.TrimSpace(annotations[PodInfoAnnotation]); value {
	case "true":
		c.podInfo = true
	case "", "false":
	default:
		return &failure.Error{
			Reason: failure.InvalidAnnotation, Field: "metadata.annotations." + PodInfoAnnotation,
			Err: fmt.Errorf("%.40q is neither true nor false", value),
			Fix: `make it "true" to have network-status in ` + PodInfoPath,
		}
	}
	return nil
}
