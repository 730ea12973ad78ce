package resolve

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/nodeselect"
	"github.com/braid-cni/braid/pkg/plan"
)

// selected refuses networks of the pod's annotations whose NADs do not select this node. The node
// is asked for only if a NAD has a selector.
func (r *Resolver) selected(
	ctx context.Context, requests []plan.Request, definitions []plan.Definition,
) error {
	if r.ThisNode == nil || r.Elsewhere {
		return nil
	}
	var node *metav1.ObjectMeta
	for i, d := range definitions {
		if !selectsNodes(requests[i], d) {
			continue
		}
		if node == nil {
			var err error
			if node, err = r.ThisNode.ThisNode(ctx); err != nil {
				return failure.AtNAD(SourceError("get node", err), d.NAD.Namespace+"/"+d.NAD.Name)
			}
		}
		if err := nodeselect.Selected(&d.NAD.ObjectMeta, node); err != nil {
			return err
		}
	}
	return nil
}

// selectsNodes reports whether a network of the pod's annotations is that of a NAD with a selector.
func selectsNodes(request plan.Request, d plan.Definition) bool {
	return request.Selection != nil && d.NAD != nil &&
		d.NAD.Annotations[nadv1.NodeSelectorAnnotation] != ""
}
