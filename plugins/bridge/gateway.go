package bridge

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/nl"
	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/sysctl"
)

// complete assigns the result's addresses to the pod's interface, and adds the gateways and default
// routes that the configuration asks for. It returns the addresses for the node; there are none
// without isGateway.
func (a *attachment) complete(result *types100.Result) (gateways []netip.Prefix, err error) {
	for _, ip := range result.IPs {
		ip.Interface = types100.Int(podInterface)
		if !a.conf.gateway(a.ipam) {
			continue
		}
		gateway, err := ensureGateway(ip)
		if err != nil {
			return nil, err
		}
		gateways = append(gateways, gateway)
		if a.conf.IsDefaultGateway {
			addDefaultRoute(result, gateway.Addr())
		}
	}
	return gateways, nil
}

// ensureGateway makes the first address of the network the gateway of an address without one. It
// returns the gateway in the address's network.
func ensureGateway(ip *types100.IPConfig) (netip.Prefix, error) {
	addr, err := plugin.Prefix(ip.Address)
	if err != nil {
		return netip.Prefix{}, err
	}
	if ip.Gateway == nil {
		first := addr.Masked().Addr().Next()
		if !addr.Contains(first) {
			return netip.Prefix{}, fmt.Errorf(
				"address %s has no gateway, and its network no further address for one", addr)
		}
		ip.Gateway = first.AsSlice()
	}
	gateway, _ := netip.AddrFromSlice(ip.Gateway)
	if gateway = gateway.Unmap(); gateway.BitLen() != addr.Addr().BitLen() || gateway == addr.Addr() {
		return netip.Prefix{}, fmt.Errorf("address %s cannot have the gateway %s", addr, ip.Gateway)
	}
	return netip.PrefixFrom(gateway, addr.Bits()), nil
}

// addDefaultRoute adds a default route unless the result has one of the family. One without a
// gateway has the address's, too.
func addDefaultRoute(result *types100.Result, gateway netip.Addr) {
	bits := gateway.BitLen()
	has := slices.ContainsFunc(result.Routes, func(r *types.Route) bool {
		dst, err := plugin.Prefix(r.Dst)
		return err == nil && dst.Bits() == 0 && dst.Addr().BitLen() == bits
	})
	if !has {
		all := net.IPNet{IP: make(net.IP, bits/8), Mask: net.CIDRMask(0, bits)}
		result.Routes = append(result.Routes, &types.Route{Dst: all, GW: gateway.AsSlice()})
	}
}

