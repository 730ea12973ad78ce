package engine

import (
	"context"
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/plan"
)

// routing is what becomes of the default routes that secondary networks bring and the pod did not
// ask for, during one ADD ("secondaryDefaultRoute"). What is in a configuration is left out before
// the plugins see it. Plugins that are exec'd may do anything, so the kernel is asked after them.
type routing struct {
	*work

	// routes are the pod's default routes; nil where they are to be looked up.
	routes DefaultRoutes
	// watched is true if the attachment which is being made may bring default routes that its
	// configuration does not show.
	watched bool
	// unguarded are links whose routers may still take the default route.
	unguarded []string
}

// policy is the node's "secondaryDefaultRoute", one of the values in pkg/conf.
func (r *routing) policy() string { return r.Policy.SecondaryDefaultRoute }

// before prepares an attachment. It may change its configuration, and add warnings.
func (r *routing) before(ctx context.Context, a *plan.Attachment) error {
	r.watched = false
	if a.Default {
		return nil
	}
	configured, err := a.DefaultRoutes()
	if err != nil {
		return err
	}
	r.watched = a.Execd
	if configured == 0 && !r.watched {
		return nil
	}
	if r.policy() == conf.TakeDefaultRoute {
		r.watched = r.watched || configured&plan.IPv6 != 0
		return nil
	}
	if err := r.lookUp(ctx, a); err != nil {
		return err
	}
	return r.leaveOut(a, configured)
}

// lookUp lists the pod's default routes, if they are not known, before the attachment is made.
func (r *routing) lookUp(ctx context.Context, a *plan.Attachment) (err error) {
	if r.routes != nil {
		return nil
	}
	if err := r.refuseRouters(ctx); err != nil {
		return err
	}
	if r.routes, err = r.Interiors.DefaultRoutes(ctx, r.req.NetNS); err != nil {
		return defaultRoutesFailed(a, "list default routes", err)
	}
	return nil
}

// leaveOut takes the configured default routes of families for which the pod has one out of the
// attachment's configuration.
func (r *routing) leaveOut(a *plan.Attachment, configured plan.Families) error {
	held := plan.FamiliesOf(r.routes.Families())
	if configured&held != 0 {
		rest, err := a.LeaveOut(held)
		if err != nil {
			return err
		}
		r.watched = r.watched || rest != 0
	}
	if configured&^held != 0 && !r.watched {
		r.routes = nil // it will have more
	}
	return nil
}

// after looks at what an attachment brought. The result that it returns has no default route that
// the pod does not have.
func (r *routing) after(
	ctx context.Context, a *plan.Attachment, result types.Result,
) (types.Result, error) {
	if !r.watched {
		return result, nil
	}
	if err := r.refuseRouters(ctx); err != nil {
		return nil, err
	}
	if r.policy() == conf.TakeDefaultRoute {
		return result, r.prefer(ctx, a)
	}
	held := plan.FamiliesOf(r.routes.Families()) &^ a.AskedFamilies()
	var removed plan.Families
	err := r.trace("keep default route "+a.IfName, func() error {
		v4, v6, err := r.routes.Keep(ctx, a.IfName, held&plan.IPv4 != 0, held&plan.IPv6 != 0)
		removed = plan.FamiliesOf(v4, v6)
		return err
	})
	switch {
	case err != nil:
		return nil, defaultRoutesFailed(a, "keep the default route", err)
	case removed == 0, a.SourceRouted():
		return result, nil
	case r.policy() == conf.RefuseDefaultRoute:
		return nil, defaultRouteRefused(a, removed)
	}
	a.Warnings = append(a.Warnings, a.DefaultRouteKept(removed))
	return withoutDefaultRoutes(result, removed)
}

// prefer removes the IPv6 default routes of other links if the attachment's link has any.
func (r *routing) prefer(ctx context.Context, a *plan.Attachment) error {
	err := r.trace("prefer default route "+a.IfName, func() error {
		return r.Interiors.PreferDefaultRoute(ctx, r.req.NetNS, a.IfName)
	})
	if err != nil {
		return defaultRoutesFailed(a, "prefer the network's default route", err)
	}
	return nil
}

// defaultRouteRefused is the error of a network that brings default routes against the policy.
func defaultRouteRefused(a *plan.Attachment, brought plan.Families) error {
	return &failure.Error{
		Reason: failure.DefaultRouteRefused, NAD: a.Name, Interface: a.IfName,
		Err: fmt.Errorf("the network brings an %s default route, but the pod's stays on the default "+
			"network unless the pod asks", brought),
		Fix: `let the pod ask with "default-route": [] for this network, or have the network bring none`,
	}
}

// withoutDefaultRoutes returns a result, in its version, without default routes of the main table
// of these families.
func withoutDefaultRoutes(result types.Result, families plan.Families) (types.Result, error) {
	full, err := types100.NewResultFromResult(result)
	if err != nil {
		return nil, fmt.Errorf("read result: %w", err)
	}
	var routes []*types.Route
	for _, route := range full.Routes {
		ones, _ := route.Dst.Mask.Size()
		is := plan.FamiliesOf(route.Dst.IP.To4() != nil, route.Dst.IP.To4() == nil)
		if ones != 0 || is&families == 0 ||
			route.Table != nil && *route.Table != 0 && *route.Table != mainTable {
			routes = append(routes, route)
		}
	}
	full.Routes = routes
	return full.GetAsVersion(result.Version())
}

// mainTable is the number of the main routing table.
const mainTable = 254

// defaultRoutesFailed names the attachment in the error of what was done to the pod's default
// routes for it.
func defaultRoutesFailed(a *plan.Attachment, what string, err error) error {
	if fe, ok := errors.AsType[*failure.Error](err); ok {
		named := *fe
		named.NAD, named.Interface = a.Name, a.IfName
		return &named
	}
	return &failure.Error{
		Reason: failure.DefaultRouteFailed, NAD: a.Name, Interface: a.IfName,
		Err: fmt.Errorf("%s: %w", what, err),
	}
}
