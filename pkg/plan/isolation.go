package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/selection"
	"github.com/braid-cni/braid/pkg/weaken"
)

// checkIsolation lets a pod use the NADs of its own namespace and of the global ones. A NAD is full
// access to a network, so this is a boundary between tenants, not a convenience.
func checkIsolation(policy *conf.Policy, podNamespace string, s selection.Selection) error {
	if weaken.Off(weaken.Isolation) || !policy.NamespaceIsolation || s.Namespace == podNamespace ||
		slices.Contains(policy.GlobalNamespaces, s.Namespace) {
		return nil
	}
	global := "no namespace is global"
	if len(policy.GlobalNamespaces) > 0 {
		global = "global are: " + strings.Join(policy.GlobalNamespaces, ", ")
	}
	return &failure.Error{
		Reason: failure.NADForbidden, NAD: s.Namespace + "/" + s.Name,
		Err: fmt.Errorf("a pod of namespace %s may use NADs of its own namespace and of global ones "+
			"only (%s)", podNamespace, global),
		Fix: fmt.Sprintf("create the NAD in namespace %s, or let the operator add %s to globalNamespaces",
			podNamespace, s.Namespace),
	}
}
