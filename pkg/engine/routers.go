package engine

import (
	"context"
	"fmt"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/plan"
)

// refuseRouters keeps the routers of a secondary network from taking the pod's IPv6 default route
// by advertisements. Those of the default network, and of one where the pod asks for the default
// route, may.
func (e *Engine) refuseRouters(ctx context.Context, req *Request, a *plan.Attachment, result types.Result) error {
	if a.Default || a.WantsDefaultRoute {
		return nil
	}
	links := []string{a.IfName}
	if converted, err := types100.NewResultFromResult(result); err == nil {
		for _, i := range converted.Interfaces {
			if i.Sandbox != "" && i.Name != "" && i.Name != a.IfName && i.Name != req.IfName {
				links = append(links, i.Name)
			}
		}
	}
	err := e.trace("refuse routers "+a.IfName, func() error { return e.Interiors.RefuseDefaultRouters(ctx, req.NetNS, links) })
	if err != nil {
		return &failure.Error{
			Reason: failure.StateFailed, NAD: a.Name, Interface: a.IfName, Err: fmt.Errorf("refuse default routes of router advertisements: %w", err),
		}
	}
	return nil
}
