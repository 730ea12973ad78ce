package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/braid-cni/braid/pkg/strictjson"
)

// Network is an attachment to a network of a NAD.
type Network struct {
	// Conf is the network's conflist, as the plugins get it. It passed netconf.Parse.
	Conf json.RawMessage
	// IfName is the pod's interface.
	IfName string
	// Runs are the plugins that were looked for, and where they run.
	Runs []Run
	// OnDisk is true if the NAD has no configuration, so that Conf is the operator's file.
	OnDisk bool
	// IPs are the addresses that the pod asks for.
	IPs []string
}

// Run is where a plugin runs.
type Run struct {
	// Index is the plugin's position in the chain.
	Index int
	// IPAM is true if the plugin at Index calls it.
	IPAM bool
	// Execd is true if it is a binary.
	Execd bool
	// Unknown is the first key that the built-in plugin does not know; empty for none.
	Unknown string
}

// Judge returns all violations of a rule by a network.
func Judge(rule *Rule, n *Network) []Violation {
	if rule.All {
		return nil
	}
	j := &judge{rule: rule, network: n}
	if n.OnDisk {
		if !rule.OnDisk {
			j.add("spec.config", "onDisk",
				func(r *Rule) {
					r.OnDisk = true
				}, "a NAD without a configuration means a file of the node, which is not allowed")
		}
		return j.found
	}
	j.plugins()
	j.addresses()
	return j.found
}

// Addresses returns how many addresses an attachment to a network gets, as far as its configuration
// says it: one from each source, or those that the pod asks for.
func Addresses(n *Network) int {
	rule := Default()
	j := &judge{rule: &rule, network: n}
	j.plugins()
	return max(j.ranges, len(n.IPs))
}

// judge judges one network.
type judge struct {
	rule    *Rule
	network *Network
	found   []Violation
	// kind is the type of the plugin whose keys are read, path is where it is, and run where it runs.
	kind, path string
	run        Run
	// inPod is true if the plugin's master is in the pod.
	inPod bool
	// ranges counts where addresses come from.
	ranges int
}

// plugins judges the chain.
func (j *judge) plugins() {
	for _, m := range strictjson.Members(j.network.Conf) {
		switch {
		case m.Key == "plugins":
			for i, raw := range strictjson.Elements(m.Value) {
				j.plugin("plugins["+strconv.Itoa(i)+"]", raw, place(j.network.Runs, i))
			}
		case runtimes(strictjson.Fold(m.Key)):
			j.runtimeKey(m.Key)
		}
	}
}

// add adds a violation of a key of the rule. allow changes a rule so that it is none.
func (j *judge) add(field, key string, allow func(*Rule), format string, args ...any) {
	j.found = append(j.found, Violation{field, j.kind, key, fmt.Sprintf(format, args...), allow})
}

// place returns where a plugin of the chain runs. One that nobody looked for counts as a binary.
func place(runs []Run, index int) Run {
	for _, r := range runs {
		if r.Index == index && !r.IPAM {
			return r
		}
	}
	return binary()
}

// plugin judges the configuration of a plugin and of those that it calls itself.
func (j *judge) plugin(path string, raw json.RawMessage, run Run) {
	j.members(path, strictjson.Members(raw), run)
}

// members judges a plugin's keys. What j knows of the outer plugin is there again afterwards.
func (j *judge) members(path string, members []strictjson.Member, run Run) {
	outer := *j
	j.path, j.kind, j.run = path, kindOf(members), run
	j.runs()
	j.inPod = inPod(j.kind, members)
	j.master(members)
	j.spoofing(members)
	for _, m := range members {
		j.key(path, m)
	}
	j.path, j.kind, j.run, j.inPod = outer.path, outer.kind, outer.run, outer.inPod
}

// kindOf returns the type of a plugin.
func kindOf(members []strictjson.Member) string {
	for _, m := range members {
		if strictjson.Fold(m.Key) == "type" {
			return text(m.Value)
		}
	}
	return ""
}

