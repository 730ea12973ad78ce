package portmap

import (
	"context"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/nft"
)

// flow is the UDP traffic to a port of the node.
type flow struct {
	family nft.Family
	port   uint16
}

// familyOf returns the family of the rules for an address: the table is one for both.
func familyOf(a netip.Addr) nft.Family {
	if a.Is4() {
		return nft.IPv4
	}
	return nft.IPv6
}

// flows returns those of mappings to these addresses.
func flows(forwards []forward, pods []netip.Addr) []flow {
	var list []flow
	for _, f := range forwards {
		for _, pod := range pods {
			if f.protocol == unix.IPPROTO_UDP && f.of(pod) {
				list = append(list, flow{familyOf(pod), f.hostPort})
			}
		}
	}
	return list
}

// flowsOf returns those that rules lead to a pod.
func flowsOf(rules []nft.Owned) []flow {
	var list []flow
	for _, r := range rules {
		if m := r.Match(); r.Chain == portsChain && m.Protocol == unix.IPPROTO_UDP {
			list = append(list, flow{m.Family, m.Port})
		}
	}
	return list
}

// forget removes the connections of the flows: UDP has no end of its own, so they would go on as
// they began.
func forget(ctx context.Context, conn *nft.Conn, list []flow) error {
	done := map[flow]bool{}
	for _, f := range list {
		if done[f] {
			continue
		}
		done[f] = true
		err := conn.Netfilter().ForgetConnections(ctx, byte(f.family), unix.IPPROTO_UDP, f.port)
		if err != nil {
			return err
		}
	}
	return nil
}
