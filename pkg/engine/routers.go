package engine

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/weaken"
)

// open notes the links of a secondary network, whose routers may still take the pod's IPv6 default
// route by advertisements. Those of the default network, and of one where the pod asks for the
// default route, may do so.
func (r *routing) open(a *plan.Attachment, result types.Result) {
	if a.Default || a.WantsDefaultRoute || weaken.Off(weaken.Routers) {
		return
	}
	r.unguarded = append(r.unguarded, a.IfName)
	converted, err := types100.NewResultFromResult(result)
	if err != nil {
		return // the interface of the request is known at least
	}
	named := []string{"", a.IfName, r.req.IfName}
	for _, i := range converted.Interfaces {
		if i.Sandbox != "" && !slices.Contains(named, i.Name) {
			r.unguarded = append(r.unguarded, i.Name)
		}
	}
}

// refuseRouters keeps routers on the links that were noted from taking the default route. It visits
// the pod once for all of them.
func (r *routing) refuseRouters(ctx context.Context) error {
	links := r.unguarded
	if len(links) == 0 {
		return nil
	}
	r.unguarded = nil
	err := r.trace("refuse routers", func() error {
		return r.Interiors.RefuseDefaultRouters(ctx, r.req.NetNS, links)
	})
	if err != nil {
		return &failure.Error{
			Reason: failure.StateFailed, Interface: strings.Join(links, ", "),
			Err: fmt.Errorf("refuse default routes of router advertisements: %w", err),
		}
	}
	return nil
}
