package sbr

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"github.com/braid-cni/braid/pkg/nl"
	"github.com/braid-cni/braid/pkg/plugin"
)

// Del removes the interface's rules, and the routes of its tables if the interface stays. It needs
// neither prevResult, which runtimes before CNI 0.4.0 do not pass, nor the interface, nor the
// configuration of the ADD.
func (Plugin) Del(ctx context.Context, req *plugin.Request, _ *Conf) error {
	_, pod, err := req.Pod()
	if errors.Is(err, plugin.ErrNoPod) {
		return nil
	}
	if err != nil {
		return err
	}
	rules, err := pod.Rules(ctx)
	if err != nil {
		return err
	}
	rules = slices.DeleteFunc(rules, func(r nl.Rule) bool { return r.More || !r.From.IsSingleIP() })
	if len(rules) == 0 {
		return nil
	}
	f, err := look(ctx, pod, req)
	if err != nil {
		return err
	}
	return f.remove(ctx, pod, rules)
}

// finder knows which rules are those of an attachment.
type finder struct {
	// index is the index of the interface, 0 if it is gone.
	index int
	// promised are the addresses of prevResult; own are those of the interface, all those of the
	// pod, own ones included.
	promised, own, all []netip.Addr
	routes             []nl.Exact
}

// look reads the state of the pod.
func look(ctx context.Context, pod *nl.Handle, req *plugin.Request) (*finder, error) {
	f := &finder{}
	for _, s := range addresses(req) {
		f.promised = append(f.promised, s.Addr())
	}
	link, err := pod.Link(ctx, req.IfName)
	switch {
	case err == nil:
		f.index = link.Index
		f.own, err = hosts(ctx, pod, f.index)
	case errors.Is(err, nl.ErrNoLink):
		err = nil
	}
	if err != nil {
		return nil, err
	}
	if f.all, err = hosts(ctx, pod, 0); err != nil {
		return nil, err
	}
	f.routes, err = pod.ExactRoutes(ctx)
	return f, err
}

// remove removes those of the rules that are the attachment's, and the routes of its own tables.
func (f *finder) remove(ctx context.Context, pod *nl.Handle, rules []nl.Rule) error {
	var errs []error
	for _, r := range rules {
		if !f.owns(r) {
			continue
		}
		if r.Protocol == toOwnTable {
			errs = append(errs, removeTable(ctx, pod, r.Table, f.routes))
		}
		errs = append(errs, pod.DeleteRule(ctx, r))
	}
	return errors.Join(errs...)
}

// hosts returns the addresses of a link, by index, or of all links with 0.
func hosts(ctx context.Context, pod *nl.Handle, index int) ([]netip.Addr, error) {
	list, err := pod.Addrs(ctx, index)
	addrs := make([]netip.Addr, len(list))
	for i, a := range list {
		addrs[i] = a.Addr()
	}
	return addrs, err
}

// owns reports whether a rule is the attachment's. A rule without the plugin's protocol, as the
// reference and kernels before 4.17 leave it, is known by its address alone.
func (f *finder) owns(r nl.Rule) bool {
	addr := r.From.Addr()
	isOwn, isElsewhere := slices.Contains(f.own, addr), count(f.all, addr) > count(f.own, addr)
	switch r.Protocol {
	case toOwnTable:
		ours, others := f.leadsTo(r.Table)
		return ours || !others && (isOwn || !isElsewhere)
	case toGivenTable:
		return isOwn || !isElsewhere
	}
	return isOwn || !isElsewhere && slices.Contains(f.promised, addr)
}

// leadsTo reports whether routes of a table use the interface, and whether routes use others. Some
// use none: they refuse packets.
func (f *finder) leadsTo(table int) (ours, others bool) {
	for _, r := range f.routes {
		if r.Table == table && r.Index != 0 {
			ours, others = ours || r.Index == f.index, others || r.Index != f.index
		}
	}
	return ours, others
}

// count returns how often addr is in addrs: two interfaces of a pod may have the same address.
func count(addrs []netip.Addr, addr netip.Addr) (n int) {
	for _, a := range addrs {
		if a == addr {
			n++
		}
	}
	return n
}

// empty removes all routes of a table.
func empty(ctx context.Context, pod *nl.Handle, table int) error {
	routes, err := pod.ExactRoutes(ctx)
	return errors.Join(err, removeTable(ctx, pod, table, routes))
}

// removeTable removes those of the routes that are of a table.
func removeTable(ctx context.Context, pod *nl.Handle, table int, routes []nl.Exact) error {
	var errs []error
	for _, r := range routes {
		if r.Table == table {
			errs = append(errs, pod.RemoveRoute(ctx, r))
		}
	}
	return errors.Join(errs...)
}
