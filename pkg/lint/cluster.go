package lint

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	podv1 "github.com/braid-cni/braid/pkg/api/pod/v1"
	"github.com/braid-cni/braid/pkg/resolve"
)

// Cluster has all that pods and their networks are made of.
type Cluster interface {
	resolve.Source
	NADs(ctx context.Context) ([]nadv1.NetworkAttachmentDefinition, error)
	// Pods returns the metadata of the pods of a namespace, of all if it is empty.
	Pods(ctx context.Context, namespace string) ([]metav1.ObjectMeta, error)
}

// AddCluster adds all NADs and pods of a cluster, which is asked for what else it has later on.
func (in *Input) AddCluster(ctx context.Context, from Cluster) error {
	nads, err := from.NADs(ctx)
	if err != nil {
		return err
	}
	pods, err := from.Pods(ctx, "")
	if err != nil {
		return err
	}
	in.Source, in.Complete = from, true
	for _, n := range nads {
		in.NADs = append(in.NADs, NAD{NetworkAttachmentDefinition: n})
	}
	for _, p := range pods {
		in.Pods = append(in.Pods, Pod{Kind: "Pod", Pod: podv1.Pod{ObjectMeta: p, MetaOnly: true}})
	}
	return nil
}
