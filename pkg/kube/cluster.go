package kube

import (
	"context"
	"encoding/json"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	fieldselector "k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/rest"

	claimv1 "github.com/braid-cni/braid/pkg/api/ipamclaim/v1alpha1"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	wbv1 "github.com/braid-cni/braid/pkg/api/whereabouts/v1alpha1"
	"github.com/braid-cni/braid/pkg/kube/internal/objects"
)

// metadataList is the kind of the answer to metadataListType.
const metadataList = "PartialObjectMetadataList"

// listOf lists objects. With resourceVersion 0 it gets one answer from the server's memory, else
// pages of one state, which is never stale. T is the wanted part of each object; kind is the kind
// of the answer.
func listOf[T any](
	ctx context.Context, a *API, c *call, opts metav1.ListOptions, kind string,
) ([]T, error) {
	var items []T
	if opts.ResourceVersion != "0" {
		opts.Limit = pageSize
	}
	request := c.request
	c.scope = collection
	c.request = func(client *client) *rest.Request {
		return request(client).VersionedParams(&opts, metav1.ParameterCodec)
	}
	for {
		body, err := a.do(ctx, c)
		if apierrors.IsResourceExpired(err) && opts.Continue != "" {
			// the state that the pages are of is forgotten; all at once, then
			items, opts.Limit, opts.Continue = nil, 0, ""
			continue
		}
		if err != nil {
			return nil, err
		}
		page, err := decodePage[T](body, kind)
		if err != nil {
			return nil, a.strange(err, c)
		}
		items = append(items, page.Items...)
		if opts.Continue = page.Metadata.Continue; opts.Continue == "" {
			return items, nil
		}
		opts.ResourceVersion = "" // the token says it
	}
}

// wireList is a page of a list.
type wireList[T any] struct {
	metav1.TypeMeta `json:",inline"`
	Metadata        metav1.ListMeta `json:"metadata"`
	Items           []T             `json:"items"`
}

// decodePage decodes an answer, which is of a kind of list.
func decodePage[T any](body []byte, kind string) (page wireList[T], err error) {
	if err := json.Unmarshal(body, &page); err != nil {
		return page, fmt.Errorf("decode answer: %w", err)
	}
	if page.Kind != kind {
		return page, fmt.Errorf("the answer is a %.80q", page.Kind)
	}
	return page, nil
}

// wireMetadata is the metadata of an object, without who manages its fields.
type wireMetadata struct {
	Metadata struct {
		metav1.ObjectMeta

		ManagedFields skipped `json:"managedFields,omitzero"`
	} `json:"metadata"`
}

func metadataOf(items []wireMetadata) []metav1.ObjectMeta {
	list := make([]metav1.ObjectMeta, len(items))
	for i := range items {
		list[i] = items[i].Metadata.ObjectMeta
	}
	return list
}

// EachNode calls do for each node, with the keys of its taints. It fetches whole nodes, as an API
// server has no shorter form with taints.
func (a *API) EachNode(
	ctx context.Context, do func(node *metav1.ObjectMeta, taints []string),
) error {
	nodes, err := listOf[wireNode](ctx, a,
		&call{verb: "list nodes", request: func(c *client) *rest.Request {
			return c.core.Get().Resource("nodes")
		}}, metav1.ListOptions{}, "NodeList")
	for i := range nodes {
		do(&nodes[i].Metadata.ObjectMeta, nodes[i].taints())
	}
	return err
}

// podOn is a pod of a node.
type podOn struct {
	wireMetadata

	Spec struct {
		HostNetwork bool `json:"hostNetwork"`
	} `json:"spec"`
	Status struct {
		Phase string `json:"phase"`
		PodIP string `json:"podIP"`
	} `json:"status"`
}

// started reports whether the pod has a sandbox with a network.
func (p *podOn) started() bool { return p.Status.PodIP != "" && p.Status.Phase == "Running" }

