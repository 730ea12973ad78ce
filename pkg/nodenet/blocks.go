package nodenet

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/braid-cni/braid/pkg/strictjson"
)

// Block is a subnet and the addresses of it that nodes have, as an IP block file has it.
type Block struct {
	// Netmask is "255.255.252.0", or of IPv6 "ffff:ffff::" or a number of bits.
	Netmask string `json:"netmask"`
	// Gateway is an address of the subnet. No route is set by it.
	Gateway string  `json:"gateway"`
	IPs     []Entry `json:"ips"`
}

// Entry is an address of the node Hostname, or a CIDR of addresses that are no node's yet.
type Entry struct {
	IP string `json:"ip"`
	// Hostname is the name of the Node; empty for none.
	Hostname string `json:"hostname,omitempty"`
	// IsControlPlane is true if the address is kept for a node of the control plane.
	IsControlPlane bool `json:"isControlPlane,omitempty"`
}

// Problem is one thing that is wrong with what an operator wrote.
type Problem struct {
	// Path leads to the value, as "blocks[0].ips[3].hostname".
	Path string
	Err  error
	// Fix is an imperative.
	Fix string
}

// Span is an inclusive range of addresses of one family, and the path of the entry that has it.
type Span struct {
	First, Last netip.Addr
	Path        string
}

// Addresses are what blocks hold.
type Addresses struct {
	// Subnets are the subnets of the blocks, in their order.
	Subnets []netip.Prefix
	// Gateways are the gateways of the blocks, in their order.
	Gateways []netip.Addr
	// Spans are all addresses, in the order of the entries.
	Spans []Span
	// Count is how many there are for workers, Unnamed how many of those have no hostname. Both end
	// at maxCount.
	Count, Unnamed int
	// hosts are the addresses of each hostname, in lower case; at most one of each family.
	hosts map[string][]netip.Prefix
}

// maxCount is more than any cluster has nodes.
const maxCount = 1 << 30

// minBits4 is the shortest prefix of an IPv4 subnet.
const minBits4 = 8

// Hosts returns how many hostnames have an address.
func (a *Addresses) Hosts() int { return len(a.hosts) }

// Of returns the addresses of a node, each with the length of its subnet; none if no entry names
// it.
func (a *Addresses) Of(host string) []netip.Prefix { return a.hosts[strings.ToLower(host)] }

// CheckBlocks reads blocks, and returns all that is wrong with them.
func CheckBlocks(blocks []Block) (*Addresses, []Problem) {
	c := &blockChecker{
		all:   &Addresses{hosts: map[string][]netip.Prefix{}},
		named: map[string]string{},
	}
	if len(blocks) == 0 {
		c.add("blocks", "name a block with netmask, gateway and ips", errors.New("there is none"))
	}
	for i := range blocks {
		c.block(fmt.Sprintf("blocks[%d]", i), &blocks[i])
	}
	c.problems = append(c.problems, Overlaps(c.all.Spans)...)
	return c.all, c.problems
}

// Overlaps returns a problem for each span that shares addresses with one of an earlier path.
func Overlaps(spans []Span) (problems []Problem) {
	last := -1 // the one that reaches furthest so far
	for _, i := range byFirst(spans) {
		if last < 0 || spans[i].First.Is4() != spans[last].First.Is4() {
			last = i
			continue
		}
		if spans[i].First.Compare(spans[last].Last) <= 0 {
			first, second := min(last, i), max(last, i)
			problems = append(problems, Problem{
				Path: spans[second].Path, Fix: "keep one of the two",
				Err: fmt.Errorf("address %s is in %s already", spans[i].First, spans[first].Path),
			})
		}
		if spans[i].Last.Compare(spans[last].Last) > 0 {
			last = i
		}
	}
	return problems
}

// byFirst returns the places of spans in the order of their addresses, IPv4 before IPv6.
func byFirst(spans []Span) []int {
	order := make([]int, len(spans))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		return cmp.Or(spans[a].First.Compare(spans[b].First), spans[a].Last.Compare(spans[b].Last),
			cmp.Compare(a, b))
	})
	return order
}

