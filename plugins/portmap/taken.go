package portmap

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strconv"

	"github.com/containernetworking/cni/pkg/types"
	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/nft"
	"github.com/braid-cni/braid/pkg/nl"
	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/weaken"
)

// host returns the address of the node that packets to one of the pod's addresses are for;
// unspecified for all of the family.
func (f forward) host(pod netip.Addr) netip.Addr {
	switch {
	case f.hostIP.IsValid():
		return f.hostIP
	case pod.Is4():
		return netip.IPv4Unspecified()
	}
	return netip.IPv6Unspecified()
}

// key returns where the mapping stands.
func (f forward) key() string { return fmt.Sprintf("runtimeConfig.portMappings[%d]", f.index) }

// String names the port of the node for messages.
func (f forward) String() string {
	name := map[byte]string{
		unix.IPPROTO_TCP: "tcp", unix.IPPROTO_UDP: "udp", unix.IPPROTO_SCTP: "sctp",
	}[f.protocol]
	if f.hostIP.IsValid() {
		return fmt.Sprintf("%s port %d of %s", name, f.hostPort, f.hostIP)
	}
	return fmt.Sprintf("%s port %d", name, f.hostPort)
}

// taken returns the error of a mapping whose port another one has. It may be free again when the
// runtime repeats the ADD.
func (f forward) taken(by, fix string) error {
	msg := fmt.Sprintf("field %s.hostPort %d: %s of this node is taken by %s",
		f.key(), f.hostPort, f, by)
	return failure.WithFix(types.NewError(types.ErrTryAgainLater, msg, ""), fix)
}

// nowhere returns the error of a mapping for which the pod has no address on an interface.
func (f forward) nowhere(ifName string) error {
	if !f.hostIP.IsValid() {
		err := plugin.ConfError(f.key(), nil,
			"leads nowhere: prevResult has no address of interface "+ifName)
		return failure.WithFix(err, "give the network an IPAM plugin, or remove the mapping")
	}
	family := map[bool]string{true: "IPv4", false: "IPv6"}[f.hostIP.Is4()]
	err := plugin.ConfError(f.key()+".hostIP", f.hostIP.String(),
		fmt.Sprintf("leads nowhere: the pod has no %s address on interface %s", family, ifName))
	return failure.WithFix(err, "give an address of the other family, or leave hostIP out")
}

// mayMap refuses mappings that the attachment's limits do not allow.
func (w *work) mayMap(limits *attachment.Limits) error {
	for _, f := range w.forwards {
		switch {
		case !limits.MayMap(f.hostPort):
			return plugin.NotAllowed(f.key()+".hostPort",
				fmt.Errorf("%s is none that networks of namespace %s may map", f, limits.Namespace),
				"choose another hostPort", limits, "hostPorts",
				map[string][]string{"ports": {strconv.Itoa(int(f.hostPort))}})
		case f.hostIP.IsLoopback() && !limits.MayMapLoopback():
			return plugin.Protected(f.key()+".hostIP", fmt.Errorf("%s is for the node's own processes", f),
				"leave hostIP out, or let the node's operator write this network")
		}
	}
	return nil
}

// checkAddresses refuses mappings that lead to no address of the pod, and those that a mapping
// before them leaves nothing for.
func (w *work) checkAddresses(req *plugin.Request) error {
	for i, f := range w.forwards {
		if !slices.ContainsFunc(w.pods, f.of) {
			return f.nowhere(req.IfName)
		}
		for _, before := range w.forwards[:i] {
			if before.protocol == f.protocol && before.hostPort == f.hostPort && before.hostIP == f.hostIP &&
				before.containerPort != f.containerPort {
				err := plugin.ConfError(f.key()+".hostPort", int(f.hostPort),
					"is that of "+before.key()+", too")
				return failure.WithFix(err, "choose another hostPort")
			}
		}
	}
	return nil
}

// takesFrom reports whether a mapping takes packets that a process of the node listens for. On ::1
// they still reach it, see table.
func (w *work) takesFrom(f forward, l nl.Listener) bool {
	return l.Port() == f.hostPort && l.Addr() != netip.IPv6Loopback() &&
		slices.ContainsFunc(w.pods, func(pod netip.Addr) bool {
			return f.of(pod) && l.Takes(f.host(pod))
		})
}

// checkListeners refuses mappings of ports that a process of the node listens on: it would not be
// reached any more.
func (w *work) checkListeners(ctx context.Context, req *plugin.Request) error {
	ns, _, err := req.Host()
	if err != nil || weaken.Off(weaken.Listeners) {
		return err
	}
	byProtocol := map[byte][]nl.Listener{}
	for _, f := range w.forwards {
		listeners, ok := byProtocol[f.protocol]
		if !ok {
			if listeners, err = nl.Listeners(ctx, ns, f.protocol); err != nil {
				return err
			}
			byProtocol[f.protocol] = listeners
		}
		for _, l := range listeners {
			if w.takesFrom(f, l) {
				return f.taken(fmt.Sprintf("a process of the node that listens on %s", l.AddrPort),
					"choose another hostPort, or stop that process")
			}
		}
	}
	return nil
}

// checkOthers refuses mappings of ports that other attachments have: which of two rules counts is
// an accident.
func (w *work) checkOthers(others []nft.Owned) error {
	type port struct {
		protocol byte
		number   uint16
	}
	wanted := map[port][]forward{}
	for _, f := range w.forwards {
		wanted[port{f.protocol, f.hostPort}] = append(wanted[port{f.protocol, f.hostPort}], f)
	}
	for _, o := range others {
		if o.Chain != portsChain || weaken.Off(weaken.Taken) {
			continue
		}
		m := o.Match()
		for _, f := range wanted[port{m.Protocol, m.Port}] {
			if w.meets(f, o, m) {
				return f.taken(fmt.Sprintf("the attachment %q", o.Owner),
					"choose another hostPort, or delete the pod that has it")
			}
		}
	}
	return nil
}

// meets reports whether a rule of another attachment is for packets of the mapping. One that asks
// for more, as by conditions, is so only if the mapping's rule asks for the same.
func (w *work) meets(f forward, o nft.Owned, m nft.Match) bool {
	if m.More {
		return slices.ContainsFunc(w.rules, func(r nft.Rule) bool {
			return r.Chain == portsChain && o.Asks(r.Expr)
		})
	}
	return slices.ContainsFunc(w.pods, func(pod netip.Addr) bool {
		return f.of(pod) && m.Family == familyOf(pod) && reaches(m, f.host(pod))
	})
}

// reaches reports whether a rule is for packets to host, which is unspecified for all addresses.
func reaches(m nft.Match, host netip.Addr) bool {
	if m.NotLoopback && host.IsLoopback() {
		return false
	}
	return !m.Destination.IsValid() || host.IsUnspecified() || m.Destination == host
}

// Protect refuses ports that a binary that runs in place of this plugin would take from the node.
func (Plugin) Protect(ctx context.Context, req *plugin.Request, _ *Conf) error {
	w := &work{}
	var err error
	if w.forwards, err = mappings(req); err != nil || len(w.forwards) == 0 {
		return err
	}
	if err := w.mayMap(req.Limits); err != nil || req.PrevResult == nil {
		return err
	}
	pods, err := podAddresses(req)
	if err != nil {
		return err
	}
	for _, pod := range pods {
		w.pods = append(w.pods, pod.Addr())
	}
	return w.checkListeners(ctx, req)
}
