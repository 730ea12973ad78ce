package manifests

import (
	"context"
	"encoding/json"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	claimv1 "github.com/braid-cni/braid/pkg/api/ipamclaim/v1alpha1"
	"github.com/braid-cni/braid/pkg/hostfile"
	"github.com/braid-cni/braid/pkg/kube/internal/objects"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// Node returns the metadata of a Node manifest; of a node that has none, what follows from its
// name.
func (d *Directory) Node(ctx context.Context, name string) (*metav1.ObjectMeta, error) {
	if err := objects.CheckName(name); err != nil {
		return nil, fmt.Errorf("get node: %w", err)
	}
	node := metaManifest{ObjectMeta: metav1.ObjectMeta{Name: name}}
	all, err := readDirectory(ctx, d.dir)
	if err != nil {
		return nil, err
	}
	err = d.findIn(all, nodeKind(), defaultSpace, name, &node)
	if apierrors.IsNotFound(err) && len(all.broken) > 0 {
		// With another uid it would be another node, without its blocks.
		return nil, invalid(fmt.Errorf("get node: %s", err.Error()),
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

// Namespace returns the metadata of a Namespace manifest.
func (d *Directory) Namespace(ctx context.Context, name string) (*metav1.ObjectMeta, error) {
	if err := objects.CheckName(name); err != nil {
		return nil, fmt.Errorf("get namespace: %w", err)
	}
	var namespace metaManifest
	if err := d.find(ctx, namespaceKind(), defaultSpace, name, &namespace); err != nil {
		return nil, err
	}
	return &metav1.ObjectMeta{Name: name, Labels: namespace.Labels}, nil
}

// NodeCount counts the Node manifests, but at least the one node that asks.
func (d *Directory) NodeCount(ctx context.Context) (int, error) {
	all, err := readDirectory(ctx, d.dir)
	if err != nil {
		return 0, err
	}
	count := 0
	for i := range all.objects {
		if all.objects[i].gvk == nodeKind().GroupVersionKind {
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
func (d *Directory) IPAMClaim(
	ctx context.Context, namespace, name string,
) (*claimv1.IPAMClaim, error) {
	if err := objects.CheckNames(namespace, name); err != nil {
		return nil, fmt.Errorf("get IPAMClaim: %w", err)
	}
	claim, err := d.claim(ctx, namespace, name)
	if err != nil {
		return nil, err
	}
	path := d.beside(&claim.ObjectMeta, claimSuffix)
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
func (d *Directory) claim(ctx context.Context, namespace, name string) (*claimv1.IPAMClaim, error) {
	claim := new(claimv1.IPAMClaim)
	if err := d.find(ctx, ipamClaimKind(), namespace, name, claim); err != nil {
		return nil, err
	}
	claim.Namespace = namespace
	if claim.UID == "" {
		claim.UID = derivedUID(namespace+"/"+claimv1.Resource, name) // no namespace's name has a slash
	}
	return claim, nil
}

// SetIPAMClaimIPs writes the addresses beside the manifests.
func (d *Directory) SetIPAMClaimIPs(
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
	return d.locked(ctx, func() error {
		current, err := d.claim(ctx, claim.Namespace, claim.Name)
		if err != nil {
			return err
		}
		if current.UID != claim.UID {
			return apierrors.NewConflict(objects.ClaimResource(), claim.Name,
				fmt.Errorf("its uid is %.80q and not %.80q", current.UID, claim.UID))
		}
		return d.write(d.beside(&claim.ObjectMeta, claimSuffix), append(data, '\n'))
	})
}
