package bridge

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/pkg/nl"
	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/plugin/link"
)

// Check compares both ends of the link, the bridge, the gateways and the rules with prevResult and
// with the configuration.
func (Plugin) Check(ctx context.Context, req *plugin.Request, c *Conf) error {
	ipam, err := c.checked()
	if err != nil {
		return err
	}
	if err := plugin.PassOn(ctx, req, &c.Common, "CHECK"); err != nil {
		return err
	}
	podLink, err := link.Check(ctx, req, "veth")
	if err != nil && (!c.DisableContainerInterface || !errors.Is(err, link.ErrDown)) {
		return err
	}
	_, host, err := req.Host()
	if err != nil {
		return err
	}
	port, err := checkNode(ctx, req, c, ipam, host, podLink)
	if err != nil {
		return err
	}
	return errors.Join(
		checkPort(ctx, host, c, port), checkGateways(ctx, req, c, host, ipam),
		checkRules(ctx, req, c, port, podLink),
	)
}

// checkNode compares the node's links with prevResult: the bridge, and the other end of the pod's
// link, which it returns.
func checkNode(
	ctx context.Context, req *plugin.Request, c *Conf, ipam string, host *nl.Handle, pod *nl.Link,
) (*nl.Link, error) {
	bridge, err := workingBridge(ctx, c, host)
	if err != nil {
		return nil, err
	}
	port, err := host.LinkByIndex(ctx, pod.ParentIndex)
	if err != nil {
		return nil, fmt.Errorf("other end of interface %s: %w", pod.Name, err)
	}
	switch {
	case !connects(port, pod, bridge):
		return nil, fmt.Errorf("interface %s is not connected to bridge %s", pod.Name, bridge.Name)
	case !port.Up:
		return nil, fmt.Errorf("interface %s is down", port.Name)
	}
	// A bridge whose MAC follows its ports need not have the one that ADD saw.
	if c.gateway(ipam) {
		err = checkPromised(req, bridge.Link)
	}
	return port, errors.Join(err, checkPromised(req, port))
}

// workingBridge returns the bridge, and an error if it does not pass packets as the configuration
// has it.
func workingBridge(ctx context.Context, c *Conf, host *nl.Handle) (*nl.Bridge, error) {
	bridge, err := host.Bridge(ctx, c.bridge())
	if err != nil {
		return nil, err
	}
	if !bridge.Up || c.PromiscMode && !bridge.Promisc {
		return nil, fmt.Errorf("bridge %s is not up, or not in promiscuous mode", bridge.Name)
	}
	return bridge, nil
}

// connects reports whether port is a port of the bridge and the other end of the pod's link.
func connects(port, pod *nl.Link, bridge *nl.Bridge) bool {
	return port.Kind == "veth" && port.ParentIndex == pod.Index && port.MasterIndex == bridge.Index
}

// checkPromised compares a link of the node with what prevResult says of it.
func checkPromised(req *plugin.Request, found *nl.Link) error {
	index := slices.IndexFunc(req.PrevResult.Interfaces, func(i *types100.Interface) bool {
		return i.Sandbox == "" && i.Name == found.Name
	})
	if index < 0 {
		return fmt.Errorf("prevResult has no interface %s of the node", found.Name)
	}
	mac := req.PrevResult.Interfaces[index].Mac
	if mac != "" && !strings.EqualFold(mac, found.MAC.String()) {
		return fmt.Errorf("interface %s has MAC %s, not %s", found.Name, found.MAC, mac)
	}
	return nil
}

// checkPort compares a port of the bridge with the configuration.
func checkPort(ctx context.Context, host *nl.Handle, c *Conf, port *nl.Link) error {
	want, err := c.port()
	if err != nil {
		return err
	}
	have, err := host.Port(ctx, port.Index)
	if err != nil {
		return err
	}
	if have.Hairpin != want.Hairpin || have.Isolated != want.Isolated {
		return fmt.Errorf("bridge port %s has hairpin %t and isolated %t, not %t and %t",
			port.Name, have.Hairpin, have.Isolated, want.Hairpin, want.Isolated)
	}
	mayHaveMore := len(want.VLANs) == 0 || c.PreserveDefaultVLAN
	return checkVLANs(port.Name, have.VLANs, want.VLANs, mayHaveMore)
}

// checkVLANs compares the VLANs that a port is in with those that it should be in. What it has
// beyond them is the bridge's default.
func checkVLANs(port string, have, want []nl.PortVLAN, mayHaveMore bool) error {
	has := eachVLAN(have)
	for id, vlan := range eachVLAN(want) {
		if has[id] != vlan {
			return fmt.Errorf("bridge port %s is not in VLAN %d, or not as it should be", port, id)
		}
		delete(has, id)
	}
	if len(has) > 0 && !mayHaveMore {
		return fmt.Errorf("bridge port %s is in %d VLANs that it should not be in", port, len(has))
	}
	return nil
}

// eachVLAN has an entry for each VLAN; of one that is there twice the last counts.
func eachVLAN(ranges []nl.PortVLAN) map[uint16]nl.PortVLAN {
	vlans := map[uint16]nl.PortVLAN{}
	for _, r := range ranges {
		for id := r.First; id <= r.Last; id++ {
			vlans[id] = nl.PortVLAN{First: id, Last: id, PVID: r.PVID, Untagged: r.Untagged}
		}
	}
	return vlans
}

// checkGateways looks for the gateways' addresses on the node.
func checkGateways(
	ctx context.Context, req *plugin.Request, c *Conf, host *nl.Handle, ipam string,
) error {
	if !c.gateway(ipam) {
		return nil
	}
	name := c.bridge()
	if c.VLAN != 0 {
		name = c.vlanInterface()
	}
	found, err := host.Link(ctx, name)
	if err != nil {
		return err
	}
	have, err := host.Addrs(ctx, found.Index)
	if err != nil {
		return err
	}
	var errs []error
	for _, ip := range req.PrevResult.IPs {
		addr, err := plugin.Prefix(ip.Address)
		gateway, _ := netip.AddrFromSlice(ip.Gateway)
		want := netip.PrefixFrom(gateway.Unmap(), addr.Bits())
		if err == nil && !slices.ContainsFunc(have, func(a nl.Addr) bool { return a.Prefix == want }) {
			err = fmt.Errorf("interface %s lacks the gateway's address %s", name, want)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
