package kube

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	claimv1 "github.com/braid-cni/braid/pkg/api/ipamclaim/v1alpha1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/kube/internal/objects"
)

// maxClaimTries bounds how often others may change a claim while its addresses are published.
const maxClaimTries = 5

// outOfService is the taint by which an administrator says that a node is down for good: its
// addresses go to others.
const outOfService = "node.kubernetes.io/out-of-service"

// wireNode is a node as far as it is looked at.
type wireNode struct {
	wireMetadata

	Spec struct {
		Taints []struct {
			Key string `json:"key"`
		} `json:"taints"`
	} `json:"spec"`
}

func (n *wireNode) taints() (keys []string) {
	for _, t := range n.Spec.Taints {
		keys = append(keys, t.Key)
	}
	return keys
}

// Node returns the metadata of a node. One that is out of service is an error: it must not take its
// blocks of addresses for its own.
func (a *API) Node(ctx context.Context, name string) (*metav1.ObjectMeta, error) {
	var node wireNode
	c := &call{
		verb: "get node", scope: clusterScoped, name: name,
		request: func(c *client) *rest.Request {
			return c.core.Get().Resource("nodes").Name(name)
		},
	}
	if err := a.get(ctx, c, &node, &node.Metadata.ObjectMeta); err != nil {
		return nil, err
	}
	if slices.Contains(node.taints(), outOfService) {
		return nil, &failure.Error{
			Reason: failure.NotReady, Field: outOfService,
			Err: fmt.Errorf("node %s has this taint, so its addresses are free to others", name),
			Fix: "remove the taint when the node is in service",
		}
	}
	return &node.Metadata.ObjectMeta, nil
}

// NodeCount asks for one node, and is told how many there are beside.
func (a *API) NodeCount(ctx context.Context) (int, error) {
	c := &call{verb: "count nodes", scope: collection, request: func(c *client) *rest.Request {
		return c.core.Get().Resource("nodes").Param("limit", "1").SetHeader("Accept", metadataListType)
	}}
	body, err := a.do(ctx, c)
	if err != nil {
		return 0, err
	}
	var page struct {
		metav1.TypeMeta `json:",inline"`
		Metadata        metav1.ListMeta `json:"metadata"`
		Items           []struct{}      `json:"items"`
	}
	if err := json.Unmarshal(body, &page); err != nil {
		return 0, a.strange(fmt.Errorf("decode answer: %w", err), c)
	}
	if page.Kind != "PartialObjectMetadataList" {
		return 0, a.strange(fmt.Errorf("the answer is a %.80q", page.Kind), c)
	}
	count := len(page.Items)
	if more := page.Metadata.RemainingItemCount; more != nil {
		count += int(*more)
	}
	return count, nil
}

// IPAMClaim returns an IPAMClaim.
func (a *API) IPAMClaim(ctx context.Context, namespace, name string) (*claimv1.IPAMClaim, error) {
	claim := new(claimv1.IPAMClaim)
	c := &call{
		verb: "get IPAMClaim", namespace: namespace, name: name,
		request: func(c *client) *rest.Request {
			return c.claims.Get().Namespace(namespace).Resource(claimv1.Resource).Name(name)
		},
	}
	if err := a.get(ctx, c, claim, &claim.ObjectMeta); err != nil {
		return nil, unservedIPAM(err)
	}
	return claim, nil
}

// SetIPAMClaimIPs sets two fields of the status; conditions, which are not ours, stay as they are.
// An API server looks at no uid in a PATCH of a custom resource's status, so the claim is read
// first, and the version is what must not have changed.
func (a *API) SetIPAMClaimIPs(ctx context.Context, claim *claimv1.IPAMClaim, ips []string) error {
	if err := objects.CheckUID("IPAMClaim", &claim.ObjectMeta); err != nil {
		return fmt.Errorf("publish addresses: %w", err)
	}
	for tries := 1; ; tries++ {
		current, err := a.IPAMClaim(ctx, claim.Namespace, claim.Name)
		if err != nil {
			return err
		}
		if current.UID != claim.UID {
			return apierrors.NewConflict(objects.ClaimResource(), claim.Name,
				fmt.Errorf("its uid is %.80q and not %.80q", current.UID, claim.UID))
		}
		err = a.patchClaim(ctx, current, ips, claim.Status.OwnerPod)
		if !apierrors.IsConflict(err) || tries == maxClaimTries {
			return err
		}
	}
}

// patchClaim sets addresses and owner of a claim, if it is still the version that was read.
func (a *API) patchClaim(
	ctx context.Context, current *claimv1.IPAMClaim, ips []string, pod string,
) error {
	var patch struct {
		Metadata struct {
			ResourceVersion string `json:"resourceVersion"`
		} `json:"metadata"`
		Status struct {
			IPs      []string `json:"ips"`
			OwnerPod string   `json:"ownerPod"`
		} `json:"status"`
	}
	patch.Metadata.ResourceVersion = current.ResourceVersion
	// the schema demands both
	patch.Status.IPs, patch.Status.OwnerPod = append([]string{}, ips...), pod
	body, err := json.Marshal(&patch)
	if err != nil {
		return fmt.Errorf("encode addresses: %w", err)
	}
	_, err = a.do(ctx, &call{
		verb: "publish addresses of IPAMClaim", namespace: current.Namespace, name: current.Name,
		request: func(c *client) *rest.Request {
			return send(c.claims.Patch(types.MergePatchType).Namespace(current.Namespace).
				Resource(claimv1.Resource).Name(current.Name).
				SubResource("status").SetHeader("Accept", metadataType), body)
		},
	})
	return unservedIPAM(err)
}
