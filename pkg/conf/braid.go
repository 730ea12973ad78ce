package conf

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/netconf"
	"github.com/braid-cni/braid/pkg/policy"
	"github.com/braid-cni/braid/pkg/strictjson"
)

const allowedDuration = `give a positive duration: "90s"`

// braidKeys returns those of the object "braid", which has Braid's own.
func braidKeys() []string {
	return []string{
		"manifests", "stateDir", "deviceInfoDir", "podResources", "exec", "nodeName",
		"unknownKeys", "secondaryDefaultRoute", "dataRoots", "policy", "policyDefault",
		"aliases", "hotplug", "timeouts",
	}
}

// readBraid reads the keys of "braid" that are the node's.
func (n *Node) readBraid(o *object) {
	b := o.inner("braid")
	b.only(braidKeys()...)
	n.Manifests = field(b, "manifests", "", allowedPath, optionalPath)
	n.StateDir = field(b, "stateDir", DefaultStateDir, allowedStateDir, ownDir)
	n.DeviceInfoDir = field(b, "deviceInfoDir", DefaultDeviceInfoDir, allowedStateDir, ownDir)
	n.PodResources = field(b, "podResources", DefaultPodResources, allowedPath, absPath)
	n.Exec = field(b, "exec", nil, "give a list of plugin types", listOf(pluginType))
	n.Aliases = field(b, "aliases", nil,
		`give plugin types by their other names: {"cnv-bridge": "bridge"}`, aliases)
	n.HotPlug = field(b, "hotplug", false, allowedBool, strictjson.Bool)
	n.NodeName = field(b, "nodeName", "", "give the name of the Node object", optional(nodeName))
	t := b.inner("timeouts")
	t.only("operation", "rollback", "api", "status")
	n.Timeouts = Timeouts{
		Operation: field(t, "operation", DefaultOperationTimeout, allowedDuration, duration),
		Rollback:  field(t, "rollback", DefaultRollbackTimeout, allowedDuration, duration),
		API:       field(t, "api", DefaultAPITimeout, allowedDuration, duration),
		Status:    field(t, "status", DefaultStatusTimeout, allowedDuration, duration),
	}
	o.err = t.err
}

// readBraid reads the keys of "braid" that are of the policy.
func (p *Policy) readBraid(o *object, rules func(*Policy, *object)) {
	b := o.inner("braid")
	p.DataRoots = field(b, "dataRoots", defaultDataRoots(), "give a list of absolute paths",
		listOf(ownDir))
	p.RefuseUnknownKeys = field(b, "unknownKeys", false, `give "warn" or "refuse"`, refusesUnknown)
	p.SecondaryDefaultRoute = field(b, "secondaryDefaultRoute", KeepDefaultRoute,
		`give "keep", "take" or "refuse"`, secondaryDefaultRoute)
	rules(p, b)
	o.err, o.warnings = b.err, append(o.warnings, b.warnings...)
}

// readRules reads the policy of namespaces.
func (p *Policy) readRules(b *object) {
	p.PolicyDefault = field(b, "policyDefault", AuditPolicy, `give "audit" or "enforce"`,
		policyDefault)
	if raw := b.raw("policy"); b.err == nil && !strictjson.Null(raw) {
		p.Rules, b.err = policy.Parse(b.path+"policy", raw)
	}
}

// rulesIfReadable is readRules for operations of the CNI protocol: rules that cannot be read are
// none, and then the tenant's default is enforced.
func (p *Policy) rulesIfReadable(b *object) {
	if b.err != nil {
		return
	}
	p.readRules(b)
	if b.err != nil {
		b.warnings = append(b.warnings, brokenPolicy(b.err))
		p.Rules, p.PolicyDefault, b.err = nil, EnforcePolicy, nil
	}
}

