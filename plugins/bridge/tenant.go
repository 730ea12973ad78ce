package bridge

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/pkg/hostfile"
	"github.com/braid-cni/braid/pkg/nl"
	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/plugin/uplink"
	"github.com/braid-cni/braid/pkg/weaken"
)

// This file holds node safety: what an attachment that has limits may do to the node.
//
// A bridge that is made for one says so in its alias, with the namespace of the NAD. The kernel
// keeps that as long as the link, whatever becomes of Braid's own state. Attachments with limits of
// the same namespace may change such a bridge; others that have limits may join it, if their limits
// say so, where nothing of it changes. It goes with its last port. The ports themselves say which
// attachments use it: one that is on the bridge before the lock is released keeps it, and its
// addresses, from being removed.

const (
	// aliasPrefix begins the alias of a bridge that was made for a namespace, which follows.
	aliasPrefix = "braid-cni.io/bridge "
	// group is the link group of such a bridge from its first moment on, when it has no alias yet,
	// and of its gateways' interfaces in VLANs ("brab").
	group uint32 = 0x62726162
)

// ownerOf returns the namespace that a bridge was made for, empty while that is not yet known. made
// reports whether it was made for one.
func ownerOf(bridge *nl.Link) (namespace string, made bool) {
	if namespace, ok := strings.CutPrefix(bridge.Alias, aliasPrefix); ok {
		return namespace, true
	}
	return "", bridge.Group == group && bridge.Alias == ""
}

// lock takes the lock under which bridges that have owners are made, changed and removed. The
// caller closes the directory, which unlocks.
func (p Plugin) lock(ctx context.Context) (hostfile.Dir, error) {
	if err := os.MkdirAll(p.Dir, 0o700); err != nil {
		return hostfile.NoDir(), fmt.Errorf("make directory of bridges: %w", err)
	}
	dir, err := hostfile.OpenDir(p.Dir)
	if err != nil {
		return hostfile.NoDir(), fmt.Errorf("open directory of bridges: %w", err)
	}
	if err := hostfile.Lock(ctx, dir.FD()); err != nil {
		dir.Close()
		return hostfile.NoDir(), fmt.Errorf("lock %s: %w", p.Dir, err)
	}
	return dir, nil
}

// guard is lock for attachments that have limits. Others have nothing to wait for.
func (a *attachment) guard(ctx context.Context) (unlock func(), err error) {
	if a.Limits == nil {
		return func() {}, nil
	}
	dir, err := a.plugin.lock(ctx)
	return dir.Close, err
}

// own reports whether the bridge is the attachment's to change: one without limits changes any.
func (a *attachment) own() bool {
	owner, made := ownerOf(a.bridge.Link)
	return a.Limits == nil || weaken.Off(weaken.Owners) || made && owner == a.Limits.Namespace
}

// mayJoin refuses a bridge that the limits do not allow; bridge is nil where there is none yet.
func (a *attachment) mayJoin(bridge *nl.Bridge) error {
	name, owner := a.conf.bridge(), ""
	if bridge != nil {
		owner, _ = ownerOf(bridge.Link)
	}
	if a.Limits.MayJoin(name, owner, bridge == nil) {
		return nil
	}
	return plugin.NotAllowed("bridge",
		fmt.Errorf("%s is none that networks of namespace %s may use", name, a.Limits.Namespace),
		"choose another bridge", a.Limits, "bridges", []string{name})
}

// claim names the namespace that a bridge was made for, which is not known while it has no alias.
func (a *attachment) claim(ctx context.Context, bridge *nl.Bridge) error {
	if owner, made := ownerOf(bridge.Link); a.Limits == nil || !made || owner != "" {
		return nil
	}
	bridge.Alias = aliasPrefix + a.Limits.Namespace
	return a.host.Apply(ctx, nl.SetAlias(bridge.Index, bridge.Alias))
}

// foreign returns the error that something would change a bridge of others.
func (a *attachment) foreign(field, change string) error {
	return plugin.Protected(field,
		fmt.Errorf("bridge %s was not made for namespace %s, and %s would change it",
			a.bridge.Name, a.Limits.Namespace, change),
		"choose the name of a bridge that does not exist, or let the node's operator write this network")
}

// judgeGateways refuses gateways that the node lacks and an attachment with limits may not give it.
func (a *attachment) judgeGateways(ctx context.Context, gateways []netip.Prefix) error {
	if a.Limits == nil {
		return nil
	}
	own, err := a.gatewayLinks(ctx)
	if err != nil {
		return err
	}
	missing, err := a.missing(ctx, own[len(own)-1], gateways)
	if err != nil || len(missing) == 0 {
		return err
	}
	if !a.own() {
		return a.foreign("isGateway", fmt.Sprintf("the gateway's address %s", missing[0]))
	}
	routes, err := a.routesOfOthers(ctx, own)
	if err != nil {
		return err
	}
	for _, g := range missing {
		if err := a.judgePrefix(ctx, g, routes); err != nil {
			return err
		}
	}
	return nil
}

