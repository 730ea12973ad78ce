package policy

import (
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"strconv"

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

// master judges the link of the node that a plugin works on. If the plugin names none, it takes the
// link of the default route, or one of another key, or that of the plugin before it.
func (j *judge) master(members []strictjson.Member) {
	if j.inPod {
		return
	}
	named, alone := false, takesOver(members)
	for _, m := range members {
		key := strictjson.Fold(m.Key)
		if key != "master" && key != "device" {
			continue
		}
		if link := text(m.Value); link != "" {
			named = true
			j.link(at(j.path, m), link, alone)
		}
	}
	if !named && slices.Contains([]string{"macvlan", "ipvlan", "vlan", "host-device"}, j.kind) {
		j.link(j.path+".master", "", false)
	}
}

// takesOver reports whether a plugin takes its master for itself alone, as macvlan and macvtap do
// in mode passthru.
func takesOver(members []strictjson.Member) bool {
	return slices.ContainsFunc(members, func(m strictjson.Member) bool {
		return strictjson.Fold(m.Key) == "mode" && text(m.Value) == "passthru"
	})
}

// link judges a link of the node. A network that has it alone takes it from all others, so a
// pattern does not allow that.
func (j *judge) link(field, link string, alone bool) {
	into := func(r *Rule) *[]string { return &r.Masters }
	switch {
	case link == "" && !anyMatches(j.rule.Masters, link):
		j.add(field, "masters", addText(into, "*"),
			"without a master the node's own link is taken, and of masters %s may be used",
			names(j.rule.Masters))
	case !anyMatches(j.rule.Masters, link):
		j.add(field, "masters", addText(into, link), "the master is %s, and of masters %s may be used",
			strictjson.Quote(link), names(j.rule.Masters))
	case alone && !slices.Contains(j.rule.Masters, link):
		j.add(field, "masters", addText(into, link),
			"in mode passthru the network has the master %s for itself, which a rule has to name whole, "+
				"and it names %s",
			strictjson.Quote(link), names(j.rule.Masters))
	}
}

// bridge judges the name of a bridge.
func (j *judge) bridge(field string, raw json.RawMessage) {
	name := text(raw)
	if j.kind != "bridge" && j.kind != "ovs" || j.rule.Bridges == nil ||
		anyMatches(j.rule.Bridges, name) || name == "" {
		return
	}
	j.add(field, "bridges", addText(func(r *Rule) *[]string { return &r.Bridges }, name),
		"the bridge is %s, and of bridges %s may be used", strictjson.Quote(name), names(j.rule.Bridges))
}

// spoofing judges whether a bridge checks what a pod sends. The built-in plugin does by default, a
// binary does not.
func (j *judge) spoofing(members []strictjson.Member) {
	if j.kind != "bridge" || j.rule.Spoofing {
		return
	}
	if field, checks := j.spoofCheck(members); !checks {
		j.add(field, "spoofing",
			func(r *Rule) {
				r.Spoofing = true
			}, "pods could send with the MAC addresses of others, as macspoofchk is not on")
	}
}

// spoofCheck returns whether the bridge checks, and the key that decides. Where the key is there
// several times, each has to say so.
func (j *judge) spoofCheck(members []strictjson.Member) (field string, checks bool) {
	field, checks = j.path+".macspoofchk", !j.run.Execd
	for _, m := range members {
		if strictjson.Fold(m.Key) != "macspoofchk" || strictjson.Null(m.Value) {
			continue
		}
		field, checks = at(j.path, m), true
		if on, err := strictjson.Bool(m.Value); err != nil || !on {
			return field, false
		}
	}
	return field, checks
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
		j.trunk(field, strictjson.Members(raw))
	default:
		id := vlanOf(raw)
		if id == unreadable {
			j.span(field, Span{1, maxVLAN})
		} else if id > 0 {
			j.span(field, Span{id, id})
		}
	}
}

// trunk judges an element of vlanTrunk: a VLAN, a range, or both.
func (j *judge) trunk(field string, members []strictjson.Member) {
	var s Span
	for _, m := range members {
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
}

// unreadable stands for what is no number of a VLAN, and is beyond all of them.
const unreadable = math.MaxInt32

// vlanOf returns a number; 0 is none.
func vlanOf(raw json.RawMessage) int {
	id, err := strconv.Atoi(string(raw))
	if err != nil || id > maxVLAN {
		return unreadable
	}
	return max(id, 0)
}

// span judges a range of VLANs.
func (j *judge) span(field string, s Span) {
	s.From, s.To = min(s.From, maxVLAN), min(s.To, maxVLAN)
	if !s.within(j.rule.VLANs) {
		j.add(field, "vlans", addSpan(func(r *Rule) *[]Span {
			return &r.VLANs
		}, s), "the VLAN is %s, and of VLANs %s may be used", s, names(j.rule.VLANs))
	}
}
