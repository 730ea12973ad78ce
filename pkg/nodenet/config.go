package nodenet

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"regexp"
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
	MAC  string `json:"mac,omitempty"`
	// PCIAddress is as lspci -D has it, "0000:13:00.0".
	PCIAddress string `json:"pciAddress,omitempty"`
	// Index counts the NICs beyond the primary one, in the order of their PCI addresses, from 1.
	Index int `json:"index,omitempty"`
}

// String reads "name ens224".
func (m Match) String() string {
	switch {
	case m.Name != "":
		return "name " + m.Name
	case m.MAC != "":
		return "mac " + strings.ToLower(m.MAC)
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

func bad(field, fix string, err error) error {
	return &failure.Error{Reason: failure.InvalidConfig, Field: field, Err: err, Fix: fix}
}

// Check returns all that is wrong with interfaces, and keeps with each the addresses of its blocks.
func Check(interfaces []Interface) (problems []Problem) {
	networks, matches := map[string]int{}, map[string]int{}
	var spans []Span
	for n := range interfaces {
		i := &interfaces[n]
		path := fmt.Sprintf("%s[%d]", Field, n)
		add := func(key, fix string, format string, args ...any) {
			problems = append(problems, Problem{
				Path: path + "." + key, Err: fmt.Errorf(format, args...), Fix: fix,
			})
		}
		if !IsNetworkName(i.Network) {
			add("network", "name the network with letters, numbers, blanks and ._:/()-, at most 80",
				"%s is no name", strictjson.Quote(i.Network))
		} else if first, taken := networks[i.Network]; taken {
			add("network", "keep one of the two", "%s is interface %d already", i.Network, first)
		}
		if what, fix := i.Match.wrong(); what != "" {
			add("match", fix, "%s", what)
		} else if first, taken := matches[i.Match.String()]; taken {
			add("match", "give each network a NIC of its own", "%s is interface %d already", i.Match, first)
		}
		networks[i.Network], matches[i.Match.String()] = n, n
		switch {
		case i.Type == DHCP && i.Blocks != nil:
			add("blocks", "remove the blocks, or make the type static",
				"a dhcp interface has its addresses from a server")
		case i.Type == Static:
			addresses, found := CheckBlocks(i.Blocks)
			for _, p := range found {
				problems = append(problems, Problem{
					Path: path + "." + p.Path, Err: p.Err,
					Fix: p.Fix,
				})
			}
			if len(found) == 0 {
				i.addresses = addresses
				for _, s := range addresses.Spans {
					spans = append(spans, Span{s.First, s.Last, path + "." + s.Path})
				}
			}
		case i.Type != DHCP:
			add("type", "use static or dhcp", "%s is no type", strictjson.Quote(string(i.Type)))
		}
	}
	return append(problems, Overlaps(spans)...)
}

// wrong says what is wrong with a match; empty if nothing is.
func (m Match) wrong() (what, fix string) {
	set := 0
	for _, is := range []bool{m.Name != "", m.MAC != "", m.PCIAddress != "", m.Index != 0} {
		if is {
			set++
		}
	}
	mac, err := net.ParseMAC(m.MAC)
	switch {
	case set != 1:
		return fmt.Sprintf("it has %d of name, mac, pciAddress and index", set),
			`use one, as {"index": 1}`
	case m.Name != "" && (len(m.Name) >= unix.IFNAMSIZ || strings.ContainsAny(m.Name, "/ \t\n:") ||
		m.Name == "." || m.Name == ".."):
		return strictjson.Quote(m.Name) + " is no name of an interface",
			"give the name that `ip link` shows"
	case m.MAC != "" && (err != nil || len(mac) != 6):
		return strictjson.Quote(m.MAC) + " is no MAC", "give six bytes, as 00:50:56:82:a7:ab"
	case m.PCIAddress != "" && !pciAddress.MatchString(strings.ToLower(m.PCIAddress)):
		return strictjson.Quote(m.PCIAddress) + " is no PCI address",
			"give it as `lspci -D` does, 0000:13:00.0"
	case m.Index < 0 || m.Index > 64:
		return fmt.Sprintf("%d counts no NIC", m.Index),
			"count from 1, the first NIC beyond the primary one"
	}
	return "", ""
}
