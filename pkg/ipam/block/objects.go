package block

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	claimv1 "github.com/braid-cni/braid/pkg/api/ipamclaim/v1alpha1"
)

// The objects of the cluster that count for blocks, by who needs them. Implementations (pkg/kube):
// an API server, manifests on disk.
//
// Errors are those of k8s.io/apimachinery/pkg/api/errors: IsNotFound, IsAlreadyExists, IsConflict
// (it is another object or version by now). A write that fails otherwise may have taken effect.

// Reader reads blocks.
type Reader interface {
	Block(ctx context.Context, name string) (*v1alpha1.IPBlock, error)
	// Blocks knows the field selectors metadata.name, spec.space, spec.owner.nodeName and
	// spec.recall.by. With resourceVersion 0 the answer may lack the latest changes, and costs less.
	Blocks(ctx context.Context, opts metav1.ListOptions) ([]v1alpha1.IPBlock, error)
}

// Store reads and changes blocks.
type Store interface {
	Reader
	// CreateBlock makes a block that must not exist yet, and returns it as it is stored.
	// IsAlreadyExists means that somebody else, or another call, has made it; one without an owner
	// perhaps this call, where an answer was lost and the request repeated.
	CreateBlock(ctx context.Context, block *v1alpha1.IPBlock) (*v1alpha1.IPBlock, error)
	// UpdateBlock replaces the spec of exactly this version (uid and resourceVersion) of the block.
	UpdateBlock(ctx context.Context, block *v1alpha1.IPBlock) (*v1alpha1.IPBlock, error)
	// UpdateBlockStatus sets the status, whatever became of the spec.
	UpdateBlockStatus(ctx context.Context, block *v1alpha1.IPBlock) error
	// DeleteBlock removes exactly this version of the block.
	DeleteBlock(ctx context.Context, block *v1alpha1.IPBlock) error
}

// Nodes knows the nodes, which own blocks.
type Nodes interface {
	// Node returns the metadata of a Node object. A node that a controller takes for lost, whatever
	// else its object says, is an error.
	Node(ctx context.Context, name string) (*metav1.ObjectMeta, error)
	// NodeCount is about how many nodes the cluster has.
	NodeCount(ctx context.Context) (int, error)
}

// IPAMClaims knows the claims, which keep addresses beyond a container's life (Manager.Add).
type IPAMClaims interface {
	IPAMClaim(ctx context.Context, namespace, name string) (*claimv1.IPAMClaim, error)
	// SetIPAMClaimIPs publishes addresses, in CIDR form, and the status.ownerPod of this claim (uid).
	SetIPAMClaimIPs(ctx context.Context, claim *claimv1.IPAMClaim, ips []string) error
}
