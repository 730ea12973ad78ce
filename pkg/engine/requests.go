package engine

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/status"
	"github.com/braid-cni/braid/pkg/weaken"
)

// honoured returns an error if an attachment lacks what the pod asks for: a plugin that does not
// know a request ignores it. Both the result and the link must have it. An interface that is no
// link of the kernel, such as a DPDK device, has the result alone.
func (e *Engine) honoured(ctx context.Context, req *Request, r status.Result) error {
	a := &r.Attachment
	if len(a.IPs) == 0 && a.MAC == "" || weaken.Off(weaken.Honoured) {
		return nil
	}
	result, err := types100.NewResultFromResult(r.CNI)
	if err != nil {
		return fmt.Errorf("read result: %w", err)
	}
	mac, addrs, isLink, err := e.Interiors.Interface(ctx, req.NetNS, a.IfName)
	if err != nil {
		return &failure.Error{
			Reason: failure.StateFailed, NAD: a.Name, Interface: a.IfName,
			Err: fmt.Errorf("read interface: %w", err),
		}
	}
	if err := honouredIPs(a, result, addrs, isLink); err != nil {
		return err
	}
	if !isLink {
		mac = promisedMAC(result, a.IfName)
	}
	return honouredMAC(a, mac)
}

// honouredIPs is honoured for addresses. addrs are those of the link, if it is one.
func honouredIPs(
	a *plan.Attachment, result *types100.Result, addrs []netip.Prefix, isLink bool,
) error {
	for _, asked := range a.IPs {
		if _, declared := a.RuntimeConfig["ips"]; declared && !isLink && len(result.IPs) == 0 {
			break // the plugin knows the request, and tells nothing to hold it to
		}
		addr, err := plan.Address(asked)
		if err != nil {
			return err
		}
		switch {
		case !promises(result, addr):
			return notHonoured(a, "ips", "no plugin gave the interface %s, which the pod asks for", addr)
		case isLink && !slices.ContainsFunc(addrs, func(p netip.Prefix) bool { return p.Addr() == addr }):
			return notHonoured(a, "ips",
				"the interface lacks %s, which the pod asks for, although the plugins say that it has it", addr)
		}
	}
	return nil
}

// honouredMAC is honoured for the MAC. mac is that of the link or, if there is none, of the result.
func honouredMAC(a *plan.Attachment, mac net.HardwareAddr) error {
	if a.MAC == "" {
		return nil
	}
	asked, err := net.ParseMAC(a.MAC)
	if err != nil {
		return err
	}
	if _, declared := a.RuntimeConfig["mac"]; declared && mac == nil {
		return nil
	}
	if !bytes.Equal(mac, asked) {
		return notHonoured(a, "mac", "the interface has the MAC %q, not %s, which the pod asks for",
			mac, asked)
	}
	return nil
}

// promises reports whether a result has an address, with whatever prefix length.
func promises(result *types100.Result, addr netip.Addr) bool {
	return slices.ContainsFunc(result.IPs, func(ip *types100.IPConfig) bool {
		have, _ := netip.AddrFromSlice(ip.Address.IP)
		return have.Unmap() == addr
	})
}

// promisedMAC returns the MAC of the sandbox's interface in a result; nil for none.
func promisedMAC(result *types100.Result, name string) net.HardwareAddr {
	for _, i := range result.Interfaces {
		if i.Sandbox != "" && i.Name == name {
			mac, _ := net.ParseMAC(i.Mac) //nolint:errcheck // nil is none
			return mac
		}
	}
	return nil
}

// notHonoured returns the error of an attachment that lacks what a field of the annotation asks
// for.
func notHonoured(a *plan.Attachment, field, format string, args ...any) error {
	return &failure.Error{
		Reason: failure.MissingCapability, NAD: a.Name, Interface: a.IfName, Field: field,
		Err: fmt.Errorf(format, args...),
		Fix: fmt.Sprintf("remove %s from the pod's annotation, or have the network use plugins that "+
			"support it", field),
	}
}
