package plan

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"

	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/selection"
)

// Capabilities that Braid itself provides values for (CNI CONVENTIONS.md and the Device Information Specification).
const (
	capDeviceID   = "deviceID"
	capDeviceInfo = "CNIDeviceInfoFile"
)

// request is one wish of a selection that becomes a key of runtimeConfig.
type request struct {
	field      string // in the annotation
	capability string
	value      any
}

// requestsOf lists the wishes of a selection that need a capability (NPWG v1.3 s.4.1.2.1).
func requestsOf(s selection.Selection) []request {
	var out []request
	add := func(wanted bool, field, capability string, value any) {
		if wanted {
			out = append(out, request{field, capability, value})
		}
	}
	add(len(s.IPs) > 0, "ips", "ips", s.IPs)
	add(s.MAC != "", "mac", "mac", s.MAC)
	add(s.InfinibandGUID != "", "infiniband-guid", "infinibandGUID", s.InfinibandGUID)
	add(len(s.PortMappings) > 0, "portMappings", "portMappings", s.PortMappings)
	add(s.Bandwidth != nil, "bandwidth", "bandwidth", s.Bandwidth)
	return out
}

// runtimeConfig is what the pod asks for, over what the runtime passed. The runtime means the default network (hostPorts of the
// pod, its cgroup, its DNS), so no other network gets any of that. A wish of the pod that no plugin declares is an error: the
// pod would run without what it asked for. libcni gives each plugin the keys that it declares; what none declares would only be recorded.
func runtimeConfig(cfg *conf.Config, r Request, list *conf.List) (map[string]json.RawMessage, error) {
	out, declared := map[string]json.RawMessage{}, list.Capabilities()
	if r.Default {
		maps.Copy(out, cfg.RuntimeConfig)
		maps.DeleteFunc(out, func(capability string, _ json.RawMessage) bool { return !declared[capability] })
	}
	if r.Selection == nil {
		return out, nil
	}
	for _, q := range requestsOf(*r.Selection) {
		if !declared[q.capability] {
			return nil, missingCapability(q, list)
		}
		raw, err := json.Marshal(q.value)
		if err != nil {
			return nil, fmt.Errorf("encode %s: %w", q.field, err)
		}
		out[q.capability] = raw
	}
	return out, nil
}

func missingCapability(q request, list *conf.List) error {
	return &failure.Error{
		Reason: failure.MissingCapability, Field: q.field,
		Err: fmt.Errorf("the pod asks for %s, but no plugin of the chain (%s) declares the capability %q",
			q.field, strings.Join(list.Types(), ", "), q.capability),
		Fix: fmt.Sprintf(`add "capabilities": {%q: true} to a plugin that supports it, or remove %s from the pod's annotation`,
			q.capability, q.field),
	}
}
