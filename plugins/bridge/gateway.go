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
		addr, err := plugin.Prefix(ip.Address)
		if err != nil {
			return nil, err
		}
		if ip.Gateway == nil {
			// The first address of the network.
			first := addr.Masked().Addr().Next()
			if !addr.Contains(first) {
				return nil, fmt.Errorf("address %s has no gateway, and its network no further address for one",
					addr)
			}
			ip.Gateway = first.AsSlice()
		}
		gateway, _ := netip.AddrFromSlice(ip.Gateway)
		if gateway = gateway.Unmap(); gateway.BitLen() != addr.Addr().BitLen() || gateway == addr.Addr() {
			return nil, fmt.Errorf("address %s cannot have the gateway %s", addr, ip.Gateway)
		}
		gateways = append(gateways, netip.PrefixFrom(gateway, addr.Bits()))
		if a.conf.IsDefaultGateway {
			addDefaultRoute(result, gateway)
		}
	}
	return gateways, nil
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
	link := a.bridge.Link
	if a.conf.VLAN != 0 {
		if link, err = a.ensureVLANInterface(ctx); err != nil {
			return err
		}
		a.interfaces = append(a.interfaces, &types100.Interface{Name: link.Name, Mac: link.MAC.String()})
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

// ensureAddr adds an address of a gateway to a link of the node. Other addresses are in the way: of
// IPv4 all, of IPv6 those whose network overlaps. Addresses of the network's own gateways (own) are
// not.
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
	for _, h := range have {
		if h.Addr().Is4() != addr.Addr().Is4() || addr.Addr().
			Is6() && !h.Overlaps(addr) || slices.Contains(own, h.Prefix) {
			continue
		}
		if !a.conf.ForceAddress {
			return failure.WithFix(fmt.Errorf("interface %s has address %s already, which forceAddress "+
				"would replace by %s", link.Name, h.Prefix, addr),
				"choose a bridge of the network's own, or a gateway in the network that the bridge is in")
		}
		if err := a.host.RemoveAddr(ctx, link.Index, h.Prefix); err != nil {
			return err
		}
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
