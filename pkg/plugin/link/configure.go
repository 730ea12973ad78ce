package link

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/pkg/nl"
	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/sysctl"
)

// dadWithin bounds the wait for duplicate address detection where the operation has more time: the
// kernel takes about two seconds.
const dadWithin = 5 * time.Second

// Configure gives a link of the pod, which is down, the addresses and routes of the result that
// belong to it, and sets it up. All addresses must be of this interface, whose place in
// result.Interfaces is index. Addresses that a pod announces when it comes up are announced by the
// kernel (arp_notify, ndisc_notify).
//
// detect is the key enabledad: with true, IPv6 addresses are checked for duplicates, which takes
// one to two seconds; with false they can be used at once.
func Configure(
	ctx context.Context, req *plugin.Request, link *nl.Link, result *types100.Result, index int,
	detect bool,
) error {
	ns, pod, err := req.Pod()
	if err != nil {
		return err
	}
	addrs, gateways, err := addresses(result, index)
	if err != nil {
		return err
	}
	// On a kernel that lacks one, the addresses that need it say what is wrong.
	if err := sysctl.Try(ns, settingsFor(addrs, link.Name, detect)...); err != nil {
		return err
	}
	routes, err := addRoutes(result, link.Index, gateways)
	if err != nil {
		return err
	}
	changes := addAddrs(link.Index, addrs)
	if hasIPv6(addrs) {
		if err := pod.Apply(ctx, changes...); err != nil {
			return err
		}
		if err := settle(ctx, req, link, detect); err != nil {
			return err
		}
		changes = nil
	}
	return pod.Apply(ctx, append(changes, routes...)...)
}

// settingsFor returns what the kernel is told before a link gets addresses. They let it have IPv6
// addresses, if these are some, and keep them when it is set down.
func settingsFor(addrs []netip.Prefix, link string, detect bool) []sysctl.Setting {
	settings := []sysctl.Setting{{Key: "net/ipv6/conf/" + link + "/ndisc_notify", Value: "1"}}
	if !hasIPv6(addrs) {
		return settings
	}
	settings = append(settings,
		sysctl.Setting{Key: "net/ipv6/conf/lo/disable_ipv6", Value: "0"},
		sysctl.Setting{Key: "net/ipv6/conf/" + link + "/disable_ipv6", Value: "0"},
		sysctl.Setting{Key: "net/ipv6/conf/" + link + "/keep_addr_on_down", Value: "1"})
	if !detect {
		settings = append(settings,
			sysctl.Setting{Key: "net/ipv6/conf/" + link + "/accept_dad", Value: "0"})
	}
	return settings
}

// addAddrs returns the changes that give a link, by index, its addresses, and set it up.
func addAddrs(index int, addrs []netip.Prefix) []nl.Change {
	changes := []nl.Change{nl.AnnounceIPv4(index)}
	for _, addr := range addrs {
		changes = append(changes, nl.AddAddr(index, addr))
	}
	return append(changes, nl.SetUp(index))
}

// settle waits for IPv6 addresses to be usable, which takes the kernel a moment also where it does
// not look for duplicates. On a link without carrier it does neither, which is no error.
func settle(ctx context.Context, req *plugin.Request, link *nl.Link, detect bool) error {
	ns, pod, err := req.Pod()
	if err != nil {
		return err
	}
	if !detect {
		if now, err := pod.LinkByIndex(ctx, link.Index); err != nil || !now.Carrier {
			return err
		}
	}
	waiting, cancel := context.WithTimeout(ctx, dadWithin)
	defer cancel()
	err = pod.AwaitAddrs(waiting, ns, link.Index)
	if waiting.Err() == nil || ctx.Err() != nil {
		return err
	}
	now, err := pod.LinkByIndex(ctx, link.Index)
	if err == nil && now.Operational {
		err = fmt.Errorf("interface %s still has addresses that are not checked for duplicates, after %v",
			link.Name, dadWithin)
	}
	return err
}

// firstGateways are the gateways of the first addresses that have one, by family.
type firstGateways struct{ v4, v6 netip.Addr }

// note takes the gateway of an address, which may have none, if it is the first of its family.
func (g *firstGateways) note(ip net.IP) {
	gw, ok := netip.AddrFromSlice(ip)
	first := &g.v6
	if gw = gw.Unmap(); gw.Is4() {
		first = &g.v4
	}
	if ok && !first.IsValid() {
		*first = gw
	}
}

// addresses returns the addresses of a result. Those that name another interface than the one with
// that index are an error; those that name none are not a pod's.
func addresses(
	result *types100.Result, index int,
) (addrs []netip.Prefix, gateways firstGateways, err error) {
	for _, ip := range result.IPs {
		if ip.Interface == nil {
			continue
		}
		addr, err := plugin.Prefix(ip.Address)
		if err != nil {
			return nil, gateways, err
		}
		if *ip.Interface != index {
			return nil, gateways, fmt.Errorf("address %s is of interface %d of the result, not %d",
				addr, *ip.Interface, index)
		}
		addrs = append(addrs, addr)
		gateways.note(ip.Gateway)
	}
	return addrs, gateways, nil
}

func hasIPv6(addrs []netip.Prefix) bool {
	return slices.ContainsFunc(addrs, func(a netip.Prefix) bool { return a.Addr().Is6() })
}

// addRoutes returns the changes that give a link, by index, the routes of a result.
func addRoutes(
	result *types100.Result, index int, gateways firstGateways,
) (changes []nl.Change, err error) {
	for _, r := range result.Routes {
		route, err := routeOf(r, index, gateways)
		if err != nil {
			return nil, err
		}
		changes = append(changes, nl.AddRoute(route))
	}
	return changes, nil
}

// routeOf returns a route of a result in the kernel's terms; without a gateway of its own it has
// the first of its family.
func routeOf(r *types.Route, index int, gateways firstGateways) (nl.Route, error) {
	dst, err := plugin.Prefix(r.Dst)
	if err != nil {
		return nl.Route{}, fmt.Errorf("route %s: %w", r.Dst.String(), err)
	}
	route := nl.Route{
		Index: index, Dst: dst.Masked(), Metric: r.Priority, MTU: r.MTU, AdvMSS: r.AdvMSS,
	}
	if r.Table != nil {
		route.Table = *r.Table
	}
	if r.Scope != nil {
		route.Scope = *r.Scope
	}
	gw, ok := netip.AddrFromSlice(r.GW)
	switch {
	case ok:
		route.Gateway = gw.Unmap()
	case dst.Addr().Is4():
		route.Gateway = gateways.v4
	default:
		route.Gateway = gateways.v6
	}
	return route, nil
}