// setGateways adds the gateways' addresses to the bridge or, with a VLAN, to an interface in it. It
// makes the node forward packets of their families.
func (a *attachment) setGateways(ctx context.Context, gateways []netip.Prefix) error {
	if len(gateways) == 0 {
		return nil
	}
	unlock, err := a.guard(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if err := a.judgeGateways(ctx, gateways); err != nil {
		return err
	}
	link, err := a.gatewayLink(ctx)
	if err != nil {
		return err
	}
	if err := a.fixMAC(ctx, link, gateways); err != nil {
		return err
	}
	own := append(a.conf.rangeGateways(), gateways...)
	for _, gateway := range gateways {
		if err := a.ensureAddr(ctx, link, gateway, own); err != nil {
			return err
		}
		if err := a.forward(gateway.Addr().Is4()); err != nil {
			return err
		}
	}
	return nil
}

// gatewayLink returns the link that has the gateways' addresses, and describes it in the result if
// it is not the bridge.
func (a *attachment) gatewayLink(ctx context.Context) (*nl.Link, error) {
	if a.conf.VLAN == 0 {
		return a.bridge.Link, nil
	}
	link, err := a.ensureVLANInterface(ctx)
	if err != nil {
		return nil, err
	}
	a.interfaces = append(a.interfaces, &types100.Interface{Name: link.Name, Mac: link.MAC.String()})
	return link, nil
}

// fixMAC fixes the MAC that a link of the node had before the pod's port joined it: a bridge that
// another made follows its ports with its MAC. One whose last port has left has none, and gets one
// of its own. A link with a gateway's address has been through this already.
func (a *attachment) fixMAC(ctx context.Context, link *nl.Link, gateways []netip.Prefix) error {
	have, err := a.host.Addrs(ctx, link.Index)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(have, func(h nl.Addr) bool { return slices.Contains(gateways, h.Prefix) }) {
		return nil
	}
	mac := link.MAC
	if mac == nil {
		if mac, err = randomMAC(); err != nil {
			return err
		}
	}
	return a.host.SetMAC(ctx, link.Index, mac)
}

// ensureAddr adds an address of a gateway to a link of the node. own are the addresses of all
// gateways of the network.
func (a *attachment) ensureAddr(
	ctx context.Context, link *nl.Link, addr netip.Prefix, own []netip.Prefix,
) error {
	have, err := a.host.Addrs(ctx, link.Index)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(have, func(h nl.Addr) bool { return h.Prefix == addr }) {
		return nil
	}
	have = slices.DeleteFunc(have, func(h nl.Addr) bool {
		return slices.Contains(own, h.Prefix) || !inTheWay(h.Prefix, addr)
	})
	if err := a.makeWay(ctx, link, addr, have); err != nil {
		return err
	}
	// Another ADD may be faster.
	if err := a.host.AddAddr(ctx, link.Index, addr); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	if a.Limits != nil {
		a.Undo.Push(func(ctx context.Context) error { return a.withdraw(ctx, link, addr) })
	}
	return nil
}

// inTheWay reports whether a link that has the address other cannot have addr beside it: of IPv4
// all are in the way, of IPv6 those whose network overlaps.
func inTheWay(other, addr netip.Prefix) bool {
	if addr.Addr().Is4() {
		return other.Addr().Is4()
	}
	return other.Overlaps(addr)
}

// makeWay removes addresses of a link that are in the way of addr, if the configuration allows it.
func (a *attachment) makeWay(
	ctx context.Context, link *nl.Link, addr netip.Prefix, inTheWay []nl.Addr,
) error {
	for _, h := range inTheWay {
		if !a.conf.ForceAddress {
			return failure.WithFix(fmt.Errorf("interface %s has address %s already, which forceAddress "+
				"would replace by %s", link.Name, h.Prefix, addr),
				"choose a bridge of the network's own, or a gateway in the network that the bridge is in")
		}
		if err := a.host.RemoveAddr(ctx, link.Index, h.Prefix); err != nil {
			return err
		}
	}
	return nil
}

// ipamRange is a range in the configuration of IPAM plugins that are as host-local.
type ipamRange struct {
	Subnet  string `json:"subnet"`
	Gateway string `json:"gateway"`
}

// rangeGateways lists the gateways of the ranges that the IPAM plugin chooses from. Another pod of
// the network may have one of them: a range set may have several ranges. What cannot be read is the
// IPAM plugin's to refuse.
func (c *Conf) rangeGateways() (gateways []netip.Prefix) {
	var ipam struct {
		ipamRange
		Ranges [][]ipamRange `json:"ranges"`
	}
	if json.Unmarshal(c.IPAM, &ipam) != nil {
		return nil
	}
	for _, set := range append(ipam.Ranges, []ipamRange{ipam.ipamRange}) {
		for _, r := range set {
			subnet, err := netip.ParsePrefix(r.Subnet)
			if err != nil {
				continue
			}
			gateway, err := netip.ParseAddr(r.Gateway)
			if err != nil {
				gateway = subnet.Masked().Addr().Next()
			}
			gateways = append(gateways, netip.PrefixFrom(gateway, subnet.Bits()))
		}
	}
	return gateways
}

// forward makes the node forward packets of a family. It writes only a change: to write the present
// value would reset single interfaces.
func (a *attachment) forward(v4 bool) error {
	key := "net/ipv6/conf/all/forwarding"
	if v4 {
		key = "net/ipv4/ip_forward"
	}
	have, err := sysctl.Get(a.hostNS, key)
	if err != nil || have[0] == "1" {
		return err
	}
	return sysctl.Set(a.hostNS, sysctl.Setting{Key: key, Value: "1"})
}

// ensureVLANInterface makes the interface of the node in the VLAN where there is none: a link whose
// other end is a port of the bridge, in the VLAN. As the bridge, it stays if the ADD fails.
func (a *attachment) ensureVLANInterface(ctx context.Context) (*nl.Link, error) {
	name := a.conf.vlanInterface()
	link, err := a.host.Link(ctx, name)
	if errors.Is(err, nl.ErrNoLink) {
		// Another ADD may be faster.
		peer := nl.NewLink{Name: name, MTU: a.bridge.MTU, Group: a.group()}
		if _, err := a.addVeth(ctx, peer, a.host); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
		link, err = a.host.Link(ctx, name)
	}
	if err != nil {
		return nil, err
	}
	if err := sysctl.Try(a.hostNS, ignoreRouters(name)); err != nil {
		return nil, err
	}
	// It is set up last: one that is up is complete.
	if link.Up {
		return link, nil
	}
	if err := a.setVLANPort(ctx, link.ParentIndex); err != nil {
		return nil, err
	}
	return link, a.host.SetUp(ctx, link.Index)
}

// setVLANPort completes the other end of the VLAN's interface, by index. Another ADD may be doing
// the same.
func (a *attachment) setVLANPort(ctx context.Context, index int) error {
	port, err := a.host.LinkByIndex(ctx, index)
	if err != nil {
		return fmt.Errorf("other end of interface %s: %w", a.conf.vlanInterface(), err)
	}
	if port.MasterIndex != a.bridge.Index {
		return fmt.Errorf("interface %s exists and is not connected to bridge %s",
			a.conf.vlanInterface(), a.bridge.Name)
	}
	return a.setPort(ctx, port, nl.Port{VLANs: []nl.PortVLAN{untagged(a.conf.VLAN)}})
}
