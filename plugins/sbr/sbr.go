// Package sbr routes what a pod sends from an address by the interface that has the address,
// whatever the destination: source based routing. It follows the plugin that makes the interface.
//
// Contract: plugin.Interface. Each address of the interface gets a routing table and a rule that
// leads to it; the interface's routes move there from the main table. ADDs of several interfaces of
// a pod wait for each other, also across processes: they choose from the same tables. Rules carry a
// protocol of the plugin's own, so that DEL finds them whatever it is told: by the interface's
// addresses, by where the routes of their table lead, or because both are gone. It empties the
// tables of an interface that stays.
package sbr

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/nl"
	"github.com/braid-cni/braid/pkg/plugin"
)

// firstTable is the number from which on tables are chosen.
const firstTable = 100

// The protocol of a rule says that it was made here, and whose its table is. Both numbers are
// arbitrary: nobody else has them in iproute2's list.
const (
	toOwnTable   = 176
	toGivenTable = 177
)

// Plugin is the plugin.
type Plugin struct{}

var _ plugin.Interface[Conf] = Plugin{}

// attachment is the interface that an ADD works on.
type attachment struct {
	*plugin.Request
	conf    *Conf
	pod     *nl.Handle
	sources []source
	link    *nl.Link
	// rules are the rules that were there before.
	rules []nl.Rule
}

// Add makes rules and tables. The result is that of the plugin before.
func (Plugin) Add(ctx context.Context, req *plugin.Request, c *Conf) (*types100.Result, error) {
	sources, err := c.sources(req)
	if err != nil {
		return nil, err
	}
	ns, pod, err := req.Pod()
	if err != nil {
		return nil, err
	}
	unlock, err := ns.Lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	a := &attachment{Request: req, conf: c, pod: pod, sources: sources}
	if a.rules, err = pod.Rules(ctx); err != nil {
		return nil, err
	}
	if c.Table != nil {
		err = a.useTable(ctx, *c.Table)
	} else {
		err = a.makeTables(ctx)
	}
	return req.Result(), err
}

// useTable makes rules that lead to a table that somebody else fills.
func (a *attachment) useTable(ctx context.Context, table int) error {
	for _, s := range a.sources {
		err := a.addRule(ctx, nl.Rule{From: s.host(), Table: table, Protocol: toGivenTable})
		if err != nil {
			return err
		}
	}
	return nil
}

// addRule makes a rule, unless there is the same: the kernel would take it twice.
func (a *attachment) addRule(ctx context.Context, r nl.Rule) error {
	if slices.ContainsFunc(a.rules, func(o nl.Rule) bool {
		return !o.More && o.From == r.From && o.Table == r.Table
	}) {
		return nil
	}
	if err := a.pod.AddRule(ctx, r); err != nil {
		return err
	}
	a.Undo.Push(func(ctx context.Context) error { return a.pod.DeleteRule(ctx, r) })
	return nil
}

// makeTables moves the interface's routes from the main table to one for each address. They are
// copied first, so that there is no moment without a route.
func (a *attachment) makeTables(ctx context.Context) (err error) {
	if a.link, err = a.pod.Link(ctx, a.IfName); err != nil {
		return err
	}
	routes, err := a.pod.ExactRoutes(ctx)
	if err != nil {
		return err
	}
	main := slices.DeleteFunc(slices.Clone(routes), func(r nl.Exact) bool { return !a.inMain(r) })
	for i, table := range freeTables(len(a.sources), a.rules, routes) {
		if err := a.fill(ctx, a.sources[i], table, main); err != nil {
			return err
		}
	}
	// The step looks for what has changed, so it may be there before the first change.
	a.Undo.Push(func(ctx context.Context) error { return a.restore(ctx, main) })
	return a.clear(ctx, main)
}

// clear removes the interface's routes from the main table. With addSourceHints, routes to the
// addresses' subnets stay there.
func (a *attachment) clear(ctx context.Context, main []nl.Exact) error {
	if a.conf.AddSourceHints {
		if err := a.hint(ctx); err != nil {
			return err
		}
	}
	for _, r := range main {
		if a.conf.AddSourceHints && r.Scope == unix.RT_SCOPE_LINK {
			continue
		}
		if err := a.pod.RemoveRoute(ctx, r); err != nil {
			return err
		}
	}
	return nil
}

// inMain reports whether a route is one of the main table via the interface alone.
func (a *attachment) inMain(r nl.Exact) bool {
	return r.Table == unix.RT_TABLE_MAIN && r.Index == a.link.Index
}

// freeTables returns numbers of tables that neither a rule nor a route uses.
func freeTables(count int, rules []nl.Rule, routes []nl.Exact) []int {
	used := map[int]bool{}
	for _, r := range rules {
		used[r.Table] = true
	}
	for _, r := range routes {
		used[r.Table] = true
	}
	tables := make([]int, 0, count)
	for table := firstTable; len(tables) < count; table++ {
		if !used[table] {
			tables = append(tables, table)
		}
	}
	return tables
}

