package policy

import (
	"encoding/json"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/braid-cni/braid/pkg/strictjson"
)

// inPod reports whether the link that a plugin works on is in the pod, by the key that some plugins
// have for it.
func inPod(kind string, members []strictjson.Member) bool {
	if kind != "macvlan" && kind != "ipvlan" && kind != "vlan" {
		return false
	}
	in := false
	for _, m := range members {
		if strictjson.Fold(m.Key) == "linkincontainer" {
			if in, _ = strictjson.Bool(m.Value); !in { // of two a plugin may take either
				return false
			}
		}
	}
	return in
}

// master judges the link of the node that a plugin works on. One that needs a master and names none
// takes that of the default route, one that it has another key for, or what the plugin before it
// made, by its name on the node.
func (j *judge) master(members []strictjson.Member) {
	if j.inPod {
		return
	}
	named := false
	for _, m := range members {
		key := strictjson.Fold(m.Key)
		if key != "master" && key != "device" {
			continue
		}
		if link := text(m.Value); link != "" {
			named = true
			j.link(at(j.path, m), link)
		}
	}
	if !named && slices.Contains([]string{"macvlan", "ipvlan", "vlan", "host-device"}, j.kind) {
		j.link(j.path+".master", "")
	}
}

func (j *judge) link(field, link string) {
	into := func(r *Rule) *[]string { return &r.Masters }
	switch {
	case anyMatches(j.rule.Masters, link):
	case link == "":
		j.add(field, "masters", addText(into, "*"), "without a master the node's own link is taken, and of masters %s may be used", names(j.rule.Masters))
	default:
		j.add(field, "masters", addText(into, link), "the master is %s, and of masters %s may be used", strictjson.Quote(link), names(j.rule.Masters))
	}
}

// bridge judges the name of a bridge.
func (j *judge) bridge(field string, raw json.RawMessage) {
	name := text(raw)
	if j.kind != "bridge" && j.kind != "ovs" || j.rule.Bridges == nil || anyMatches(j.rule.Bridges, name) || name == "" {
		return
	}
	j.add(field, "bridges", addText(func(r *Rule) *[]string { return &r.Bridges }, name),
		"the bridge is %s, and of bridges %s may be used", strictjson.Quote(name), names(j.rule.Bridges))
}

// vlans judges numbers of VLANs: one, a list, or a list of objects as of the key vlanTrunk.
func (j *judge) vlans(field string, raw json.RawMessage) {
	switch strictjson.Kind(raw) {
	case "null":
	case "a list":
		for i, element := range strictjson.Elements(raw) {
			j.vlans(fmt.Sprintf("%s[%d]", field, i), element)
		}
	case "an object":
		s := Span{0, 0}
		for _, m := range strictjson.Members(raw) {
			switch strictjson.Fold(m.Key) {
			case "id":
				j.vlans(at(field, m), m.Value)
			case "minid":
				s.From = vlanOf(m.Value)
			case "maxid":
				s.To = vlanOf(m.Value)
			}
		}
		if s != (Span{}) {
			j.span(field, Span{max(s.From, 1), max(s.To, s.From, 1)})
		}
	default:
		id := vlanOf(raw)
		if id == unreadable {
			j.span(field, Span{1, maxVLAN})
		} else if id > 0 {
			j.span(field, Span{id, id})
		}
	}
}

const unreadable = math.MaxInt32

// vlanOf is a number; 0 is none.
func vlanOf(raw json.RawMessage) int {
	id, err := strconv.Atoi(string(raw))
	if err != nil || id > maxVLAN {
		return unreadable
	}
	return max(id, 0)
}

func (j *judge) span(field string, s Span) {
	s.From, s.To = min(s.From, maxVLAN), min(s.To, maxVLAN)
	if !s.within(j.rule.VLANs) {
		j.add(field, "vlans", addSpan(func(r *Rule) *[]Span { return &r.VLANs }, s), "the VLAN is %s, and of VLANs %s may be used", s, names(j.rule.VLANs))
	}
}

