package policy

import (
	"encoding/json"
	"slices"
	"strings"

	"github.com/braid-cni/braid/pkg/strictjson"
)

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
	own := ownParameter(names, ifName)
	return slices.ContainsFunc(r.Sysctls, func(pattern string) bool {
		pattern = parameter(pattern)
		return matches(pattern, own) || matches(pattern, path)
	}) || slices.Contains(r.Sysctls, key)
}

// ownParameter returns the path of a parameter with IFNAME in the place of the interface's name, as
// rules have it. "all" and "default" mean other interfaces, too.
func ownParameter(names []string, ifName string) string {
	if ifName != "all" && ifName != "default" {
		for i, name := range names {
			if name == ifName {
				names[i] = "IFNAME"
			}
		}
	}
	return strings.Join(names, "/")
}

// parameter returns the path of a parameter, as sysctl.d(5) reads its key: the first separator
// decides.
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
