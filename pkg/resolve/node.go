package resolve

import (
	"context"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/nodeid"
	"github.com/braid-cni/braid/pkg/nodeselect"
	"github.com/braid-cni/braid/pkg/plan"
)

// selected refuses networks of the pod's annotations whose NADs do not select this node. The node is
// asked for only if a NAD has a selector.
func (r *Resolver) selected(ctx context.Context, requests []plan.Request, definitions []plan.Definition) error {
	if r.Nodes == nil || r.Elsewhere {
		return nil
	}
	var node *metav1.ObjectMeta
	for i, d := range definitions {
		if requests[i].Selection == nil || d.NAD == nil || d.NAD.Annotations[nadv1.NodeSelectorAnnotation] == "" {
			continue
		}
		if node == nil {
			var err error
			if node, err = r.thisNode(ctx); err != nil {
				return failure.AtNAD(err, requests[i].Ref)
			}
		}
		if err := nodeselect.Selected(&d.NAD.ObjectMeta, node); err != nil {
			return err
		}
	}
	return nil
}

// thisNode returns the Node object of this machine.
func (r *Resolver) thisNode(ctx context.Context) (*metav1.ObjectMeta, error) {
	name := r.Node.NodeName
	if name == "" {
		var err error
		if name, err = nodeid.Hostname(); err != nil {
			return nil, err
		}
	}
	node, err := r.Nodes.Node(ctx, name)
	switch {
	case apierrors.IsNotFound(err), apierrors.IsBadRequest(err): // a hostname need not be a name of objects
		return nil, &failure.Error{
			Reason: failure.InvalidConfig, Field: "braid.nodeName", Err: err, Fix: "set it to the name of the Node object of this machine",
		}
	case err != nil:
		return nil, SourceError("get node", err)
	}
	return node, nil
}
