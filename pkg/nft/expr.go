package nft

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/nl"
)

// Expr is a part of a rule: matches, each of which ends the rule for packets that do not fit, and a
// statement at the end.
type Expr []operation

// operation is one expression of nf_tables, in its wire form (linux/netfilter/nf_tables.h).
type operation struct {
	name  string
	attrs []byte
}

// Join makes one of several, in their order.
func Join(parts ...Expr) Expr {
	var all Expr
	for _, p := range parts {
		all = append(all, p...)
	}
	return all
}

// Registers that hold values between the expressions of a rule.
const (
	regA = unix.NFT_REG_1
	regB = unix.NFT_REG_2
)

// Comparison is how a value must be.
type Comparison uint32

// Comparisons.
const (
	Is    Comparison = unix.NFT_CMP_EQ
	IsNot Comparison = unix.NFT_CMP_NEQ
)

// Source matches the source address; packets of the other family do not fit, whatever the
// comparison. For the families of IP.
func Source(c Comparison, subnet netip.Prefix) Expr { return address(c, subnet, 12, 8) }

// Destination matches the destination address, as Source does.
func Destination(c Comparison, subnet netip.Prefix) Expr {
	return address(c, subnet, offset4, offset6)
}

// NotLoopback matches IPv4 packets but those to loopback addresses.
func NotLoopback() Expr { return Destination(IsNot, netip.MustParsePrefix("127.0.0.0/8")) }

// Offsets of the destination address in the headers of IPv4 and IPv6.
const (
	offset4 = 16
	offset6 = 24
)

// address matches an address at an offset of the header of IPv4 or IPv6.
func address(c Comparison, subnet netip.Prefix, in4, in6 uint32) Expr {
	subnet = subnet.Masked()
	value, offset := subnet.Addr().AsSlice(), in6
	if subnet.Addr().Is4() {
		offset = in4
	}
	e := Expr{payload(unix.NFT_PAYLOAD_NETWORK_HEADER, offset, uint32(len(value)))}
	if !subnet.IsSingleIP() {
		mask := make([]byte, len(value))
		for i := range subnet.Bits() {
			mask[i/8] |= 0x80 >> (i % 8)
		}
		e = append(e, masked(mask))
	}
	return Join(IP(subnet.Addr()), append(e, compare(c, value)))
}

// IP matches packets of the family of an address. For the families of IP.
func IP(of netip.Addr) Expr {
	return Expr{meta(unix.NFT_META_NFPROTO), compare(Is, []byte{byte(family(of))})}
}

func family(of netip.Addr) Family {
	if of.Is4() {
		return IPv4
	}
	return IPv6
}

// Protocol matches the protocol above IP: one of IPPROTO_*.
func Protocol(number byte) Expr {
	return Expr{meta(unix.NFT_META_L4PROTO), compare(Is, []byte{number})}
}

// Port matches the destination port, of TCP, UDP and SCTP. Protocol stands before it.
func Port(number uint16) Expr {
	return Expr{
		payload(unix.NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2),
		compare(Is, binary.BigEndian.AppendUint16(nil, number)),
	}
}

// OriginalPort matches the destination port that a connection had before NAT. Protocol stands
// before it.
func OriginalPort(number uint16) Expr {
	const original = 0 // IP_CT_DIR_ORIGINAL
	attrs := u32(u32(nil, unix.NFTA_CT_KEY, unix.NFT_CT_PROTO_DST), unix.NFTA_CT_DREG, regA)
	attrs = nl.AppendAttr(attrs, unix.NFTA_CT_DIRECTION, []byte{original})
	return Expr{{"ct", attrs}, compare(Is, binary.BigEndian.AppendUint16(nil, number))}
}

// DestinationTranslated matches connections whose destination NAT has changed.
func DestinationTranslated() Expr {
	const statusDstNAT = 1 << 5 // IPS_DST_NAT
	attrs := u32(u32(nil, unix.NFTA_CT_KEY, unix.NFT_CT_STATUS), unix.NFTA_CT_DREG, regA)
	return Expr{{"ct", attrs}, masked(native(statusDstNAT)), compare(IsNot, native(0))}
}

// ToThisNode matches packets whose destination is an address of the node itself.
func ToThisNode() Expr {
	attrs := u32(nil, unix.NFTA_FIB_DREG, regA)
	attrs = u32(attrs, unix.NFTA_FIB_RESULT, unix.NFT_FIB_RESULT_ADDRTYPE)
	attrs = u32(attrs, unix.NFTA_FIB_FLAGS, unix.NFTA_FIB_F_DADDR)
	return Expr{{"fib", attrs}, compare(Is, native(unix.RTN_LOCAL))}
}

