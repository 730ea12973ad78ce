package nodenet

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// Type is where a node interface has its addresses from.
type Type string

// The types.
const (
	Static Type = "static" // from Blocks, by the node's name
	DHCP   Type = "dhcp"   // from a DHCP server of the network
)

// Interface is a network that each node is to have an interface of.
type Interface struct {
	// Network is its name, for people and for what is reported.
	Network string `json:"network"`
	Match   Match  `json:"match"`
	Type    Type   `json:"type"`
	// Blocks are of a static one alone.
	Blocks []Block `json:"blocks,omitempty"`

	// addresses are the addresses of the blocks.
	addresses *Addresses
}

// Addresses returns the node's, by its name; empty for none.
func (i *Interface) Addresses(node string) []netip.Prefix {
	if i.addresses == nil {
		return nil
	}
	return i.addresses.Of(node)
}

// Match finds the NIC of a network on a node, by one of its fields.
type Match struct {
	Name string `json:"name,omitempty"`
	// MAC has the MACs of the NICs of all nodes.
	MAC MACs `json:"mac,omitempty"`
	// PCIAddress is as lspci -D has it, "0000:13:00.0".
	PCIAddress string `json:"pciAddress,omitempty"`
	// Index counts the NICs beyond the primary one, in the order of their PCI addresses, from 1.
	Index int `json:"index,omitempty"`
}

// MACs is one MAC, or a list of them.
type MACs []string

// UnmarshalJSON takes one MAC for a list of one.
func (m *MACs) UnmarshalJSON(raw []byte) error {
	var one string
	if json.Unmarshal(raw, &one) == nil {
		*m = MACs{one}
		return nil
	}
	return json.Unmarshal(raw, (*[]string)(m))
}

// Kept is the Match of what is remembered. A list of MACs may change while the NIC of a node is the
// same.
func (m Match) Kept() string {
	if len(m.MAC) > 0 {
		return "mac"
	}
	return m.String()
}

// String reads "name ens224".
func (m Match) String() string {
	switch {
	case m.Name != "":
		return "name " + m.Name
	case len(m.MAC) == 1:
		return "mac " + strings.ToLower(m.MAC[0])
	case len(m.MAC) > 1:
		return fmt.Sprintf("any of %d MACs", len(m.MAC))
	case m.PCIAddress != "":
		return "pciAddress " + strings.ToLower(m.PCIAddress)
	}
	return fmt.Sprintf("index %d", m.Index)
}

var (
	pciAddress = regexp.MustCompile(`^[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`)
	// networkName is what a network's name is made of. It is shown, and no path.
	networkName = regexp.MustCompile(`^[\pL\pN][\pL\pN ._:/()-]{0,79}$`)
)

// IsNetworkName reports whether a network may have a name.
func IsNetworkName(name string) bool { return networkName.MatchString(name) }

// Field is the key that errors of Parse begin with.
const Field = "nodeInterfaces"

// maxTold is how many problems Parse tells: its error goes into objects of the API server.
const maxTold = 8

// Parse reads a JSON list of interfaces. The error joins a *failure.Error for each thing that is
// wrong, and a count of those beyond maxTold.
func Parse(raw []byte) ([]Interface, error) {
	if err := strictjson.Check(raw); err != nil {
		path, fix := strictjson.Place(err)
		return nil, bad(Field+strings.TrimPrefix(path, "."), fix, err)
	}
	var interfaces []Interface
	if err := strictjson.Decode(raw, &interfaces); err != nil {
		if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
			return nil, bad(Field+"."+wrong.Field, "correct its type",
				fmt.Errorf("a %s is no value of it", wrong.Value))
		}
		return nil, bad(Field,
			`give a list, as [{"network": "gke-network-1", "match": {"index": 1}, "type": "dhcp"}]`, err)
	}
	var errs []error
	problems := Check(interfaces)
	for _, p := range problems[:min(len(problems), maxTold)] {
		errs = append(errs, bad(p.Path, p.Fix, p.Err))
	}
	if more := len(problems) - len(errs); more > 0 {
		errs = append(errs, fmt.Errorf("and %d more", more))
	}
	if len(errs) > 0 {
		return nil, errors.Join(errs...)
	}
	return interfaces, nil
}

// bad returns the error of a field of the configuration.
func bad(field, fix string, err error) error {
	return &failure.Error{Reason: failure.InvalidConfig, Field: field, Err: err, Fix: fix}
}

// Check returns all that is wrong with interfaces, and keeps with each the addresses of its blocks.
func Check(interfaces []Interface) []Problem {
	c := &checker{networks: map[string]int{}, matches: map[string]int{}}
	for n := range interfaces {
		c.identity(n, &interfaces[n])
		c.addresses(n, &interfaces[n])
	}
	return append(c.problems, Overlaps(c.spans)...)
}

