package plan

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/pkg/attachment"
)

// limits returns those of an attachment; nil where the operator wrote its configuration: in Braid's
// own, on disk, or as a NAD that Braid's own names or of an operator's namespace. A NAD without a
// configuration has the operator's, from disk.
func (in *Input) limits(r Request, def Definition) *attachment.Limits {
	if def.NAD == nil || r.Selection == nil || !HasConfig(def.NAD) || in.operates(def.NAD.Namespace) {
		return nil
	}
	return &attachment.Limits{Namespace: def.NAD.Namespace}
}

// operates reports whether the NADs of a namespace are the operator's: those that every pod may
// use are.
func (in *Input) operates(namespace string) bool {
	return namespace == metav1.NamespaceSystem || namespace == in.Node.MultusNamespace ||
		slices.Contains(in.Policy.GlobalNamespaces, namespace)
}
