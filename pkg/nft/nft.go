// Package nft keeps rules of attachments in the kernel's nf_tables, by netlink: no nft program, no
// fork.
//
// Contract: each user of the package has a table of its own, which nobody else writes to, and
// describes it as a value (Table). Its rules carry the attachment that they are for in a comment
// that `nft list ruleset` shows. An operation of Conn is one atomic batch: packets meet the rules
// before it or those after it, and where it fails nothing has changed. Operations may be repeated,
// and attachments do not see each other: Set gives one of them its rules, whatever it had; Delete
// and Keep take rules away, and those that are not there are taken already. A table that has lost
// its last rule of an attachment goes with it.
//
//	conn, err := nft.Open(ns)
//	defer conn.Close()
//	table := &nft.Table{Family: nft.INet, Name: "braid_example", Chains: []nft.Chain{
//		{Name: "attachments"},
//		{Name: "postrouting", Hook: nft.PostroutingNAT(), Rules: []nft.Expr{nft.Jump("attachments")}},
//	}}
//	id := attachment.ID{Network: "net", ContainerID: "0123", IfName: "net1"}
//	err = conn.Set(ctx, table, id, nft.NewRule("attachments",
//		nft.Source(nft.Is, pod), nft.Destination(nft.IsNot, subnet), nft.Masquerade()))
//	...
//	err = conn.Delete(ctx, table, id)
package nft

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/netns"
	"github.com/braid-cni/braid/pkg/nl"
)

// ErrUnsupported means that the kernel has no nf_tables. Then there are no rules either.
var ErrUnsupported = errors.New(
	"the kernel has no nf_tables (CONFIG_NF_TABLES, or its module nf_tables, is missing)")

// tries bounds the repetition of an operation whose ground moved. It moves when somebody else has
// got ahead, so that few suffice; among many at work at the same time somebody is the last.
const tries = 1000

// Family is what packets a table sees.
type Family byte

// Families. INet is IPv4 and IPv6; NAT there needs Linux 5.2.
const (
	INet   Family = unix.NFPROTO_INET
	IPv4   Family = unix.NFPROTO_IPV4
	IPv6   Family = unix.NFPROTO_IPV6
	Bridge Family = unix.NFPROTO_BRIDGE
)

// Table is a table with its chains, as they are made where they are missing.
type Table struct {
	Family Family
	Name   string
	Chains []Chain
}

// Chain is a chain of a table. One that has no hook is jumped to by a fixed rule of another one,
// and stands before it.
type Chain struct {
	Name string
	// Hook says when the chain is run; nil for one that is jumped to.
	Hook *Hook
	// Rules are fixed, those of no attachment. A chain that has them has no others: Set makes them
	// anew where they are others.
	Rules []Expr
}

// Hook is a point in the way of a packet.
type Hook struct {
	// Type is "filter", "nat" or "route".
	Type string
	// Number is one of NF_INET_* or, for the bridge family, NF_BR_*.
	Number uint32
	// Priority orders the chains of a hook, lowest first.
	Priority int32
}

// Priorities at which NAT is done, in the families of IP.
const (
	priorityDNAT = -100
	prioritySNAT = 100
)

// PreroutingNAT returns where the destination of packets that arrive can be translated.
func PreroutingNAT() *Hook { return &Hook{"nat", unix.NF_INET_PRE_ROUTING, priorityDNAT} }

// OutputNAT returns where the destination of the node's own packets can be translated.
func OutputNAT() *Hook { return &Hook{"nat", unix.NF_INET_LOCAL_OUT, priorityDNAT} }

// PostroutingNAT returns where the source of packets that leave can be translated.
func PostroutingNAT() *Hook { return &Hook{"nat", unix.NF_INET_POST_ROUTING, prioritySNAT} }

// BridgePrerouting returns where frames come into a bridge. Priority -300 is before the bridge's
// own DNAT.
func BridgePrerouting(priority int32) *Hook {
	const bridgePrerouting = 0 // NF_BR_PRE_ROUTING
	return &Hook{"filter", bridgePrerouting, priority}
}