// PodsOn returns the metadata of the pods that are bound to a node and not in its own network
// namespace.
func (a *API) PodsOn(ctx context.Context, node string) ([]metav1.ObjectMeta, error) {
	return a.podsOn(ctx, node, func(*podOn) bool { return true })
}

// StartedPodsOn returns those of them that run.
func (a *API) StartedPodsOn(ctx context.Context, node string) ([]metav1.ObjectMeta, error) {
	return a.podsOn(ctx, node, (*podOn).started)
}

// podsOn lists the metadata of the pods of a node that have a network of their own and are wanted.
func (a *API) podsOn(
	ctx context.Context, node string, wanted func(*podOn) bool,
) ([]metav1.ObjectMeta, error) {
	if err := objects.CheckName(node); err != nil {
		return nil, fmt.Errorf("list pods of node: %w", err)
	}
	pods, err := listOf[podOn](ctx, a,
		&call{verb: "list pods of node " + node, request: func(c *client) *rest.Request {
			return c.core.Get().Resource("pods")
		}}, metav1.ListOptions{
			FieldSelector: fieldselector.OneTermEqualSelector("spec.nodeName", node).String(),
		}, "PodList")
	var list []metav1.ObjectMeta
	for i := range pods {
		if !pods[i].Spec.HostNetwork && wanted(&pods[i]) {
			list = append(list, pods[i].Metadata.ObjectMeta)
		}
	}
	return list, err
}

// Pods returns the metadata of the pods of a namespace, of all for "".
func (a *API) Pods(ctx context.Context, namespace string) ([]metav1.ObjectMeta, error) {
	pods, err := listOf[wireMetadata](ctx, a,
		&call{verb: "list pods", request: func(c *client) *rest.Request {
			return c.core.Get().Namespace(namespace).Resource("pods").SetHeader("Accept", metadataListType)
		}}, metav1.ListOptions{}, metadataList)
	return metadataOf(pods), err
}

// NADs returns the NetworkAttachmentDefinitions of all namespaces.
func (a *API) NADs(ctx context.Context) ([]nadv1.NetworkAttachmentDefinition, error) {
	return listOf[nadv1.NetworkAttachmentDefinition](ctx, a,
		&call{verb: "list NADs", request: func(c *client) *rest.Request {
			return c.nads.Get().Resource(nadv1.Resource)
		}}, metav1.ListOptions{}, nadv1.Kind+"List")
}

// IPAMClaims returns the metadata of all IPAMClaims.
func (a *API) IPAMClaims(ctx context.Context) ([]metav1.ObjectMeta, error) {
	claims, err := listOf[wireMetadata](ctx, a,
		&call{verb: "list IPAMClaims", request: func(c *client) *rest.Request {
			return c.claims.Get().Resource(claimv1.Resource).SetHeader("Accept", metadataListType)
		}}, metav1.ListOptions{}, metadataList)
	return metadataOf(claims), unservedIPAM(err)
}

// IPPools returns the pools of whereabouts. Where the kind is not served, the error is IsNotFound.
func (a *API) IPPools(ctx context.Context) ([]wbv1.IPPool, error) {
	return listOf[wbv1.IPPool](ctx, a,
		&call{verb: "list IPPools", request: func(c *client) *rest.Request {
			return c.whereabouts.Get().Resource(wbv1.PoolResource)
		}}, metav1.ListOptions{}, wbv1.PoolKind+"List")
}

// Reservations returns the reservations of whereabouts. Where the kind is not served, the error is
// IsNotFound.
func (a *API) Reservations(ctx context.Context) ([]wbv1.OverlappingRangeIPReservation, error) {
	return listOf[wbv1.OverlappingRangeIPReservation](ctx, a,
		&call{verb: "list OverlappingRangeIPReservations", request: func(c *client) *rest.Request {
			return c.whereabouts.Get().Resource(wbv1.ReservationResource)
		}}, metav1.ListOptions{}, wbv1.ReservationKind+"List")
}