// sysctls judges the parameters that are written.
func (j *judge) sysctls(field string, raw json.RawMessage) {
	for _, m := range strictjson.Members(raw) {
		if !j.rule.sysctl(m.Key, j.network.IfName) {
			j.add(at(field, m), "sysctls", addText(func(r *Rule) *[]string { return &r.Sysctls }, m.Key),
				"the parameter may not be written, of parameters %s may", names(j.rule.Sysctls))
		}
	}
}

// sysctl reports whether a parameter may be written for an interface.
func (r *Rule) sysctl(key, ifName string) bool {
	path := strings.Replace(parameter(key), "IFNAME", ifName, 1)
	names := strings.Split(path, "/")
	detour := func(name string) bool { return name == "" || name == "." || name == ".." }
	if slices.ContainsFunc(names, detour) {
		return slices.Contains(r.Sysctls, key)
	}
	own := path
	if ifName != "all" && ifName != "default" { // these mean other interfaces, too
		for i, name := range names {
			if name == ifName {
				names[i] = "IFNAME"
			}
		}
		own = strings.Join(names, "/")
	}
	return slices.ContainsFunc(r.Sysctls, func(pattern string) bool {
		pattern = parameter(pattern)
		return matches(pattern, own) || matches(pattern, path)
	}) || slices.Contains(r.Sysctls, key)
}

// parameter is the path of a parameter, as sysctl.d(5) reads its key: the first separator decides.
func parameter(key string) string {
	if i := strings.IndexAny(key, "./"); i >= 0 && key[i] == '.' {
		return strings.Map(func(r rune) rune {
			switch r {
			case '.':
				return '/'
			case '/':
				return '.'
			}
			return r
		}, key)
	}
	return key
}

// runtime judges what the configuration has in the place of what a runtime passes: a plugin that
// does not declare the capability takes it for that.
func (j *judge) runtime(field string, raw json.RawMessage) {
	for _, m := range strictjson.Members(raw) {
		switch strictjson.Fold(m.Key) {
		case "portmappings":
			for i, element := range strictjson.Elements(m.Value) {
				j.mapping(fmt.Sprintf("%s[%d]", at(field, m), i), element)
			}
		case "ips":
			j.asked(at(field, m), m.Value)
		case "ipranges":
			j.sources(at(field, m), m.Value)
		}
	}
}

// args judges args.cni, where a pod's cni-args are.
func (j *judge) args(field string, raw json.RawMessage) {
	for _, m := range strictjson.Members(raw) {
		if strictjson.Fold(m.Key) != "cni" {
			continue
		}
		for _, arg := range strictjson.Members(m.Value) {
			switch strictjson.Fold(arg.Key) {
			case "sysctl":
				j.sysctls(at(at(field, m), arg), arg.Value)
			case "ips":
				j.asked(at(at(field, m), arg), arg.Value)
			}
		}
	}
}

// mapping judges a port of the node.
func (j *judge) mapping(field string, raw json.RawMessage) {
	for _, m := range strictjson.Members(raw) {
		switch strictjson.Fold(m.Key) {
		case "hostport":
			if port, err := strconv.Atoi(string(m.Value)); err == nil {
				j.port(at(field, m), port)
			}
		case "hostip":
			j.hostIP(at(field, m), text(m.Value))
		}
	}
}

func (j *judge) port(field string, port int) {
	s := Span{port, port}
	if port > 0 && port <= maxPort && !s.within(j.rule.HostPorts.Ports) {
		j.add(field, "hostPorts", addSpan(func(r *Rule) *[]Span { return &r.HostPorts.Ports }, s),
			"the port of the node is %d, and of ports %s may be asked for", port, names(j.rule.HostPorts.Ports))
	}
}