// fill makes the table of an address, and the rule that leads to it.
func (a *attachment) fill(ctx context.Context, s source, table int, main []nl.Exact) error {
	if err := a.addRule(ctx, nl.Rule{From: s.host(), Table: table, Protocol: toOwnTable}); err != nil {
		return err
	}
	a.Undo.Push(func(ctx context.Context) error { return empty(ctx, a.pod, table) })
	if s.gateway.IsValid() {
		err := a.pod.AddRoute(ctx,
			nl.Route{Dst: s.anywhere(), Gateway: s.gateway, Index: a.link.Index, Table: table})
		if err != nil {
			return failure.WithFix(fmt.Errorf("default route of address %s: %w", s.Prefix, err),
				fmt.Sprintf(`name a gateway that interface %s reaches in "gateways" of sbr`, a.IfName))
		}
	}
	for _, r := range main {
		if !s.uses(r.Route) {
			continue
		}
		if err := a.pod.CopyRoute(ctx, r, table); err != nil {
			return err
		}
	}
	return nil
}

// hint leaves routes to the addresses' subnets in the main table that say which address to send
// from, for who did not choose one.
func (a *attachment) hint(ctx context.Context) error {
	for _, s := range a.sources {
		route := nl.Route{
			Dst: s.Masked(), Src: s.Addr(), Index: a.link.Index, Table: unix.RT_TABLE_MAIN,
			Scope: unix.RT_SCOPE_LINK,
		}
		if err := a.pod.ReplaceRoute(ctx, route); err != nil {
			return err
		}
	}
	return nil
}

// restore makes the interface's routes in the main table those that were there. Gateways must be
// reachable when a route via them comes.
func (a *attachment) restore(ctx context.Context, main []nl.Exact) error {
	routes, err := a.pod.ExactRoutes(ctx)
	errs := []error{err}
	for _, r := range routes {
		if a.inMain(r) && !slices.ContainsFunc(main, func(m nl.Exact) bool {
			return m.Route == r.Route
		}) {
			errs = append(errs, a.pod.RemoveRoute(ctx, r))
		}
	}
	for _, viaGateway := range []bool{false, true} {
		for _, r := range slices.Backward(main) {
			if r.Gateway.IsValid() == viaGateway {
				errs = append(errs, a.pod.RestoreRoute(ctx, r))
			}
		}
	}
	return errors.Join(errs...)
}

// Check looks for the rules of the addresses and, unless the tables are somebody else's, for their
// routes.
func (Plugin) Check(ctx context.Context, req *plugin.Request, c *Conf) error {
	sources, err := c.sources(req)
	if err != nil {
		return err
	}
	k, err := newChecker(ctx, req)
	if err != nil {
		return err
	}
	var tables []int
	var errs []error
	for _, s := range sources {
		table, err := k.tableOf(s, c.Table)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		tables = append(tables, table)
		if c.Table == nil {
			errs = append(errs, k.checkDefault(s, table))
		}
	}
	if c.Table == nil {
		errs = append(errs, k.checkMoved(req.PrevResult.Routes, tables))
	}
	return errors.Join(errs...)
}

// checker is a CHECK under way: the state that the pod is in.
type checker struct {
	link   *nl.Link
	rules  []nl.Rule
	routes []nl.Route
}

// newChecker reads the state of the pod.
func newChecker(ctx context.Context, req *plugin.Request) (*checker, error) {
	_, pod, err := req.Pod()
	if err != nil {
		return nil, err
	}
	k := &checker{}
	if k.link, err = pod.Link(ctx, req.IfName); err != nil {
		return nil, err
	}
	if k.rules, err = pod.Rules(ctx); err != nil {
		return nil, err
	}
	k.routes, err = pod.Routes(ctx)
	return k, err
}

// tableOf returns the table that a rule leads to from an address: the one given, if it is not nil.
func (k *checker) tableOf(s source, given *int) (int, error) {
	i := slices.IndexFunc(k.rules, func(r nl.Rule) bool {
		return s.leads(r) && (given == nil || r.Table == *given)
	})
	if i < 0 {
		return 0, fmt.Errorf("no rule leads from address %s of interface %s to its table",
			s.Addr(), k.link.Name)
	}
	return k.rules[i].Table, nil
}

// checkDefault looks for the default route of an address that has a gateway in its table.
func (k *checker) checkDefault(s source, table int) error {
	if !s.gateway.IsValid() || k.has(s.anywhere(), table) {
		return nil
	}
	return fmt.Errorf("table %d of address %s lacks a default route via interface %s",
		table, s.Addr(), k.link.Name)
}

// checkMoved looks for the destinations of the result's routes in the tables. Those that name a
// table were never in the main one.
func (k *checker) checkMoved(promised []*types.Route, tables []int) error {
	var errs []error
	for _, route := range promised {
		if route.Table != nil {
			continue
		}
		dst, err := plugin.Prefix(route.Dst)
		if err == nil && !k.has(dst.Masked(), tables...) {
			err = fmt.Errorf("tables %d lack the route to %s via interface %s", tables, dst, k.link.Name)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// has reports whether one of the tables has a route via the interface.
func (k *checker) has(dst netip.Prefix, tables ...int) bool {
	return slices.ContainsFunc(k.routes, func(r nl.Route) bool {
		return r.Dst == dst && r.Index == k.link.Index && slices.Contains(tables, r.Table)
	})
}

// GC has nothing to do: rules live in pods' namespaces and go with them.
func (Plugin) GC(context.Context, *plugin.Request, *Conf) error { return nil }

// Status knows nothing that an ADD would fail for.
func (Plugin) Status(context.Context, *plugin.Request, *Conf) error { return nil }
