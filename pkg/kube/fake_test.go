package kube

import (
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/uuid"

	claimv1 "github.com/braid-cni/braid/pkg/api/ipamclaim/v1alpha1"
	"github.com/braid-cni/braid/pkg/ipam/block/blocktest"
	"github.com/braid-cni/braid/pkg/kube/internal/sourcetest"
)

// fake is the API in memory that the allocator's simulation runs on.
type fake struct{ *blocktest.Fake }

func (f fake) CreateNode(_ *testing.T, name string) { f.AddNode(name, types.UID("uid-of-"+name)) }

func (f fake) CreateClaim(_ *testing.T, namespace, name string) {
	f.AddClaim(&claimv1.IPAMClaim{
		TypeMeta: metav1.TypeMeta{
			APIVersion: claimv1.GroupName + "/" + claimv1.Version, Kind: claimv1.Kind,
		},
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: uuid.NewUUID()},
		Spec: claimv1.IPAMClaimSpec{
			Network: "net", Interface: "net1", IPRequests: []string{"10.0.0.7/28"},
		},
	})
}

func (f fake) ReplaceClaim(t *testing.T, namespace, name string) {
	f.CreateClaim(t, namespace, name)
}

func (f fake) DeleteClaim(_ *testing.T, namespace, name string) { f.RemoveClaim(namespace, name) }

// The API in memory is held to the contract of the real ones.
func TestFakeIsAsTheRealOnes(t *testing.T) {
	f := fake{blocktest.New()}
	sourcetest.RunBlocks(t, f)
	sourcetest.RunNodes(t, f, f.CreateNode)
	sourcetest.RunClaims(t, f, f)
}
