package nft

import (
	"encoding/binary"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/nl"
)

// batch is changes that are made together, in order.
type batch struct {
	family   Family
	messages []nl.NetfilterMessage
	// what names each of the messages.
	what []string
	// optional is the index of the first message that may be left out, with those after it; 0 for
	// none.
	optional int
}

// add adds a message; what names the change in errors.
func (b *batch) add(kind, flags uint16, what string, attrs []byte) {
	b.messages = append(b.messages,
		nl.NetfilterMessage{Type: message(kind), Flags: flags, Family: byte(b.family), Attrs: attrs})
	b.what = append(b.what, what)
}

// ensure makes what is missing of the table and its chains, and the fixed rules anew of chains that
// have others. Where nothing is missing it does nothing: whoever deletes a rule, or adds a chain
// that is there, waits when it closes its socket until no packet can be looking at what was.
func (b *batch) ensure(t *Table, have []found) {
	if t.isMade(have) {
		return
	}
	b.add(unix.NFT_MSG_NEWTABLE, unix.NLM_F_CREATE, "add table",
		text(nil, unix.NFTA_TABLE_NAME, t.Name))
	for _, c := range t.Chains {
		attrs := text(text(nil, unix.NFTA_CHAIN_TABLE, t.Name), unix.NFTA_CHAIN_NAME, c.Name)
		if c.Hook != nil {
			hook := u32(u32(nil, unix.NFTA_HOOK_HOOKNUM, c.Hook.Number), unix.NFTA_HOOK_PRIORITY,
				uint32(c.Hook.Priority))
			attrs = text(nest(attrs, unix.NFTA_CHAIN_HOOK, hook), unix.NFTA_CHAIN_TYPE, c.Hook.Type)
		}
		b.add(unix.NFT_MSG_NEWCHAIN, unix.NLM_F_CREATE, "add chain "+c.Name, attrs)
	}
	for _, c := range t.Chains {
		if len(c.Rules) == 0 || c.isFixed(have) {
			continue
		}
		b.add(unix.NFT_MSG_DELRULE, 0, "flush chain "+c.Name, place(t, c.Name))
		for _, r := range c.Rules {
			b.addRule(t, Rule{c.Name, r}, "")
		}
	}
}

// addRule appends a rule to its chain. The comment is how its owner finds it again; empty for a
// fixed rule.
func (b *batch) addRule(t *Table, r Rule, comment string) {
	var list []byte
	for _, op := range r.Expr {
		list = nest(list, unix.NFTA_LIST_ELEM,
			nest(text(nil, unix.NFTA_EXPR_NAME, op.name), unix.NFTA_EXPR_DATA, op.attrs))
	}
	attrs := nest(place(t, r.Chain), unix.NFTA_RULE_EXPRESSIONS, list)
	if comment != "" {
		attrs = nl.AppendAttr(attrs, unix.NFTA_RULE_USERDATA, userData(comment))
	}
	b.add(unix.NFT_MSG_NEWRULE, unix.NLM_F_CREATE|unix.NLM_F_APPEND,
		"add rule to chain "+r.Chain, attrs)
}

// deleteRule deletes a rule by its handle, which no other rule ever has.
func (b *batch) deleteRule(t *Table, r found) {
	attrs := nl.AppendAttr(place(t, r.chain), unix.NFTA_RULE_HANDLE, r.handle)
	b.add(unix.NFT_MSG_DELRULE, 0, "delete rule of chain "+r.chain, attrs)
}

// nonRecursive is NLM_F_NONREC of linux/netlink.h: what is not empty is not deleted, with EBUSY.
const nonRecursive = 0x100

// deleteEmpty deletes the table if it has no other chains than those of t, and they no other rules
// than fixed ones.
func (b *batch) deleteEmpty(t *Table) {
	b.optional = len(b.messages)
	for _, c := range t.Chains {
		if len(c.Rules) > 0 {
			b.add(unix.NFT_MSG_DELRULE, 0, "flush chain "+c.Name, place(t, c.Name))
		}
	}
	for _, c := range t.Chains {
		attrs := text(text(nil, unix.NFTA_CHAIN_TABLE, t.Name), unix.NFTA_CHAIN_NAME, c.Name)
		b.add(unix.NFT_MSG_DELCHAIN, nonRecursive, "delete chain "+c.Name, attrs)
	}
	b.add(unix.NFT_MSG_DELTABLE, nonRecursive, "delete table", text(nil, unix.NFTA_TABLE_NAME, t.Name))
}

// explain says which change the kernel refused.
func (b *batch) explain(failed int, err error) error {
	if failed >= 0 {
		return fmt.Errorf("%s: %w", b.what[failed], err)
	}
	return supported(err)
}

// place returns the attributes that name a chain of a table.
func place(t *Table, chain string) []byte {
	return text(text(nil, unix.NFTA_RULE_TABLE, t.Name), unix.NFTA_RULE_CHAIN, chain)
}

// text appends an attribute with a string, which the kernel wants to end in zero.
func text(b []byte, kind uint16, s string) []byte {
	return nl.AppendAttr(b, kind, append([]byte(s), 0))
}

// u32 appends an attribute with a number, in network order as all of nftables are.
func u32(b []byte, kind uint16, n uint32) []byte {
	return nl.AppendAttr(b, kind, binary.BigEndian.AppendUint32(nil, n))
}

// nest appends an attribute that has attributes in it.
func nest(b []byte, kind uint16, attrs []byte) []byte {
	return nl.AppendAttr(b, unix.NLA_F_NESTED|kind, attrs)
}
