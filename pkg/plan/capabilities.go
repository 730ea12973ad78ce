package plan

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/netconf"
	"github.com/braid-cni/braid/pkg/selection"
)

// Capabilities that Braid itself provides values for (CNI CONVENTIONS.md and the Device Information
// Specification).
const (
	capDeviceID   = "deviceID"
	capDeviceInfo = "CNIDeviceInfoFile"
)

// request is one wish of a selection.
type request struct {
	field      string // in the annotation
	capability string
	value      any
	// arg is the key of CNI_ARGS that carries the wish to plugins without the capability, as in
	// Multus; empty where there is none.
	arg, text string
}

// requestsOf lists the wishes of a selection that need a plugin's help (NPWG v1.3 s.4.1.2.1).
func requestsOf(s selection.Selection) []request {
	var out []request
	add := func(wanted bool, r request) {
		if wanted {
			out = append(out, r)
		}
	}
	add(len(s.IPs) > 0, request{
		field: "ips", capability: "ips", value: s.IPs, arg: "IP", text: strings.Join(s.IPs, ","),
	})
	add(s.MAC != "", request{field: "mac", capability: "mac", value: s.MAC, arg: "MAC", text: s.MAC})
	add(s.InfinibandGUID != "",
		request{field: "infiniband-guid", capability: "infinibandGUID", value: s.InfinibandGUID})
	add(len(s.PortMappings) > 0,
		request{field: "portMappings", capability: "portMappings", value: s.PortMappings})
	add(s.Bandwidth != nil, request{field: "bandwidth", capability: "bandwidth", value: s.Bandwidth})
	return out
}

// ask puts what the pod asks for into the attachment: as runtimeConfig if a plugin declares the
// capability, else into CNI_ARGS. A wish that fits neither is an error: the pod would run without
// what it asked for. The runtime's own values (hostPorts, cgroup, DNS) are for the default network,
// and no other network gets them. Values that no plugin declares are left out, as libcni would not
// pass them.
func (a *Attachment) ask(call *conf.Call, r Request, list *netconf.List) error {
	declared := list.Capabilities()
	a.RuntimeConfig = map[string]json.RawMessage{}
	if r.Default {
		maps.Copy(a.RuntimeConfig, call.RuntimeConfig)
		maps.DeleteFunc(a.RuntimeConfig, func(capability string, _ json.RawMessage) bool {
			return !declared[capability]
		})
	}
	if r.Selection == nil {
		return nil
	}
	a.IPs, a.MAC = r.Selection.Asked()
	if err := judgeArgs(r.Selection, list); err != nil {
		return err
	}
	for _, q := range requestsOf(*r.Selection) {
		if err := a.pass(q, declared[q.capability], list); err != nil {
			return err
		}
	}
	return nil
}

// pass passes one wish to the plugins, in each way that they take it.
func (a *Attachment) pass(q request, declared bool, list *netconf.List) error {
	switch {
	case q.arg != "" && !reaches(q.capability, list) && readsArg(q.capability, list):
		a.setArg(q.arg, q.text)
	case !declared:
		return missingCapability(q, list)
	}
	if !declared {
		return nil
	}
	raw, err := json.Marshal(q.value)
	if err != nil {
		return fmt.Errorf("encode %s: %w", q.field, err)
	}
	a.RuntimeConfig[q.capability] = raw
	return nil
}

// judgeArgs checks what cni-args asks for as if it were asked for by its own key. Plugins get it in
// args.cni already.
func judgeArgs(s *selection.Selection, list *netconf.List) error {
	ips, _ := s.Asked()
	if len(s.IPs) > 0 || len(ips) == 0 || reaches("ips", list) || readsArg("ips", list) {
		return nil
	}
	return missingCapability(request{field: "cni-args.ips", capability: "ips"}, list)
}

// reaches reports whether a plugin that can act on the capability declares it. If plugins of the
// chain have an "ipam", only these can act on addresses: tuning that declares "ips" is not enough.
func reaches(capability string, list *netconf.List) bool {
	addressed := false
	for i := range list.Len() {
		if capability != "ips" || !list.HasIPAM(i) {
			continue
		}
		if list.PluginHas(i, capability) {
			return true
		}
		addressed = true
	}
	return !addressed && list.Capabilities()[capability]
}

// readsArg reports whether some plugin may read a request in CNI_ARGS. The reference's plugins
// leave addresses to their IPAM plugins.
func readsArg(capability string, list *netconf.List) bool {
	if capability != "ips" {
		return true
	}
	reference := []string{
		"bandwidth", "bridge", "dummy", "firewall", "host-device", "ipvlan", "macvlan", "portmap", "ptp",
		"sbr", "tap", "tuning", "vlan", "vrf",
	}
	for i, kind := range list.Types() {
		if list.HasIPAM(i) || !slices.Contains(reference, kind) {
			return true
		}
	}
	return false
}

// setArg sets a key of CNI_ARGS, or replaces the runtime's.
func (a *Attachment) setArg(key, value string) {
	a.Args = slices.DeleteFunc(a.Args, func(pair [2]string) bool { return pair[0] == key })
	a.Args = append(a.Args, [2]string{key, value})
}

// missingCapability is the error of a wish that no plugin of the chain takes.
func missingCapability(q request, list *netconf.List) error {
	fix := fmt.Sprintf(`add "capabilities": {%q: true} to a plugin that supports it`, q.capability)
	if q.capability == "ips" {
		fix = `add an "ipam" that supports it, such as {"type": "static"}, and ` +
			`"capabilities": {"ips": true} beside it`
	}
	return &failure.Error{
		Reason: failure.MissingCapability, Field: q.field,
		Err: fmt.Errorf("the pod asks for %s, but no plugin of the chain (%s) declares the capability %q",
			q.field, strings.Join(list.Types(), ", "), q.capability),
		Fix: fmt.Sprintf("%s, or remove %s from the pod's annotation", fix, q.field),
	}
}

// Address returns an element of a selection's IPs without its prefix length.
func Address(ip string) (netip.Addr, error) {
	bare, _, _ := strings.Cut(ip, "/")
	addr, err := netip.ParseAddr(bare)
	if err != nil {
		return addr, fmt.Errorf("read address: %w", err)
	}
	return addr, nil
}