// checker collects what is wrong with interfaces.
type checker struct {
	// networks and matches have the number of the interface with each of them.
	networks, matches map[string]int
	// spans are the addresses of all blocks.
	spans    []Span
	problems []Problem
}

// add adds a problem with a key of an interface, by number.
func (c *checker) add(n int, key, fix, format string, args ...any) {
	c.problems = append(c.problems, Problem{
		Path: fmt.Sprintf("%s[%d].%s", Field, n, key), Err: fmt.Errorf(format, args...), Fix: fix,
	})
}

// identity checks the network of an interface and which NIC it is. No two have the same.
func (c *checker) identity(n int, i *Interface) {
	if !IsNetworkName(i.Network) {
		c.add(n, "network", "name the network with letters, numbers, blanks and ._:/()-, at most 80",
			"%s is no name", strictjson.Quote(i.Network))
	} else if first, taken := c.networks[i.Network]; taken {
		c.add(n, "network", "keep one of the two", "%s is interface %d already", i.Network, first)
	}
	if what, fix := i.Match.wrong(); what != "" {
		c.add(n, "match", fix, "%s", what)
	} else {
		c.unique(n, i.Match)
	}
	c.networks[i.Network] = n
}

// unique checks that no other interface has the NICs of a match.
func (c *checker) unique(n int, m Match) {
	each := []Match{m}
	if len(m.MAC) > 0 {
		each = nil
		for _, mac := range m.MAC {
			each = append(each, Match{MAC: MACs{mac}})
		}
	}
	for _, one := range each {
		if first, taken := c.matches[one.String()]; taken {
			c.add(n, "match", "give each network a NIC of its own", "%s is interface %d already", one, first)
		}
		c.matches[one.String()] = n
	}
}

// addresses checks where an interface has its addresses from.
func (c *checker) addresses(n int, i *Interface) {
	switch {
	case i.Type == DHCP && i.Blocks != nil:
		c.add(n, "blocks", "remove the blocks, or make the type static",
			"a dhcp interface has its addresses from a server")
	case i.Type == Static:
		c.blocks(fmt.Sprintf("%s[%d].", Field, n), i)
	case i.Type != DHCP:
		c.add(n, "type", "use static or dhcp", "%s is no type", strictjson.Quote(string(i.Type)))
	}
}

// blocks checks the blocks of an interface, and keeps their addresses if nothing is wrong.
func (c *checker) blocks(path string, i *Interface) {
	addresses, found := CheckBlocks(i.Blocks)
	for _, p := range found {
		c.problems = append(c.problems, Problem{Path: path + p.Path, Err: p.Err, Fix: p.Fix})
	}
	if len(found) > 0 {
		return
	}
	i.addresses = addresses
	for _, s := range addresses.Spans {
		c.spans = append(c.spans, Span{s.First, s.Last, path + s.Path})
	}
}

// keys returns how many keys of the match are set.
func (m Match) keys() (set int) {
	for _, is := range []bool{m.Name != "", len(m.MAC) > 0, m.PCIAddress != "", m.Index != 0} {
		if is {
			set++
		}
	}
	return set
}

// wrong says what is wrong with a match; empty if nothing is.
func (m Match) wrong() (what, fix string) {
	switch set := m.keys(); {
	case set != 1:
		return fmt.Sprintf("it has %d of name, mac, pciAddress and index", set),
			`use one, as {"index": 1}`
	case m.Name != "" && !isLinkName(m.Name):
		return strictjson.Quote(m.Name) + " is no name of an interface",
			"give the name that `ip link` shows"
	case slices.ContainsFunc(m.MAC, isNoMAC):
		return strictjson.Quote(m.MAC[slices.IndexFunc(m.MAC, isNoMAC)]) + " is no MAC",
			"give six bytes, as 00:50:56:82:a7:ab"
	case m.PCIAddress != "" && !pciAddress.MatchString(strings.ToLower(m.PCIAddress)):
		return strictjson.Quote(m.PCIAddress) + " is no PCI address",
			"give it as `lspci -D` does, 0000:13:00.0"
	case m.Index < 0 || m.Index > 64:
		return fmt.Sprintf("%d counts no NIC", m.Index),
			"count from 1, the first NIC beyond the primary one"
	}
	return "", ""
}

// isLinkName reports whether the kernel takes a name for a link.
func isLinkName(name string) bool {
	return len(name) < unix.IFNAMSIZ && !strings.ContainsAny(name, "/ \t\n:") &&
		name != "." && name != ".."
}

// isNoMAC reports whether a text is no MAC of Ethernet.
func isNoMAC(text string) bool {
	mac, err := net.ParseMAC(text)
	return err != nil || len(mac) != 6
}