// Rule is a rule of an attachment, at the end of a chain of its table.
type Rule struct {
	Chain string
	Expr  Expr
}

// NewRule makes a rule of matches and a statement, in their order.
func NewRule(chain string, parts ...Expr) Rule { return Rule{chain, Join(parts...)} }

// Conn works on the tables of one network namespace. Use it from one goroutine at a time.
type Conn struct{ socket *nl.Netfilter }

// Open makes a connection to ns, which must stay open as long.
func Open(ns *netns.NS) (*Conn, error) {
	socket, err := nl.OpenNetfilter(ns)
	if errors.Is(err, nl.ErrNoNetfilter) {
		err = fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	if err != nil {
		return nil, err
	}
	return &Conn{socket}, nil
}

// Close lets go of the connection.
func (c *Conn) Close() { c.socket.Close() }

// Netfilter returns the socket below, for what is not about rules.
func (c *Conn) Netfilter() *nl.Netfilter { return c.socket }

// Set makes rules those of the attachment in the table, in the place of the ones that it has. The
// table and its chains are made if they are missing; without rules this is Delete.
func (c *Conn) Set(ctx context.Context, t *Table, id attachment.ID, rules ...Rule) error {
	_, err := c.Swap(ctx, t, id, nil, rules...)
	return err
}

// Swap is Set that returns the rules which the attachment had. Before anything changes, refuse sees
// the rules of all other attachments, of the very state that the change is made for; its error ends
// the operation. It may be nil.
func (c *Conn) Swap(
	ctx context.Context, t *Table, id attachment.ID, refuse func(others []Owned) error, rules ...Rule,
) (had []Owned, err error) {
	key, comment := keyOf(id), commentOf(id)
	isOwn := func(other string) bool { return other == key }
	if len(rules) == 0 {
		return c.remove(ctx, t, isOwn)
	}
	err = c.change(ctx, t, func(have []found) (*batch, error) {
		had = owned(have, isOwn)
		if refuse != nil {
			if err := refuse(owned(have, func(other string) bool { return other != key })); err != nil {
				return nil, err
			}
		}
		b := &batch{family: t.Family}
		b.ensure(t, have)
		for _, r := range have {
			if r.key == key {
				b.deleteRule(t, r)
			}
		}
		for _, r := range rules {
			b.addRule(t, r, comment)
		}
		return b, nil
	})
	return had, err
}

// Delete removes the attachment's rules from the table, in whatever chain.
func (c *Conn) Delete(ctx context.Context, t *Table, id attachment.ID) error {
	return c.Set(ctx, t, id)
}

// Keep removes the rules of those attachments of a network that are not among valid. All of valid
// are of the network.
func (c *Conn) Keep(ctx context.Context, t *Table, network string, valid []attachment.ID) error {
	keep := map[string]bool{}
	for _, id := range valid {
		keep[keyOf(id)] = true
	}
	prefix := networkPrefix(network)
	_, err := c.remove(ctx, t, func(key string) bool {
		return strings.HasPrefix(key, prefix) && !keep[key]
	})
	return err
}

// remove deletes the rules whose comment has such a key, which it returns, and the table if no
// attachment's rule is left.
func (c *Conn) remove(
	ctx context.Context, t *Table, unwanted func(key string) bool,
) (removed []Owned, err error) {
	err = c.change(ctx, t, func(have []found) (*batch, error) {
		removed = owned(have, unwanted)
		b := &batch{family: t.Family}
		left := false
		for _, r := range have {
			switch {
			case r.key == "":
			case unwanted(r.key):
				b.deleteRule(t, r)
			default:
				left = true
			}
		}
		if len(b.messages) > 0 && !left {
			b.deleteEmpty(t)
		}
		return b, nil
	})
	if errors.Is(err, ErrUnsupported) {
		return nil, nil
	}
	return removed, err
}

// change makes the changes that build derives from the rules of the table. They are right for that
// state only: should it change between the two, they are derived again. An error of build is
// returned as it is.
func (c *Conn) change(
	ctx context.Context, t *Table, build func(have []found) (*batch, error),
) error {
	var err error
	for range tries {
		generation, have, lerr := c.list(ctx, t)
		if lerr != nil {
			return lerr
		}
		b, rerr := build(have)
		if rerr != nil || len(b.messages) == 0 {
			return rerr
		}
		failed, berr := c.send(ctx, generation, b)
		if berr == nil {
			return nil
		}
		err = b.explain(failed, berr)
		if !moved(berr) {
			break
		}
	}
	return fmt.Errorf("change nftables table %s: %w", t.Name, err)
}

// send makes the changes of a batch, without the optional ones if one of these fails. With an error
// it returns which message failed.
func (c *Conn) send(ctx context.Context, generation uint32, b *batch) (failed int, err error) {
	failed, err = c.socket.Batch(ctx, unix.NFNL_SUBSYS_NFTABLES, generation, b.messages)
	if b.optional > 0 && failed >= b.optional {
		return c.socket.Batch(ctx, unix.NFNL_SUBSYS_NFTABLES, generation, b.messages[:b.optional])
	}
	return failed, err
}

// moved reports whether an operation may be tried again: the state was another one than that which
// it was made for, or it was disturbed.
func moved(err error) bool {
	return errors.Is(err, unix.ERESTART) || errors.Is(err, unix.EINTR) || errors.Is(err, unix.ENOBUFS)
}

// Check says in which way the table is not as Set leaves it with these rules of the attachment.
func (c *Conn) Check(ctx context.Context, t *Table, id attachment.ID, rules ...Rule) error {
	_, have, err := c.list(ctx, t)
	if err != nil {
		return err
	}
	byChain := rulesOf(keyOf(id), have)
	for i, want := range rules {
		rest := byChain[want.Chain]
		if len(rest) == 0 {
			return fmt.Errorf("nftables table %s, chain %s: rule %d of %d is missing",
				t.Name, want.Chain, i+1, len(rules))
		}
		if !rest[0].is(want.Expr) {
			return fmt.Errorf("nftables table %s, chain %s: rule %d of %d is not as it was made",
				t.Name, want.Chain, i+1, len(rules))
		}
		byChain[want.Chain] = rest[1:]
	}
	for chain, rest := range byChain {
		if len(rest) > 0 {
			return fmt.Errorf("nftables table %s, chain %s: %d rules too many", t.Name, chain, len(rest))
		}
	}
	return checkFixed(t, have)
}

// rulesOf returns the rules of an attachment by their chains.
func rulesOf(key string, have []found) map[string][]found {
	byChain := map[string][]found{}
	for _, r := range have {
		if r.key == key {
			byChain[r.chain] = append(byChain[r.chain], r)
		}
	}
	return byChain
}

// checkFixed compares the rules that are no attachment's.
func checkFixed(t *Table, have []found) error {
	for _, chain := range t.Chains {
		if !chain.isFixed(have) {
			return fmt.Errorf("nftables table %s, chain %s: is not as it was made", t.Name, chain.Name)
		}
	}
	return nil
}

// isMade reports whether the table has all its chains, and these their fixed rules.
func (t *Table) isMade(have []found) bool {
	for _, chain := range t.Chains {
		isThere := chain.Hook == nil || slices.ContainsFunc(have, func(r found) bool {
			return r.chain == chain.Name
		})
		if !isThere || len(chain.Rules) > 0 && !chain.isFixed(have) {
			return false
		}
	}
	return len(have) > 0
}

// isFixed reports whether the chain has its fixed rules, and no others that are no attachment's.
func (c *Chain) isFixed(have []found) bool {
	i := 0
	for _, r := range have {
		if r.chain != c.Name || r.key != "" {
			continue
		}
		if i == len(c.Rules) || !r.is(c.Rules[i]) {
			return false
		}
		i++
	}
	return i == len(c.Rules)
}

// supported tells the error of a kernel without nf_tables.
func supported(err error) error {
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Errorf("%w: %w", ErrUnsupported, err)
	}
	return err
}

// message returns a netlink message type of nf_tables.
func message(kind uint16) uint16 { return unix.NFNL_SUBSYS_NFTABLES<<8 | kind }