// runs judges the type, and what runs it.
func (j *judge) runs() {
	if j.kind == "" || j.mayRun() {
		return
	}
	field, name := j.path+".type", strictjson.Quote(j.kind)
	exec := addText(func(r *Rule) *[]string { return &r.Exec }, j.kind)
	switch {
	case !slices.Contains(builtIn(), j.kind):
		j.add(field, "exec", exec, "the plugin %s is a binary, and of binaries %s may run", name,
			names(j.rule.Exec))
	case j.run.Unknown != "":
		j.add(fmt.Sprintf("plugins[%d].%s", j.run.Index, j.run.Unknown), "exec", exec,
			"the built-in plugin %s has no such key, and of binaries %s may run", name, names(j.rule.Exec))
	case j.run.Execd:
		j.add(field, "exec", exec,
			"a binary would run in the place of the built-in plugin %s, and of binaries %s may run", name,
			names(j.rule.Exec))
	case !slices.Contains(j.rule.Types, j.kind):
		j.add(field, "types", addText(func(r *Rule) *[]string {
			return &r.Types
		}, j.kind), "of plugins %s may run", names(j.rule.Types))
	}
}

// mayRun reports whether a plugin is one of the rule's binaries or, in-process with nothing that
// needs a binary, one of its types.
func (j *judge) mayRun() bool {
	return slices.Contains(j.rule.Exec, j.kind) ||
		!j.run.Execd && j.run.Unknown == "" && slices.Contains(j.rule.Types, j.kind)
}

// key judges one key of the plugin at path.
func (j *judge) key(path string, m strictjson.Member) {
	switch key := strictjson.Fold(m.Key); key {
	case "vlan", "vlanid", "vlantrunk", "trunk":
		if !j.inPod {
			j.vlans(at(path, m), m.Value)
		}
	case "bridge":
		j.bridge(at(path, m), m.Value)
	case "sysctl":
		j.sysctls(at(path, m), m.Value)
	case "ipam":
		path, members := at(path, m), strictjson.Members(m.Value)
		j.members(path, members, j.ipamRun())
		if members == nil { // it may be a list of sources
			j.sources(path, m.Value)
		}
		j.sourcesIn(path, members)
	case "delegate":
		j.plugin(at(path, m), m.Value, binary())
	case "delegates", "plugins":
		for i, element := range strictjson.Elements(m.Value) {
			j.plugin(fmt.Sprintf("%s[%d]", at(path, m), i), element, binary())
		}
	case "runtimeconfig":
		j.runtime(at(path, m), m.Value)
	case "args":
		j.args(at(path, m), m.Value)
	default:
		if runtimes(key) {
			j.runtimeKey(at(path, m))
		}
	}
}

// at returns the path of a key, for messages.
func at(path string, m strictjson.Member) string { return path + "." + strictjson.Label(m.Key) }

// binary returns the place of a plugin that another plugin calls. Braid has no say in it, so it
// counts as a binary.
func binary() Run { return Run{Execd: true} }

// ipamRun returns where the IPAM plugin of the present plugin runs. A binary calls a binary. A
// built-in plugin whose IPAM plugin was not looked for calls none.
func (j *judge) ipamRun() Run {
	if j.run.Execd || j.run.IPAM {
		return binary()
	}
	for _, r := range j.network.Runs {
		if r.Index == j.run.Index && r.IPAM {
			return r
		}
	}
	return Run{Index: j.run.Index, IPAM: true}
}

// runtimes reports whether only a runtime adds the key.
func runtimes(key string) bool { return key == "prevresult" || strings.HasPrefix(key, "cni.dev/") }

// runtimeKey adds the violation of a key that a configuration must not have.
func (j *judge) runtimeKey(field string) {
	j.add(field, "", allowAll, "the key is the runtime's to add")
}

// text returns a string; empty for what is none.
func text(raw json.RawMessage) string {
	if len(raw) > 1 && raw[0] == '"' && bytes.IndexByte(raw, '\\') < 0 {
		return string(raw[1 : len(raw)-1])
	}
	return strictjson.Text(raw)
}

// names lists what is allowed, for messages.
func names[T any](list []T) string {
	if len(list) == 0 {
		return "none"
	}
	all := make([]string, len(list))
	for i, one := range list {
		all[i] = fmt.Sprint(one)
	}
	return strings.Join(all, ", ")
}