// InputInterface matches the interface that the packet came in by; in the bridge family, the
// bridge's port.
func InputInterface(c Comparison, name string) Expr {
	padded := make([]byte, unix.IFNAMSIZ)
	copy(padded, name)
	return Expr{meta(unix.NFT_META_IIFNAME), compare(c, padded)}
}

// SourceMAC matches the source address of the frame. For the bridge family.
func SourceMAC(c Comparison, mac net.HardwareAddr) Expr {
	return Expr{payload(unix.NFT_PAYLOAD_LL_HEADER, 6, uint32(len(mac))), compare(c, mac)}
}

// Masquerade returns the statement that gives packets the address of the interface they leave by as
// their source.
func Masquerade() Expr { return Expr{{"masq", nil}} }

// TranslateTo returns the statement that gives packets another destination.
func TranslateTo(to netip.AddrPort) Expr {
	attrs := u32(u32(nil, unix.NFTA_NAT_TYPE, unix.NFT_NAT_DNAT), unix.NFTA_NAT_FAMILY,
		uint32(family(to.Addr())))
	attrs = u32(u32(attrs, unix.NFTA_NAT_REG_ADDR_MIN, regA), unix.NFTA_NAT_REG_PROTO_MIN, regB)
	return Expr{
		immediate(regA, to.Addr().AsSlice()),
		immediate(regB, binary.BigEndian.AppendUint16(nil, to.Port())),
		{"nat", attrs},
	}
}

// Jump goes on in another chain of the table and comes back at its end.
func Jump(chain string) Expr { return verdict(unix.NFT_JUMP, chain) }

// Return goes back to the chain that jumped here.
func Return() Expr { return verdict(unix.NFT_RETURN, "") }

// Drop ends the packet.
func Drop() Expr { return verdict(0 /* NF_DROP */, "") }

// verdict says what becomes of a packet; chain is where it goes on, empty for a verdict that needs
// none.
func verdict(code int32, chain string) Expr {
	attrs := u32(nil, unix.NFTA_VERDICT_CODE, uint32(code))
	if chain != "" {
		attrs = text(attrs, unix.NFTA_VERDICT_CHAIN, chain)
	}
	data := nest(nil, unix.NFTA_DATA_VERDICT, attrs)
	return Expr{
		{"immediate", nest(u32(nil, unix.NFTA_IMMEDIATE_DREG, unix.NFT_REG_VERDICT),
			unix.NFTA_IMMEDIATE_DATA, data)},
	}
}

// immediate loads a value into a register.
func immediate(reg uint32, value []byte) operation {
	return operation{
		"immediate", nest(u32(nil, unix.NFTA_IMMEDIATE_DREG, reg), unix.NFTA_IMMEDIATE_DATA, data(value)),
	}
}

// meta loads something that the kernel knows of a packet, such as its protocol.
func meta(key uint32) operation {
	return operation{"meta", u32(u32(nil, unix.NFTA_META_KEY, key), unix.NFTA_META_DREG, regA)}
}

// payload loads bytes of a packet. base is the header that the offset counts from.
func payload(base, offset, length uint32) operation {
	attrs := u32(u32(nil, unix.NFTA_PAYLOAD_DREG, regA), unix.NFTA_PAYLOAD_BASE, base)
	return operation{
		"payload", u32(u32(attrs, unix.NFTA_PAYLOAD_OFFSET, offset), unix.NFTA_PAYLOAD_LEN, length),
	}
}

// masked leaves of what is loaded the bits of a mask.
func masked(mask []byte) operation {
	attrs := u32(u32(nil, unix.NFTA_BITWISE_SREG, regA), unix.NFTA_BITWISE_DREG, regA)
	attrs = nest(u32(attrs, unix.NFTA_BITWISE_LEN, uint32(len(mask))), unix.NFTA_BITWISE_MASK,
		data(mask))
	return operation{"bitwise", nest(attrs, unix.NFTA_BITWISE_XOR, data(make([]byte, len(mask))))}
}

// compare compares what is loaded with a value, in network order. A packet for which it does not
// hold goes on to the next rule.
func compare(c Comparison, value []byte) operation {
	attrs := u32(u32(nil, unix.NFTA_CMP_SREG, regA), unix.NFTA_CMP_OP, uint32(c))
	return operation{"cmp", nest(attrs, unix.NFTA_CMP_DATA, data(value))}
}

func data(value []byte) []byte { return nl.AppendAttr(nil, unix.NFTA_DATA_VALUE, value) }

// native returns a number as the kernel has it in a register, for what is no part of a packet.
func native(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }
