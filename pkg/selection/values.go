package selection

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/braid-cni/braid/pkg/strictjson"
)

// What is allowed, for messages.
const (
	allowedName      = "give the name of a NetworkAttachmentDefinition"
	allowedNamespace = "give a namespace, or leave it out to mean the pod's"
	allowedIPs       = `give at least one IPv4 or IPv6 address, with or without a prefix length: ` +
		`["10.0.0.5/24", "2001:db8::5"]`
	allowedMAC       = "give six bytes: 02:23:45:67:89:01"
	allowedGUID      = "give eight bytes: 24:8a:07:03:00:8d:ae:2f"
	allowedInterface = "give an interface name: net1"
	allowedCNIArgs   = "give an object"
	allowedGateways  = `give a list, possibly empty, of the gateways' addresses without prefix ` +
		`length: ["10.0.0.1"]`
	allowedIPAMClaim = "give the name of an IPAMClaim of the pod's namespace"
)

func (e *element) parseName() error {
	name, ok, err := e.text("name", allowedName)
	if err != nil {
		return err
	}
	if !ok || name == "" {
		return e.invalid("name", allowedName, "the name is missing")
	}
	if err := checkName(name); err != nil {
		return e.invalid("name", allowedName, "%w", err)
	}
	e.Name = name
	return nil
}

func (e *element) parseNamespace() error {
	namespace, _, err := e.text("namespace", allowedNamespace)
	if err != nil || namespace == "" {
		return err
	}
	if err := checkNamespace(namespace); err != nil {
		return e.invalid("namespace", allowedNamespace, "%w", err)
	}
	e.Namespace = namespace
	return nil
}

func (e *element) parseIPs() error {
	values, ok, err := e.list("ips", allowedIPs)
	if err != nil || !ok {
		return err
	}
	if len(values) == 0 {
		return e.invalid("ips", allowedIPs, "the list is empty")
	}
	for i, raw := range values {
		ip, err := parseIP(raw)
		if err != nil {
			return e.invalid(fmt.Sprintf("ips[%d]", i), allowedIPs, "%s %w",
				strictjson.Quote(string(raw)), err)
		}
		e.IPs = append(e.IPs, ip)
	}
	return nil
}

// parseIP checks an address with or without a prefix length, and returns it as written.
func parseIP(raw json.RawMessage) (string, error) {
	text, err := strictjson.String(raw)
	if err != nil {
		return "", err
	}
	if strings.Contains(text, "/") {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return "", errors.New("is no IP address with a prefix length")
		}
		return text, checkAddr(prefix.Addr())
	}
	_, err = parseAddr(text)
	return text, err
}

func parseAddr(text string) (netip.Addr, error) {
	addr, err := netip.ParseAddr(text)
	if err != nil {
		return netip.Addr{}, errors.New("is no IP address")
	}
	return addr, checkAddr(addr)
}

// checkAddr refuses spellings by which two addresses that differ would be one.
func checkAddr(addr netip.Addr) error {
	switch {
	case addr.Zone() != "":
		return errors.New("has a zone")
	case addr.Is4In6():
		return errors.New("is an IPv4 address in IPv6 form")
	}
	return nil
}

// macLength is the length of a MAC, in bytes.
const macLength = 6

func (e *element) parseMAC() error {
	text, ok, err := e.text("mac", allowedMAC)
	if err != nil || !ok {
		return err
	}
	e.MAC = text
	return e.checkHardware("mac", text, macLength, allowedMAC)
}

func (e *element) parseGUID() error {
	text, ok, err := e.text("infiniband-guid", allowedGUID)
	if err != nil || !ok {
		return err
	}
	e.InfinibandGUID = text
	return e.checkHardware("infiniband-guid", text, 8, allowedGUID)
}

// checkHardware checks an address of size bytes.
func (e *element) checkHardware(key, text string, size int, fix string) error {
	addr, err := net.ParseMAC(text)
	if err != nil {
		return e.invalid(key, fix, "%s is no hardware address", strictjson.Quote(text))
	}
	if len(addr) != size {
		return e.invalid(key, fix, "%s has %d bytes, not %d", strictjson.Quote(text), len(addr), size)
	}
	return nil
}

// parseInterface reads the key and its older name, which are one.
func (e *element) parseInterface() error {
	for _, key := range []string{"interface", deprecatedInterface} {
		name, ok, err := e.text(key, allowedInterface)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if err := checkInterface(name); err != nil {
			return e.invalid(key, allowedInterface, "%w", err)
		}
		if e.Interface != "" && e.Interface != name {
			return e.invalid(key, "give one of the two", "%s is not what interface says, %s",
				strictjson.Quote(name), strictjson.Quote(e.Interface))
		}
		e.Interface = name
	}
	return nil
}

func (e *element) parseCNIArgs() error {
	raw, ok := e.value("cni-args")
	if !ok {
		return nil
	}
	args, err := strictjson.Object(raw)
	if err != nil {
		return e.invalid("cni-args", allowedCNIArgs, "%s %w", strictjson.Quote(string(raw)), err)
	}
	e.CNIArgs = args
	return errors.Join(e.checkArgIPs(), e.checkArgMAC())
}

// checkArgIPs checks a list of addresses in cni-args as it does "ips": IPAM plugins take both for
// the pod's request. A value that is no list of strings is left to the plugins.
func (e *element) checkArgIPs() error {
	key, raw := e.arg("ips")
	values, err := strictjson.List(raw)
	if err != nil {
		return nil //nolint:nilerr // it is nothing that "ips" has
	}
	var ips []string
	for i, raw := range values {
		if _, err := strictjson.String(raw); err != nil {
			return nil //nolint:nilerr // likewise
		}
		ip, err := parseIP(raw)
		if err != nil {
			return e.invalid(fmt.Sprintf("cni-args.%s[%d]", key, i), allowedIPs, "%s %w",
				strictjson.Quote(string(raw)), err)
		}
		ips = append(ips, ip)
	}
	if len(e.IPs) > 0 && len(ips) > 0 && !slices.Equal(e.IPs, ips) {
		return e.invalid("cni-args."+key, "give one of the two", "it asks for other addresses than ips")
	}
	return nil
}

// checkArgMAC checks a MAC in cni-args as it does "mac".
func (e *element) checkArgMAC() error {
	key, raw := e.arg("mac")
	if mac := strictjson.Text(raw); isMAC(mac) && e.MAC != "" && !strings.EqualFold(mac, e.MAC) {
		return e.invalid("cni-args."+key, "give one of the two", "it asks for another MAC than mac")
	}
	return nil
}

// arg returns a value of cni-args whatever the case of its key, as plugins read it.
func (s *Selection) arg(name string) (key string, raw json.RawMessage) {
	key = name
	for _, k := range slices.Sorted(maps.Keys(s.CNIArgs)) {
		// of several the last one counts, as they are written in that order
		if strings.EqualFold(k, name) {
			key, raw = k, s.CNIArgs[k]
		}
	}
	return key, raw
}

// Asked returns the addresses and the MAC that the element asks for, be it by the keys of these
// names or by those of cni-args, which plugins take for the same.
func (s *Selection) Asked() (ips []string, mac string) {
	ips, mac = s.IPs, s.MAC
	_, raw := s.arg("ips")
	if len(ips) == 0 && json.Unmarshal(raw, &ips) != nil {
		ips = nil
	}
	if _, raw = s.arg("mac"); mac == "" && isMAC(strictjson.Text(raw)) {
		mac = strictjson.Text(raw)
	}
	return ips, mac
}

// isMAC reports whether a text is valid for "mac".
func isMAC(text string) bool {
	addr, err := net.ParseMAC(text)
	return err == nil && len(addr) == macLength
}

// parseDefaultRoute leaves an empty list empty, and not nil: it asks for the network's own gateway.
func (e *element) parseDefaultRoute() error {
	values, ok, err := e.list("default-route", allowedGateways)
	if err != nil || !ok {
		return err
	}
	e.DefaultRoute = []netip.Addr{}
	for i, raw := range values {
		gateway, err := parseGateway(raw)
		if err != nil {
			return e.invalid(fmt.Sprintf("default-route[%d]", i), allowedGateways, "%s %w",
				strictjson.Quote(string(raw)), err)
		}
		e.DefaultRoute = append(e.DefaultRoute, gateway)
	}
	return nil
}

// parseGateway reads an address that a router can have.
func parseGateway(raw json.RawMessage) (netip.Addr, error) {
	text, err := strictjson.String(raw)
	if err != nil {
		return netip.Addr{}, err
	}
	addr, err := parseAddr(text)
	if err == nil && (addr.IsUnspecified() || addr.IsMulticast()) {
		err = errors.New("is no address of a gateway")
	}
	return addr, err
}

// parseIPAMClaim refuses a claim beside addresses: the claim has its own (NPWG v1.3 s.4.1.2.1.11).
func (e *element) parseIPAMClaim() error {
	name, ok, err := e.text("ipam-claim-reference", allowedIPAMClaim)
	if err != nil || !ok {
		return err
	}
	if err := checkName(name); err != nil {
		return e.invalid("ipam-claim-reference", allowedIPAMClaim, "%w", err)
	}
	if ips, _ := e.Asked(); len(ips) > 0 {
		return e.invalid("ipam-claim-reference", "give one of the two", "%s is given together with ips",
			strictjson.Quote(name))
	}
	e.IPAMClaim = name
	return nil
}