// missing returns those of the gateways' addresses that a link of the node lacks. Index 0 is a link
// that is still to be made.
func (a *attachment) missing(
	ctx context.Context, index int, gateways []netip.Prefix,
) ([]netip.Prefix, error) {
	if index == 0 {
		return gateways, nil
	}
	have, err := a.host.Addrs(ctx, index)
	return slices.DeleteFunc(slices.Clone(gateways), func(g netip.Prefix) bool {
		return slices.ContainsFunc(have, func(h nl.Addr) bool { return h.Prefix == g })
	}), err
}

// routesOfOthers lists the node's routes but for those by the links own, and those that every link
// has of its own.
func (a *attachment) routesOfOthers(ctx context.Context, own []int) ([]nl.Exact, error) {
	routes, err := a.host.ExactRoutes(ctx)
	return slices.DeleteFunc(routes, func(r nl.Exact) bool {
		return r.Index != 0 && slices.Contains(own, r.Index) || uplink.PerLink(r.Dst)
	}), err
}

// gatewayLinks returns the indices of the bridge and of the interface in the VLAN, if there is to
// be one; the last one has the gateways' addresses, and is 0 if it is still to be made.
func (a *attachment) gatewayLinks(ctx context.Context) ([]int, error) {
	if a.conf.VLAN == 0 {
		return []int{a.bridge.Index}, nil
	}
	link, err := a.host.Link(ctx, a.conf.vlanInterface())
	if errors.Is(err, nl.ErrNoLink) {
		return []int{a.bridge.Index, 0}, nil
	}
	if err != nil {
		return nil, err
	}
	port, err := a.host.LinkByIndex(ctx, link.ParentIndex)
	if link.Kind != "veth" || err != nil || port.ParentIndex != link.Index ||
		port.MasterIndex != a.bridge.Index {
		return nil, plugin.Protected("vlan",
			fmt.Errorf("interface %s exists and is not connected to bridge %s", link.Name, a.bridge.Name),
			"choose another bridge or VLAN")
	}
	return []int{a.bridge.Index, link.Index}, nil
}

// judgePrefix refuses a gateway's prefix that would take packets from where the node sends them by
// its routes.
func (a *attachment) judgePrefix(
	ctx context.Context, gateway netip.Prefix, routes []nl.Exact,
) error {
	if weaken.Off(weaken.Routes) {
		return nil
	}
	may, named := a.Limits.MayAddress(gateway)
	if !may {
		return plugin.NotAllowed("ipam",
			fmt.Errorf("%s is in no prefix that networks of namespace %s may use",
				gateway, a.Limits.Namespace),
			"choose another subnet", a.Limits, "prefixes", []string{gateway.Masked().String()})
	}
	at := slices.IndexFunc(routes, func(r nl.Exact) bool {
		return r.Dst.Bits() != 0 && r.Dst.Overlaps(gateway)
	})
	if at >= 0 {
		return plugin.Protected("ipam",
			fmt.Errorf("gateway %s would take over what the node has the route %s%s for",
				gateway, routes[at].Dst, a.by(ctx, routes[at].Index)),
			"choose a subnet that the node has no route for, or let the node's operator write this network")
	}
	if !named && !privateUse(gateway) && hasDefault(routes, gateway.Addr()) {
		return plugin.Protected("ipam",
			fmt.Errorf("gateway %s would take over what the node reaches by its default route", gateway),
			"choose a subnet for private use, as of 10.0.0.0/8 or fd00::/8, or let the node's operator "+
				"allow this one")
	}
	return nil
}

// hasDefault reports whether packets to addr that no other route is for have a default route.
func hasDefault(routes []nl.Exact, addr netip.Addr) bool {
	return slices.ContainsFunc(routes, func(r nl.Exact) bool {
		return r.Dst.Bits() == 0 && r.Dst.Addr().Is4() == addr.Is4() && r.Unicast()
	})
}

// by names the link of a route for messages; it is empty for none.
func (a *attachment) by(ctx context.Context, index int) string {
	link, err := a.host.LinkByIndex(ctx, index)
	if index == 0 || err != nil {
		return ""
	}
	return " by " + link.Name
}

// privateUse reports whether all addresses of a prefix are beyond what a default route leads to:
// for private use, benchmarks, documentation, or nothing yet.
func privateUse(prefix netip.Prefix) bool {
	return slices.ContainsFunc([]string{
		"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "198.18.0.0/15", "192.0.2.0/24",
		"198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
		"fc00::/7", "2001:db8::/32", "fe80::/10",
	}, func(text string) bool {
		p := netip.MustParsePrefix(text)
		return p.Bits() <= prefix.Bits() && p.Contains(prefix.Addr())
	})
}