// blockChecker collects the addresses of blocks, and what is wrong with them.
type blockChecker struct {
	all      *Addresses
	problems []Problem
	named    map[string]string // path of the entry, by hostname and family
}

// add adds a problem.
func (c *blockChecker) add(path, fix string, err error) {
	c.problems = append(c.problems, Problem{Path: path, Err: err, Fix: fix})
}

// subnet returns the subnet of a block; invalid if it cannot be found out.
func (c *blockChecker) subnet(path string, b *Block) (subnet netip.Prefix, gateway netip.Addr) {
	gateway, ok := parseGateway(b.Gateway)
	if !ok {
		c.add(path+".gateway", `give an address of the subnet, as "172.16.23.254"`,
			fmt.Errorf("%s is no IP address", strictjson.Quote(b.Gateway)))
	}
	bits, is4, err := parseNetmask(b.Netmask)
	if err != nil {
		c.add(path+".netmask", `give a mask, as "255.255.252.0"`, err)
	}
	if !ok || err != nil {
		return subnet, gateway
	}
	if gateway.Is4() != is4 {
		c.add(path+".gateway", "use IPv4 for both, or IPv6",
			fmt.Errorf("%s is not of the family of netmask %s", gateway,
				strictjson.Quote(b.Netmask)))
		return subnet, gateway
	}
	subnet = netip.PrefixFrom(gateway, bits).Masked()
	if !ordinary(subnet, gateway) {
		c.add(path+".gateway", "name the router's own address",
			fmt.Errorf("%s is the address of the subnet %s itself, or of all in it", gateway,
				subnet))
	}
	return subnet, gateway
}

// parseGateway reads an address that can be of a subnet.
func parseGateway(text string) (addr netip.Addr, ok bool) {
	addr, err := netip.ParseAddr(text)
	return addr, err == nil && addr.Zone() == "" && !addr.Is4In6()
}

// parseNetmask reads a mask. A number of bits is one of IPv6.
func parseNetmask(text string) (bits int, is4 bool, err error) {
	if n, err := strconv.Atoi(text); err == nil && n >= 1 && n <= 128 {
		return n, false, nil
	}
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return 0, false, fmt.Errorf("%s is no netmask", strictjson.Quote(text))
	}
	ones, size := net.IPMask(addr.AsSlice()).Size()
	switch {
	case size == 0:
		return 0, false, fmt.Errorf("%s is no netmask: its ones are not all before its zeros", text)
	case addr.Is4() && ones < minBits4:
		return 0, false, fmt.Errorf("%s is a network of more than 2^%d addresses", text, 32-minBits4)
	}
	return ones, addr.Is4(), nil
}

// ordinary reports whether a host may have an address of a subnet: that of the subnet itself and
// the one for all of it are no host's.
func ordinary(subnet netip.Prefix, addr netip.Addr) bool {
	if !addr.Is4() || subnet.Bits() >= 31 {
		return true
	}
	return addr != subnet.Addr() && addr != LastOf(subnet)
}

// LastOf returns the last address of a prefix.
func LastOf(p netip.Prefix) netip.Addr {
	raw := p.Masked().Addr().AsSlice()
	host := net.CIDRMask(p.Bits(), len(raw)*8)
	for i := range raw {
		raw[i] |= ^host[i]
	}
	last, _ := netip.AddrFromSlice(raw)
	return last
}

// block takes a block's subnet, and its entries.
func (c *blockChecker) block(path string, b *Block) {
	subnet, gateway := c.subnet(path, b)
	if len(b.IPs) == 0 {
		c.add(path+".ips", "name the addresses of nodes, as [{ip: 172.16.20.10, hostname: host1}]",
			errors.New("there is none"))
	}
	if subnet.IsValid() {
		c.all.Subnets = append(c.all.Subnets, subnet)
		c.all.Gateways = append(c.all.Gateways, gateway)
	}
	for i := range b.IPs {
		c.entry(fmt.Sprintf("%s.ips[%d]", path, i), &b.IPs[i], subnet, gateway)
	}
}

