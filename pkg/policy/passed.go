package policy

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/braid-cni/braid/pkg/strictjson"
)

// runtime judges runtimeConfig in the configuration. A plugin that does not declare the capability
// takes it for the runtime's.
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

// port judges a port of the node. What is no port is refused elsewhere.
func (j *judge) port(field string, port int) {
	s := Span{port, port}
	if port > 0 && port <= maxPort && !s.within(j.rule.HostPorts.Ports) {
		j.add(field, "hostPorts", addSpan(func(r *Rule) *[]Span { return &r.HostPorts.Ports }, s),
			"the port of the node is %d, and of ports %s may be asked for", port,
			names(j.rule.HostPorts.Ports))
	}
}

// hostIP judges the address of the node that a port is asked for at.
func (j *judge) hostIP(field, ip string) {
	addr, err := netip.ParseAddr(ip)
	if err == nil && addr.Unmap().IsLoopback() && !j.rule.HostPorts.Loopback {
		j.add(field, "hostPorts",
			func(r *Rule) {
				r.HostPorts.Loopback = true
			}, "ports of loopback addresses may not be asked for")
	}
}