func (j *judge) hostIP(field, ip string) {
	addr, err := netip.ParseAddr(ip)
	if err == nil && addr.Unmap().IsLoopback() && !j.rule.HostPorts.Loopback {
		j.add(field, "hostPorts", func(r *Rule) { r.HostPorts.Loopback = true }, "ports of loopback addresses may not be asked for")
	}
}

// asked judges a list of addresses.
func (j *judge) asked(field string, raw json.RawMessage) {
	for i, element := range strictjson.Elements(raw) {
		j.prefix(fmt.Sprintf("%s[%d]", field, i), text(element))
	}
}

// sources judges where addresses come from: the ranges and the addresses of IPAM plugins, at
// whatever depth, by the keys of the built-in ones.
func (j *judge) sources(field string, raw json.RawMessage) {
	switch strictjson.Kind(raw) {
	case "a list":
		for i, element := range strictjson.Elements(raw) {
			j.sources(fmt.Sprintf("%s[%d]", field, i), element)
		}
	case "an object":
		for _, m := range strictjson.Members(raw) {
			switch strictjson.Fold(m.Key) {
			case "subnet", "range", "address":
				if value := text(m.Value); value != "" {
					j.ranges++
					j.address(field, m, value)
				}
			case "gateway", "rangestart", "rangeend", "range_start", "range_end":
				j.address(field, m, text(m.Value))
			case "ranges", "ipranges", "addresses":
				j.sources(at(field, m), m.Value)
			}
		}
	}
}

// addresses judges what the network is as a whole.
func (j *judge) addresses() {
	j.kind = ""
	for i, ip := range j.network.IPs {
		j.prefix(fmt.Sprintf("ips[%d]", i), ip)
	}
	if j.ranges > j.rule.Ranges {
		j.add("ipam", "ranges", raise(func(r *Rule) *int { return &r.Ranges }, j.ranges),
			"addresses come from %d ranges, at most %d are allowed", j.ranges, j.rule.Ranges)
	}
}

// address judges the value of a key.
func (j *judge) address(path string, m strictjson.Member, value string) {
	if value != "" && j.outside(value).IsValid() {
		j.prefix(at(path, m), value)
	}
}

// prefix judges an address, a prefix, or a range "first-last/length". What is none of these the
// plugin refuses.
func (j *judge) prefix(field, value string) {
	if p := j.outside(value); p.IsValid() {
		j.add(field, "prefixes", addPrefixes(prefixesOf(value)), "%s is in none of the prefixes that may be used, %s", p, names(j.rule.Prefixes))
	}
}

// outside is the first of a value's prefixes that is in none of the rule's; the zero value if there
// is none.
func (j *judge) outside(value string) netip.Prefix {
	if j.rule.Prefixes == nil {
		return netip.Prefix{}
	}
	for _, p := range prefixesOf(value) {
		if !covered(p, j.rule.Prefixes) {
			return p
		}
	}
	return netip.Prefix{}
}

// prefixesOf are the prefix, or the first and the last address of a range; none if the text is none.
func prefixesOf(value string) (all []netip.Prefix) {
	if p, err := netip.ParsePrefix(value); err == nil {
		return []netip.Prefix{unmapped(p).Masked()}
	}
	value, _, _ = strings.Cut(value, "/")
	for part := range strings.SplitSeq(value, "-") {
		if a, err := netip.ParseAddr(strings.TrimSpace(part)); err == nil {
			a = a.Unmap().WithZone("")
			all = append(all, netip.PrefixFrom(a, a.BitLen()))
		}
	}
	return all
}

// unmapped is a prefix of IPv4 addresses where it is one of those in IPv6.
func unmapped(p netip.Prefix) netip.Prefix {
	const mapped = 96
	if p.Addr().Is4In6() && p.Bits() >= mapped {
		return netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-mapped)
	}
	return netip.PrefixFrom(p.Addr().WithZone(""), p.Bits())
}