// entry takes the addresses of an entry, and whose they are. The subnet is invalid where that is
// told already.
func (c *blockChecker) entry(path string, e *Entry, subnet netip.Prefix, gateway netip.Addr) {
	prefix, err := parseEntry(e.IP)
	if err != nil {
		c.add(path+".ip", "give an address, as 172.16.20.10, or a CIDR, as 172.16.20.12/30", err)
		return
	}
	span := Span{First: prefix.Addr(), Last: LastOf(prefix), Path: path + ".ip"}
	isCIDR := strings.Contains(e.IP, "/")
	if isCIDR && prefix != prefix.Masked() {
		c.add(path+".ip", "write "+prefix.Masked().String(),
			fmt.Errorf("%s does not begin at its first address", e.IP))
		return
	}
	if subnet.IsValid() {
		if fix, err := misplaced(e.IP, span, subnet, gateway); err != nil {
			c.add(path+".ip", fix, err)
			return
		}
	}
	c.all.Spans = append(c.all.Spans, span)
	c.count(e, sizeOf(prefix))
	if e.Hostname != "" {
		c.host(path+".hostname", e, isCIDR, prefix.Addr(), subnet)
	}
}

// misplaced returns why addresses, written as text, cannot be nodes' in a subnet; nil if they can.
func misplaced(
	text string, span Span, subnet netip.Prefix, gateway netip.Addr,
) (fix string, err error) {
	switch {
	case !subnet.Contains(span.First) || !subnet.Contains(span.Last):
		return "put it into a block of its subnet",
			fmt.Errorf("%s is outside of the block's subnet %s", text, subnet)
	case span.First.Compare(gateway) <= 0 && span.Last.Compare(gateway) >= 0:
		return "leave the gateway's address out",
			fmt.Errorf("%s has the address of the gateway, %s", text, gateway)
	case !ordinary(subnet, span.First) || !ordinary(subnet, span.Last):
		return "leave the first and the last address of the subnet out",
			fmt.Errorf("%s has the address of the subnet %s itself, or of all in it", text, subnet)
	}
	return "", nil
}

// count counts n addresses of an entry. Those of the control plane are no node's.
func (c *blockChecker) count(e *Entry, n int) {
	if e.IsControlPlane {
		return
	}
	c.all.Count = min(c.all.Count+n, maxCount)
	if e.Hostname == "" {
		c.all.Unnamed = min(c.all.Unnamed+n, maxCount)
	}
}

// host notes whose an address is.
func (c *blockChecker) host(path string, e *Entry, isCIDR bool, addr netip.Addr,
	subnet netip.Prefix,
) {
	name := strings.ToLower(e.Hostname)
	if isCIDR {
		c.add(path, "give each host an entry with its own address",
			fmt.Errorf("%s is a CIDR, which carries no hostname", e.IP))
		return
	}
	if problems := validation.IsDNS1123Subdomain(name); len(problems) > 0 {
		c.add(path, "give the name of the Node", fmt.Errorf("%s is no name of a node: %s",
			strictjson.Quote(e.Hostname), problems[0]))
		return
	}
	key := fmt.Sprint(name, addr.Is4())
	if first, taken := c.named[key]; taken {
		c.add(path, "give each node one address of a family",
			fmt.Errorf("%s is in %s already", name, first))
		return
	}
	c.named[key] = path
	if subnet.IsValid() {
		c.all.hosts[name] = append(c.all.hosts[name], netip.PrefixFrom(addr, subnet.Bits()))
	}
}

// parseEntry reads an address, or a CIDR of several. Its prefix may have host bits, which entry
// refuses.
func parseEntry(text string) (netip.Prefix, error) {
	if strings.Contains(text, "/") {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return p, fmt.Errorf("%s is no CIDR", strictjson.Quote(text))
		}
		return p, nil
	}
	addr, err := netip.ParseAddr(text)
	if err != nil || addr.Zone() != "" || addr.Is4In6() {
		return netip.Prefix{}, fmt.Errorf("%s is no IP address", strictjson.Quote(text))
	}
	return netip.PrefixFrom(addr, addr.BitLen()), nil
}

// sizeOf returns the number of addresses of a prefix, at most maxCount.
func sizeOf(p netip.Prefix) int {
	host := p.Addr().BitLen() - p.Bits()
	if host >= 30 {
		return maxCount
	}
	return 1 << host
}
