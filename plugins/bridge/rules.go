package bridge

import (
	"context"
	"errors"
	"net"
	"net/netip"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/pkg/nft"
	"github.com/braid-cni/braid/pkg/nl"
	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/weaken"
)

// attachmentChain is the chain of both tables that has the attachments' rules.
const attachmentChain = "attachments"

// beforeNAT is the priority of the spoof check, the one of NAT in the bridge family.
const beforeNAT = -300

// masqueradeTable returns the table by which packets that leave a pod's network get the node's
// address. Multicast stays as it is.
func masqueradeTable() *nft.Table {
	ipv4, ipv6 := netip.MustParsePrefix("224.0.0.0/4"), netip.MustParsePrefix("ff00::/8")
	return &nft.Table{Family: nft.INet, Name: "braid_masquerade", Chains: []nft.Chain{
		{Name: attachmentChain},
		{Name: "postrouting", Hook: nft.PostroutingNAT(), Rules: []nft.Expr{
			nft.Join(nft.Destination(nft.Is, ipv4), nft.Return()),
			nft.Join(nft.Destination(nft.Is, ipv6), nft.Return()),
			nft.Jump(attachmentChain),
		}},
	}}
}

// spoofTable drops frames that a pod sends with another MAC than its own.
func spoofTable() *nft.Table {
	return &nft.Table{Family: nft.Bridge, Name: "braid_spoofcheck", Chains: []nft.Chain{
		{Name: attachmentChain},
		{
			Name: "prerouting", Hook: nft.BridgePrerouting(beforeNAT),
			Rules: []nft.Expr{nft.Jump(attachmentChain)},
		},
	}}
}

// ruleSet is what an attachment has in a table.
type ruleSet struct {
	table *nft.Table
	rules []nft.Rule
}

// checksMAC reports whether what a pod sends is held to its MAC.
func (c *Conf) checksMAC(req *plugin.Request) bool {
	if c.MACSpoofCheck != nil {
		return *c.MACSpoofCheck
	}
	return req.Limits != nil && req.Limits.SpoofCheck && !weaken.Off(weaken.Spoofing)
}

// ruleSets returns those that the configuration and the attachment's limits ask for: for addresses
// of the pod, for the name of its port and for its MAC.
func (c *Conf) ruleSets(
	req *plugin.Request, ips []*types100.IPConfig, port string, mac net.HardwareAddr,
) (sets []ruleSet, err error) {
	if c.checksMAC(req) {
		drop := nft.NewRule(attachmentChain, nft.InputInterface(nft.Is, port),
			nft.SourceMAC(nft.IsNot, mac), nft.Drop())
		sets = append(sets, ruleSet{spoofTable(), []nft.Rule{drop}})
	}
	if !c.IPMasq || len(ips) == 0 {
		return sets, nil
	}
	masquerade := ruleSet{table: masqueradeTable()}
	for _, ip := range ips {
		addr, err := plugin.Prefix(ip.Address)
		if err != nil {
			return nil, err
		}
		own := netip.PrefixFrom(addr.Addr(), addr.Addr().BitLen())
		masquerade.rules = append(masquerade.rules,
			nft.NewRule(attachmentChain, nft.Source(nft.Is, own), nft.Destination(nft.IsNot, addr),
				nft.Masquerade()))
	}
	return append(sets, masquerade), nil
}

// addRules makes the rules of the attachment. The pod's link is still down, so it sends nothing
// that they do not see.
func (a *attachment) addRules(ctx context.Context, ips []*types100.IPConfig) error {
	sets, err := a.conf.ruleSets(a.Request, ips, a.portLink.Name, a.podLink.MAC)
	if err != nil || len(sets) == 0 {
		return err
	}
	return a.Filter(func(conn *nft.Conn) error {
		for _, s := range sets {
			if err := conn.Set(ctx, s.table, a.ID, s.rules...); err != nil {
				return err
			}
			a.Undo.Push(func(ctx context.Context) error { return removeRules(ctx, a.Request) })
		}
		return nil
	})
}

// removeRules removes what rules the attachment has, whatever the configuration says by now.
func removeRules(ctx context.Context, req *plugin.Request) error {
	return eachTable(req, func(conn *nft.Conn, t *nft.Table) error {
		return conn.Delete(ctx, t, req.ID)
	})
}

// collectRules removes those of the network's attachments that are not valid.
func collectRules(ctx context.Context, req *plugin.Request) error {
	return eachTable(req, func(conn *nft.Conn, t *nft.Table) error {
		return conn.Keep(ctx, t, req.Network, req.Valid)
	})
}

// eachTable takes rules away from the tables.
func eachTable(req *plugin.Request, do func(*nft.Conn, *nft.Table) error) error {
	return req.Unfilter(func(conn *nft.Conn) error {
		return errors.Join(do(conn, spoofTable()), do(conn, masqueradeTable()))
	})
}

// checkRules looks for the rules of the attachment.
func checkRules(ctx context.Context, req *plugin.Request, c *Conf, port, pod *nl.Link) error {
	sets, err := c.ruleSets(req, req.PrevResult.IPs, port.Name, pod.MAC)
	if err != nil || len(sets) == 0 {
		return err
	}
	return req.Filter(func(conn *nft.Conn) error {
		var errs []error
		for _, s := range sets {
			errs = append(errs, conn.Check(ctx, s.table, req.ID, s.rules...))
		}
		return errors.Join(errs...)
	})
}
