package keeper

import (
	"context"
	"net/netip"
	"regexp"
	"slices"

	"github.com/braid-cni/braid/pkg/netns"
	"github.com/braid-cni/braid/pkg/nl"
	"github.com/braid-cni/braid/pkg/nodenet"
)

var pciAddress = regexp.MustCompile(`^[0-9a-f]+:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`)

// look returns what there is in a namespace.
func look(ctx context.Context, ns *netns.NS, h *nl.Handle) (system nodenet.System, err error) {
	links, err := h.Links(ctx)
	if err != nil {
		return system, err
	}
	addrs, err := h.AddrsByLink(ctx)
	if err != nil {
		return system, err
	}
	defaults, err := h.DefaultLinks(ctx)
	if err != nil {
		return system, err
	}
	places, err := nl.BusAddresses(ns, devices(links))
	if err != nil {
		return system, err
	}
	for _, l := range links {
		if !l.Loopback {
			system.NICs = append(system.NICs, nicOf(l, addrs[l.Index], places[l.Name]))
		}
	}
	for _, index := range defaults {
		system.Primary = below(links, index, system.Primary)
	}
	return system, nil
}

// devices returns the names of the links that are of hardware, or look so.
func devices(links []*nl.Link) (names []string) {
	for _, l := range links {
		if l.Kind == "device" && !l.Loopback {
			names = append(names, l.Name)
		}
	}
	return names
}

// nicOf describes a link with these addresses. place is where its device is on a bus, of whatever
// kind; empty for none.
func nicOf(l *nl.Link, addrs []nl.Addr, place string) nodenet.NIC {
	nic := nodenet.NIC{
		Index: l.Index, Name: l.Name, MAC: l.MAC.String(), AltNames: l.AltNames, Up: l.Up,
		Carrier: l.Carrier, Port: l.MasterIndex != 0,
	}
	if l.PermanentMAC != nil {
		nic.MAC = l.PermanentMAC.String()
	}
	if pciAddress.MatchString(place) {
		nic.PCI = place
	}
	for _, a := range addrs {
		nic.Addrs = append(nic.Addrs, netip.PrefixFrom(a.Addr(), a.Bits()))
		if a.Duplicate {
			nic.Duplicate = append(nic.Duplicate, a.Prefix)
		}
	}
	return nic
}

// below adds a link, and all that it is made on: its parent, and the ports that it has.
func below(links []*nl.Link, index int, found []int) []int {
	if slices.Contains(found, index) {
		return found
	}
	found = append(found, index)
	for _, l := range links {
		switch {
		case l.Index == index && l.ParentIndex != 0 && !l.ParentElsewhere:
			found = below(links, l.ParentIndex, found)
		case l.MasterIndex == index:
			found = below(links, l.Index, found)
		}
	}
	return found
}
