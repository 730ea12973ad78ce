package status

import (
	"github.com/containernetworking/cni/pkg/types"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/plan"
)

// Result is what became of one attachment.
type Result struct {
	Attachment plan.Attachment
	// CNI is the result of the ADD, of any version; nil where the chain gave none.
	CNI types.Result
	// DeviceInfo is the content of the device-information file after the ADD; nil without one.
	DeviceInfo *nadv1.DeviceInfo
}

// Build makes one entry for each attachment, in their order. An attachment without a result that
// can be read gets the minimal entry: name and default. At most one entry says that it is the
// default network's.
func Build(attachments []Result) []nadv1.NetworkStatus {
	out := make([]nadv1.NetworkStatus, 0, len(attachments))
	hasDefault := false
	for _, r := range attachments {
		entry := nadv1.NetworkStatus{
			Name: r.Attachment.Name, Default: r.Attachment.Default && !hasDefault, DeviceInfo: r.DeviceInfo,
		}
		hasDefault = hasDefault || entry.Default
		if res, ok := read(r.CNI); ok {
			describe(&entry, r.Attachment, res)
		}
		out = append(out, entry)
	}
	return out
}

// describe fills in what the result says.
func describe(entry *nadv1.NetworkStatus, a plan.Attachment, res result) {
	index := res.sandboxInterface()
	if index >= 0 {
		iface := res.Interfaces[index]
		entry.Interface, entry.Mac, entry.Mtu = iface.Name, iface.Mac, iface.Mtu
	} else if res.noInterfaces {
		entry.Interface = a.IfName
	}
	for _, ip := range res.addressesOf(index) {
		entry.IPs = append(entry.IPs, ip.Address.IP.String())
	}
	entry.DNS = nadv1.DNS{
		Nameservers: res.DNS.Nameservers, Domain: res.DNS.Domain, Search: res.DNS.Search,
	}
	entry.Gateway = res.defaultGateways(index)
	if !a.WantsDefaultRoute {
		return
	}
	for _, gw := range a.Gateways {
		entry.DefaultRoute = append(entry.DefaultRoute, gw.String())
	}
	if len(a.Gateways) == 0 {
		entry.DefaultRoute = entry.Gateway
	}
	if len(entry.DefaultRoute) == 0 {
		entry.DefaultRoute = res.addressGateways(index)
	}
}