// withdraw takes a gateway's address from a link of the bridge, unless another attachment is on the
// bridge, which may be using it.
func (a *attachment) withdraw(ctx context.Context, link *nl.Link, gateway netip.Prefix) error {
	unlock, err := a.guard(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	ports, _, err := portsOf(ctx, a.host, a.bridge.Index)
	if err != nil || slices.ContainsFunc(ports, func(p *nl.Link) bool {
		return p.Index != a.portLink.Index
	}) {
		return err
	}
	return a.host.RemoveAddr(ctx, link.Index, gateway)
}

// portsOf lists the ports of a bridge, by index: those of attachments and of others, and apart from
// them the gateways' interfaces in VLANs.
func portsOf(
	ctx context.Context, host *nl.Handle, bridge int,
) (ports, gateways []*nl.Link, err error) {
	all, err := host.Ports(ctx, bridge)
	for _, p := range all {
		peer, perr := host.LinkByIndex(ctx, p.ParentIndex)
		if perr == nil && p.Kind == "veth" && peer.ParentIndex == p.Index && peer.Group == group {
			gateways = append(gateways, peer)
			continue
		}
		ports = append(ports, p)
	}
	return ports, gateways, err
}

// release removes a bridge that was made for a namespace and has no port any more.
func (p Plugin) release(ctx context.Context, req *plugin.Request, c *Conf) error {
	_, host, err := req.Host()
	if err != nil {
		return err
	}
	bridge, err := madeFor(ctx, host, c.bridge())
	if bridge == nil || err != nil {
		return err
	}
	if err := leave(ctx, host, bridge, req.PrevResult); err != nil {
		return err
	}
	dir, err := p.lock(ctx)
	if err != nil {
		return err
	}
	defer dir.Close()
	// Another may have removed it meanwhile, or made it anew.
	if bridge, err = madeFor(ctx, host, c.bridge()); bridge == nil || err != nil {
		return err
	}
	return removeUnused(ctx, host, bridge)
}

// removeUnused removes a bridge without ports, and the gateways' interfaces before it. The caller
// has the lock.
func removeUnused(ctx context.Context, host *nl.Handle, bridge *nl.Link) error {
	ports, gateways, err := portsOf(ctx, host, bridge.Index)
	if err != nil || len(ports) > 0 {
		return err
	}
	for _, g := range gateways {
		if err := host.DeleteLink(ctx, g.Name); err != nil {
			return err
		}
	}
	return host.DeleteLink(ctx, bridge.Name)
}

// madeFor finds the bridge of a name that was made for some namespace; nil for none.
func madeFor(ctx context.Context, host *nl.Handle, name string) (*nl.Link, error) {
	link, err := host.Link(ctx, name)
	if errors.Is(err, nl.ErrNoLink) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if _, made := ownerOf(link); !made || link.Kind != "bridge" {
		return nil, nil
	}
	return link, nil
}

// leave removes what port of the bridge prevResult has for the attachment; nil is for none. The
// kernel removes it with the pod's namespace, in its own time, and until then it would keep the
// bridge.
func leave(ctx context.Context, host *nl.Handle, bridge *nl.Link, prev *types100.Result) error {
	if prev == nil {
		return nil
	}
	for _, i := range prev.Interfaces {
		if i.Sandbox != "" || i.Name == bridge.Name {
			continue
		}
		link, err := host.Link(ctx, i.Name)
		if errors.Is(err, nl.ErrNoLink) {
			continue
		}
		if err != nil {
			return err
		}
		if link.Kind == "veth" && link.MasterIndex == bridge.Index {
			return host.DeleteLink(ctx, link.Name)
		}
	}
	return nil
}

// Protect refuses what a binary that runs in place of this plugin would do to the node: it knows of
// no limits.
func (Plugin) Protect(ctx context.Context, req *plugin.Request, c *Conf) error {
	ipam, err := c.IPAMType()
	if err != nil {
		return err
	}
	const fix = "remove the keys that only the binary knows, or let the node's operator write this " +
		"network"
	switch {
	case c.gateway(ipam):
		return plugin.Protected("isGateway",
			errors.New("a binary, not the built-in plugin, would address the bridge"), fix)
	case c.PromiscMode:
		return plugin.Protected("promiscMode",
			errors.New("a binary, not the built-in plugin, would change the bridge"), fix)
	}
	_, host, err := req.Host()
	if err != nil {
		return err
	}
	bridge, err := host.Bridge(ctx, c.bridge())
	if err != nil && !errors.Is(err, nl.ErrNoLink) {
		return err
	}
	return (&attachment{Request: req, conf: c}).mayJoin(bridge)
}
