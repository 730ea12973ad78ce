package kube

import (
	"context"
	"encoding/json"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	claimv1 "github.com/braid-cni/braid/pkg/api/ipamclaim/v1alpha1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/hostfile"
	"github.com/braid-cni/braid/pkg/kube/internal/objects"
	"github.com/braid-cni/braid/pkg/strictjson"
)

func nodeKind() schema.GroupVersionKind {
	return schema.GroupVersionKind{Version: "v1", Kind: "Node"}
}

// Node returns the metadata of a Node manifest; of a node that has none, what follows from its
// name.
func (m *Manifests) Node(ctx context.Context, name string) (*metav1.ObjectMeta, error) {
	if err := objects.CheckName(name); err != nil {
		return nil, fmt.Errorf("get node: %w", err)
	}
	node := metaManifest{ObjectMeta: metav1.ObjectMeta{Name: name}}
	all, err := readManifests(ctx, m.dir)
	if err != nil {
		return nil, err
	}
	err = m.findIn(all, nodeKind(), objects.NodeResource(), defaultSpace, name,
		failure.InvalidConfig, &node)
	if apierrors.IsNotFound(err) && len(all.broken) > 0 {
		// With another uid it would be another node, without its blocks.
		return nil, invalidManifests(fmt.Errorf("get node: %s", err.Error()),
			"correct or remove these files: the node may be in one of them")
	}
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, err
	}
	node.Namespace = ""
	if node.UID == "" {
		node.UID = derivedUID("", name)
	}
	return &node.ObjectMeta, nil
}

// NodeCount counts the Node manifests, but at least the one node that asks.
func (m *Manifests) NodeCount(ctx context.Context) (int, error) {
	all, err := readManifests(ctx, m.dir)
	if err != nil {
		return 0, err
	}
	count := 0
	for i := range all.objects {
		if all.objects[i].gvk == nodeKind() {
			count++
		}
	}
	return max(count, 1), nil
}

// claimStatus is what is published for a claim.
type claimStatus struct {
	UID    string                  `json:"uid"`
	Status claimv1.IPAMClaimStatus `json:"status"`
}

// IPAMClaim returns an IPAMClaim, with the status that was published for it.
func (m *Manifests) IPAMClaim(
	ctx context.Context, namespace, name string,
) (*claimv1.IPAMClaim, error) {
	if err := objects.CheckNames(namespace, name); err != nil {
		return nil, fmt.Errorf("get IPAMClaim: %w", err)
	}
	claim, err := m.claim(ctx, namespace, name)
	if err != nil {
		return nil, err
	}
	path := m.beside(&claim.ObjectMeta, claimSuffix)
	data, err := hostfile.Read(path, maxStatus)
	if missing(err) {
		return claim, nil
	}
	var published claimStatus
	if err == nil {
		err = strictjson.Decode(data, &published)
	}
	if err != nil {
		return nil, unreadable("addresses of IPAMClaim", namespace, name,
			fmt.Errorf("%s: %s", path, complaint(err)))
	}
	if published.UID == string(claim.UID) {
		claim.Status = published.Status
	}
	return claim, nil
}

// claim returns the claim as the manifest has it.
func (m *Manifests) claim(ctx context.Context, namespace, name string) (*claimv1.IPAMClaim, error) {
	claim := new(claimv1.IPAMClaim)
	gvk := schema.GroupVersionKind{
		Group: claimv1.GroupName, Version: claimv1.Version, Kind: claimv1.Kind,
	}
	err := m.find(ctx, gvk, objects.ClaimResource(), namespace, name, failure.InvalidConfig, claim)
	if err != nil {
		return nil, err
	}
	claim.Namespace = namespace
	if claim.UID == "" {
		claim.UID = derivedUID(namespace+"/"+claimv1.Resource, name) // no namespace's name has a slash
	}
	return claim, nil
}

// SetIPAMClaimIPs writes the addresses beside the manifests.
func (m *Manifests) SetIPAMClaimIPs(
	ctx context.Context, claim *claimv1.IPAMClaim, ips []string,
) error {
	if err := objects.CheckNames(claim.Namespace, claim.Name); err != nil {
		return fmt.Errorf("publish addresses: %w", err)
	}
	if err := objects.CheckUID("IPAMClaim", &claim.ObjectMeta); err != nil {
		return fmt.Errorf("publish addresses: %w", err)
	}
	data, err := json.Marshal(claimStatus{
		UID: string(claim.UID), Status: claimv1.IPAMClaimStatus{
			IPs: ips, OwnerPod: claim.Status.OwnerPod,
		},
	})
	if err != nil {
		return fmt.Errorf("encode addresses: %w", err)
	}
	return m.locked(ctx, func() error {
		current, err := m.claim(ctx, claim.Namespace, claim.Name)
		if err != nil {
			return err
		}
		if current.UID != claim.UID {
			return apierrors.NewConflict(objects.ClaimResource(), claim.Name,
				fmt.Errorf("its uid is %.80q and not %.80q", current.UID, claim.UID))
		}
		return m.write(m.beside(&claim.ObjectMeta, claimSuffix), append(data, '\n'))
	})
}