// brokenPolicy returns the warning that the policy cannot be read.
func brokenPolicy(err error) *failure.Error {
	fe := &failure.Error{Err: err}
	if own, ok := errors.AsType[*failure.Error](err); ok {
		*fe = *own
	}
	fe.Reason = failure.OddConfig
	fe.Err = fmt.Errorf("%w; until it can be read, the tenant's default is enforced in every "+
		"namespace but the operator's", fe.Err)
	return fe
}

// policyDefault decodes the value of "policyDefault".
func policyDefault(raw json.RawMessage) (string, error) {
	text, err := quotedString(raw)
	if err == nil && text != AuditPolicy && text != EnforcePolicy {
		err = fmt.Errorf("%s is no way to treat it", strictjson.Quote(text))
	}
	return text, err
}

// secondaryDefaultRoute decodes the value of "secondaryDefaultRoute".
func secondaryDefaultRoute(raw json.RawMessage) (string, error) {
	text, err := quotedString(raw)
	if err != nil {
		return "", err
	}
	if text != KeepDefaultRoute && text != TakeDefaultRoute && text != RefuseDefaultRoute {
		return "", fmt.Errorf("%s is no policy", strictjson.Quote(text))
	}
	return text, nil
}

// pluginType decodes the type of a plugin.
func pluginType(raw json.RawMessage) (string, error) {
	text, err := quotedString(raw)
	if err != nil {
		return "", err
	}
	return text, netconf.CheckType(text)
}

// aliases decodes plugin types by their other names. None is a name of a name.
func aliases(raw json.RawMessage) (map[string]string, error) {
	keys, err := strictjson.Object(raw)
	if err != nil || len(keys) == 0 {
		return nil, err
	}
	all := map[string]string{}
	for name, value := range keys {
		if all[name], err = alias(name, value, keys); err != nil {
			return nil, fmt.Errorf("%s: %w", strictjson.Quote(name), err)
		}
	}
	return all, nil
}

// alias decodes the plugin type that another name, one of names, is for.
func alias(
	name string, value json.RawMessage, names map[string]json.RawMessage,
) (kind string, err error) {
	if kind, err = pluginType(value); err != nil {
		return "", err
	}
	if err := netconf.CheckType(name); err != nil {
		return "", err
	}
	if netconf.IsMeta(name) || netconf.IsMeta(kind) {
		return "", errors.New("is a meta plugin's, which is no network")
	}
	if _, again := names[kind]; again {
		return "", fmt.Errorf("is for %s, which is another name itself", strictjson.Quote(kind))
	}
	return kind, nil
}

// defaultDataRoots returns the directories that CNI plugins have for their data by custom.
func defaultDataRoots() []string { return []string{"/var/lib/cni", "/run/cni"} }

// refusesUnknown decodes the value of "unknownKeys".
func refusesUnknown(raw json.RawMessage) (bool, error) {
	text, err := strictjson.String(raw)
	if err == nil && text != "warn" && text != "refuse" {
		err = fmt.Errorf("%s is no way to treat them", strictjson.Quote(text))
	}
	return text == "refuse", err
}

// duration decodes a time that is longer than nothing, such as "30s".
func duration(raw json.RawMessage) (time.Duration, error) {
	text, err := quotedString(raw)
	if err != nil {
		return 0, err
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("%s is no duration", strictjson.Quote(text))
	}
	if d <= 0 {
		return 0, errors.New(strictjson.Quote(text) + " is not positive")
	}
	return d, nil
}

// quotedString returns a string; the error quotes what is none.
func quotedString(raw json.RawMessage) (string, error) {
	text, err := strictjson.String(raw)
	if err != nil {
		return "", fmt.Errorf("%s %w", strictjson.Quote(string(raw)), err)
	}
	return text, nil
}

// Namespaces are the rules with the namespaces that are the operator's. The NADs of multusNamespace
// are those that Braid's own configuration names.
func (p *Policy) Namespaces(multusNamespace string) *policy.Policy {
	return &policy.Policy{
		Rules: p.Rules, Enforce: p.PolicyDefault == EnforcePolicy,
		Operators: append([]string{DefaultMultusNamespace, multusNamespace}, p.GlobalNamespaces...),
	}
}
