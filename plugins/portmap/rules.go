package portmap

import (
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/nft"
	"github.com/braid-cni/braid/pkg/plugin"
)

// Chains of the table that have the attachments' rules.
const (
	portsChain      = "hostports"
	masqueradeChain = "masquerading"
)

// loopback4 returns the addresses that never come from outside.
func loopback4() netip.Prefix { return netip.MustParsePrefix("127.0.0.0/8") }

// table returns the table of port mappings. Only packets to addresses of the node are looked at:
// others on their way through it may go to the same port elsewhere. What comes from outside for a
// loopback address is dropped, as the kernel does on interfaces without route_localnet. ::1 is left
// alone: the kernel routes nothing from it to a pod, whatever the rules, and the node's own servers
// can have it.
func table() *nft.Table {
	ports := nft.Join(nft.ToThisNode(), nft.Jump(portsChain))
	loopback6 := single(netip.IPv6Loopback())
	return &nft.Table{Family: nft.INet, Name: "braid_hostport", Chains: []nft.Chain{
		{Name: portsChain},
		{Name: masqueradeChain},
		{Name: "prerouting", Hook: nft.PreroutingNAT(), Rules: []nft.Expr{
			nft.Join(nft.Destination(nft.Is, loopback4()), nft.InputInterface(nft.IsNot, "lo"), nft.Drop()),
			ports,
		}},
		{
			Name: "output", Hook: nft.OutputNAT(),
			Rules: []nft.Expr{nft.Join(nft.Destination(nft.Is, loopback6), nft.Return()), ports},
		},
		{Name: "postrouting", Hook: nft.PostroutingNAT(), Rules: []nft.Expr{
			nft.Join(nft.DestinationTranslated(), nft.Jump(masqueradeChain)),
		}},
	}}
}

// work is what an attachment's mappings amount to.
type work struct {
	forwards []forward
	rules    []nft.Rule
	// pods are the addresses that the rules lead to, at most one of a family.
	pods []netip.Addr
	// localnet is the address for which packets from loopback addresses must be routed; invalid for
	// none.
	localnet netip.Addr
}

// wanted reads the request.
func wanted(req *plugin.Request, c *Conf) (*work, error) {
	if req.PrevResult == nil {
		return nil, types.NewError(types.ErrInvalidNetworkConfig,
			"field prevResult: is missing, the plugin must be called after another one", "")
	}
	if err := c.check(); err != nil {
		return nil, err
	}
	w := &work{}
	var err error
	if w.forwards, err = mappings(req); err != nil || len(w.forwards) == 0 {
		return w, err
	}
	if err := w.mayMap(req.Limits); err != nil {
		return nil, err
	}
	pods, err := podAddresses(req)
	if err != nil {
		return nil, err
	}
	if err := w.lead(pods, c, req.Limits); err != nil {
		return nil, err
	}
	return w, w.checkAddresses(req)
}

// lead makes the rules that lead to the pod's addresses, and notes those that there are some for.
func (w *work) lead(pods []netip.Prefix, c *Conf, limits *attachment.Limits) error {
	for _, pod := range pods {
		rules, err := c.rulesFor(pod, w.forwards, limits)
		if err != nil {
			return err
		}
		if len(rules) == 0 {
			continue
		}
		w.rules, w.pods = append(w.rules, rules...), append(w.pods, pod.Addr())
		if pod.Addr().Is4() && c.snat() && limits.MayMapLoopback() {
			w.localnet = pod.Addr()
		}
	}
	return nil
}

// podAddresses returns the first address of each family that prevResult has on the interface, or on
// none in particular.
func podAddresses(req *plugin.Request) (pods []netip.Prefix, err error) {
	seen := map[bool]bool{}
	for _, ip := range req.PrevResult.IPs {
		pod, err := plugin.Prefix(ip.Address)
		if err != nil {
			return nil, err
		}
		if is4 := pod.Addr().Is4(); !seen[is4] && onInterface(req, ip) {
			seen[is4] = true
			pods = append(pods, pod)
		}
	}
	return pods, nil
}

// formerPods returns the addresses that rules may have led to: without prevResult some of both
// families.
func formerPods(req *plugin.Request) (pods []netip.Addr) {
	if req.PrevResult == nil {
		return []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()}
	}
	// What cannot be read was no pod's address for ADD.
	prefixes, _ := podAddresses(req)
	for _, p := range prefixes {
		pods = append(pods, p.Addr())
	}
	return pods
}

// onInterface reports whether an address of prevResult is of the pod's interface. One that names no
// interface is.
func onInterface(req *plugin.Request, ip *types100.IPConfig) bool {
	all := req.PrevResult.Interfaces
	if ip.Interface == nil || *ip.Interface < 0 || *ip.Interface >= len(all) {
		return true
	}
	return all[*ip.Interface].Name == req.IfName && all[*ip.Interface].Sandbox != ""
}

// rulesFor returns those of the mappings for one address of the pod, within limits.
func (c *Conf) rulesFor(
	pod netip.Prefix, forwards []forward, limits *attachment.Limits,
) (rules []nft.Rule, err error) {
	conditions, err := c.conditions(pod.Addr())
	if err != nil {
		return nil, err
	}
	for _, f := range forwards {
		if f.of(pod.Addr()) {
			rules = append(rules, nft.NewRule(portsChain, conditions, f.destination(pod.Addr(), limits),
				nft.Protocol(f.protocol), nft.Port(f.hostPort),
				nft.TranslateTo(netip.AddrPortFrom(pod.Addr(), f.containerPort))))
		}
	}
	if len(rules) == 0 || !c.snat() {
		return rules, nil
	}
	return append(rules, c.masquerades(pod, forwards, limits)...), nil
}

// destination matches the addresses of the node that packets of the mapping are for.
func (f forward) destination(pod netip.Addr, limits *attachment.Limits) nft.Expr {
	switch {
	case f.hostIP.IsValid() && !f.hostIP.IsUnspecified():
		return nft.Destination(nft.Is, single(f.hostIP))
	case pod.Is4() && !limits.MayMapLoopback():
		return nft.NotLoopback()
	}
	return nft.IP(pod)
}

// masquerades returns the rules by which packets of the mappings come from the node, where the pod
// could not answer their own source.
func (c *Conf) masquerades(
	pod netip.Prefix, forwards []forward, limits *attachment.Limits,
) (rules []nft.Rule) {
	toPod := nft.Destination(nft.Is, single(pod.Addr()))
	for _, f := range forwards {
		if f.of(pod.Addr()) {
			rules = append(rules, nft.NewRule(masqueradeChain, c.masqueraded(pod), toPod,
				nft.Protocol(f.protocol), nft.Port(f.containerPort), nft.OriginalPort(f.hostPort),
				nft.Masquerade()))
		}
	}
	if pod.Addr().Is4() && !c.MasqAll && limits.MayMapLoopback() {
		rules = append(rules, nft.NewRule(masqueradeChain,
			nft.Source(nft.Is, loopback4()), toPod, nft.Masquerade()))
	}
	return rules
}

// masqueraded matches the sources, beside loopback addresses, that SNAT is for.
func (c *Conf) masqueraded(pod netip.Prefix) nft.Expr {
	if c.MasqAll {
		return nft.IP(pod.Addr())
	}
	return nft.Source(nft.Is, pod)
}

// single returns the network of one address.
func single(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
