package nft

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/nl"
)

// Owned is a rule of an attachment, as the kernel has it.
type Owned struct {
	Chain string
	// Owner has the attachment's names, for people: network, interface, and as much of the
	// container ID as fits.
	Owner string
	ops   []operation
}

// owned returns the attachments' rules among those of a table that want picks.
func owned(have []found, want func(key string) bool) []Owned {
	var all []Owned
	for _, r := range have {
		if r.key == "" || !want(r.key) {
			continue
		}
		o := Owned{Chain: r.chain, Owner: r.names}
		for _, element := range nl.Attrs(r.exprs) {
			o.ops = append(o.ops, operationOf(element))
		}
		all = append(all, o)
	}
	return all
}

// operationOf reads an expression of the kernel's. One that is malformed has no name, so it is
// none that is looked for.
func operationOf(element []byte) (op operation) {
	for kind, value := range nl.Attrs(element) {
		switch kind &^ unix.NLA_F_NESTED {
		case unix.NFTA_EXPR_NAME:
			op.name = string(value[:max(len(value)-1, 0)])
		case unix.NFTA_EXPR_DATA:
			op.attrs = value
		}
	}
	return op
}

// is reports whether the kernel's form of an operation is that of want.
func (o operation) is(want operation) bool {
	return o.name == want.name && contains(o.attrs, want.attrs)
}

// Asks reports whether the rule asks of packets what these parts do, whatever it then does with
// them.
func (o Owned) Asks(parts ...Expr) bool {
	have, want := matches(o.ops), matches(Join(parts...))
	return len(have) == len(want) && begins(have, want)
}

// begins reports whether the kernel's form of operations begins with that of want.
func begins(have, want []operation) bool {
	if len(have) < len(want) {
		return false
	}
	for i := range want {
		if !have[i].is(want[i]) {
			return false
		}
	}
	return true
}

// matches returns the operations before the statement.
func matches(ops []operation) []operation {
	for i, op := range ops {
		if op.name == "immediate" || op.name == "masq" {
			return ops[:i]
		}
	}
	return ops
}

// Match is what a rule asks of packets, as far as ports are concerned.
type Match struct {
	// Family is IPv4 or IPv6, or 0 for both.
	Family Family
	// Destination is invalid for any.
	Destination netip.Addr
	// Protocol and Port are those of the destination; 0 for any.
	Protocol byte
	Port     uint16
	// NotLoopback is true if packets to IPv4 loopback addresses are left out.
	NotLoopback bool
	// More is true if the rule asks for more.
	More bool
}

// Match reads the rule.
func (o Owned) Match() (m Match) {
	loopback := NotLoopback()
	for ops := matches(o.ops); len(ops) > 0; {
		switch {
		case begins(ops, loopback):
			m.Family, m.NotLoopback, ops = IPv4, true, ops[len(loopback):]
		case len(ops) > 1 && m.take(ops[0], equals(ops[1])):
			ops = ops[2:]
		default:
			m.More, ops = true, ops[1:]
		}
	}
	return m
}

// take notes that what an operation loads is compared with a value. It reports whether that is
// something that Match has a field for.
func (m *Match) take(load operation, value []byte) bool {
	of := func(length int, field operation) bool { return len(value) == length && load.is(field) }
	switch {
	case of(1, meta(unix.NFT_META_NFPROTO)):
		m.Family = Family(value[0])
	case of(1, meta(unix.NFT_META_L4PROTO)):
		m.Protocol = value[0]
	case of(2, payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2)):
		m.Port = binary.BigEndian.Uint16(value)
	case of(4, payload(unix.NFT_PAYLOAD_NETWORK_HEADER, offset4, 4)),
		of(16, payload(unix.NFT_PAYLOAD_NETWORK_HEADER, offset6, 16)):
		m.Destination, _ = netip.AddrFromSlice(value)
	default:
		return false
	}
	return true
}

// equals returns the value that an operation compares for equality with; nil for one that does
// something else.
func equals(op operation) []byte {
	if op.name != "cmp" || !contains(op.attrs, u32(nil, unix.NFTA_CMP_OP, uint32(Is))) {
		return nil
	}
	for kind, value := range nl.Attrs(op.attrs) {
		if kind&^unix.NLA_F_NESTED != unix.NFTA_CMP_DATA {
			continue
		}
		for kind, value := range nl.Attrs(value) {
			if kind&^unix.NLA_F_NESTED == unix.NFTA_DATA_VALUE {
				return value
			}
		}
	}
	return nil
}
