package plan_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/plan"
)

// asking is a scenario of a pod whose networks a and c have devices of a resource.
func asking(networks string) *scenario {
	s := newScenario(networks)
	const config = `{"cniVersion": "1.0.0", "type": "sriov", "capabilities": {"ips": true, ` +
		`"deviceID": true}}`
	s.nad("web/a", config).Annotations[nadv1.ResourceNameAnnotation] = "r"
	s.nad("web/b", `{"cniVersion": "1.0.0", "type": "ipvlan", "capabilities": {"ips": true}}`)
	s.nad("web/c", config).Annotations[nadv1.ResourceNameAnnotation] = "r"
	s.devices = map[string][]string{"r": {"d1", "d2", "d3", "d4", "d5", "d6"}}
	return s
}

// recorded are attachments as they come out of the record.
func recorded(t *testing.T, attachments []plan.Attachment) (read []plan.Attachment) {
	t.Helper()
	raw, err := json.Marshal(attachments)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &read); err != nil {
		t.Fatal(err)
	}
	return read
}

// steps are changes as text, in their order: "-net1=web/a" and "+net1=web/b".
func steps(c plan.Changes) string {
	var all []string
	for _, a := range c.Remove {
		all = append(all, "-"+a.IfName+"="+a.Name)
	}
	for _, a := range c.Add {
		all = append(all, "+"+a.IfName+"="+a.Name)
	}
	return strings.Join(all, " ")
}

// diff is Diff, which must succeed.
func diff(t *testing.T, have, want []plan.Attachment, redefine bool) plan.Changes {
	t.Helper()
	c, err := plan.Diff(have, want, redefine)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// applied are the attachments of a pod after changes.
func applied(have []plan.Attachment, c plan.Changes) []plan.Attachment {
	left := slices.DeleteFunc(slices.Clone(have), func(a plan.Attachment) bool {
		return slices.ContainsFunc(c.Remove, func(r plan.Attachment) bool { return r.IfName == a.IfName })
	})
	return append(left, c.Add...)
}

func TestDiff(t *testing.T) {
	compared(t, map[string]comparison{
		"nothing":              {},
		"the same":             {have: "a,b", want: "a,b"},
		"first networks":       {want: "a,b", steps: "+net1=web/a +net2=web/b"},
		"no networks any more": {have: "a,b", steps: "-net2=web/b -net1=web/a"},
		"one more":             {have: "a", want: "a,b", steps: "+net2=web/b"},
		"one more in front":    {have: "a", want: "b,a", steps: "+net2=web/b"},
		"one less in front":    {have: "a,b", want: "b", steps: "-net1=web/a"},
		"one for another": {
			have: "a,b", want: "c,b",
			steps: "-net1=web/a +net1=web/c",
		},
		"one for another, in another order": {
			have: "a,b", want: "b,c",
			steps: "-net1=web/a +net1=web/c",
		},
		"another order":            {have: "a,b,c", want: "c,a,b"},
		"another order with names": {have: "a@x,b@y", want: "b@y,a@x"},
		"another form": {
			have: "a@x,b",
			want: `[{"name": "a", "interface": "x"}, {"name": "b"}]`,
		},
		"one of two that are alike":         {have: "a,a", want: "a", steps: "-net2=web/a"},
		"one more that is alike":            {have: "a", want: "a,a", steps: "+net2=web/a"},
		"three, one of them by name":        {have: "a,a,a", want: "a@net2,a,a"},
		"two of three, one of them by name": {have: "a,a,a", want: "a,a@net3", steps: "-net2=web/a"},
		"its own name, by name":             {have: "a,b", want: "a@net1,b"},
		"no name any more":                  {have: "a@x", want: "a"},
		"another name":                      {have: "a@x", want: "a@y", steps: "-x=web/a +y=web/a"},
		"names exchanged": {
			have: "a@x,b@y", want: "a@y,b@x",
			steps: "-y=web/b -x=web/a +y=web/a +x=web/b",
		},
		"another network of the name": {have: "a@x", want: "b@x", steps: "-x=web/a +x=web/b"},
		"a chosen name that another wants": {
			have: "a", want: "b@net1,a",
			steps: "-net1=web/a +net1=web/b +net2=web/a",
		},
		"the other one of two goes": {
			have: "a,a", want: "b@net1,a",
			steps: "-net1=web/a +net1=web/b",
		},
	})
}

// What an element asks for counts, and not how it is written.
func TestDiffOfRequests(t *testing.T) {
	compared(t, map[string]comparison{
		"other addresses": {
			have: `[{"name": "b", "ips": ["10.0.0.1/24"]}]`,
			want: `[{"name": "b", "ips": ["10.0.0.2/24"]}]`, steps: "-net1=web/b +net1=web/b",
		},
		"another MAC": {
			have: `[{"name": "b"}]`,
			want: `[{"name": "b", "mac": "02:00:00:00:00:01"}]`, steps: "-net1=web/b +net1=web/b",
		},
		"the MAC in other letters": {
			have: `[{"name": "b", "mac": "02:00:00:00:00:0a"}]`,
			want: `[{"name": "b", "mac": "02:00:00:00:00:0A"}]`,
		},
		"other arguments": {
			have: `[{"name": "b", "cni-args": {"x": 1}}]`,
			want: `[{"name": "b", "cni-args": {"x": 2}}]`, steps: "-net1=web/b +net1=web/b",
		},
		"arguments in another order": {have: `[{"name": "b", "cni-args": {"x": {"p": 1, ` +
			`"q": 2}}}]`, want: `[{"name": "b", "cni-args": {"x": {"q": 2, "p": 1}}}]`},
		"the default route": {
			have: "b", want: `[{"name": "b", "default-route": []}]`,
			steps: "-net1=web/b +net1=web/b",
		},
		"alike but for the addresses": {
			have: `[{"name": "b", "ips": ["10.0.0.1/24"]}, ` +
				`{"name": "b", "ips": ["10.0.0.2/24"]}]`, want: `[{"name": "b", "ips": ["10.0.0.2/24"]}]`,
			steps: "-net1=web/b",
		},
	})
}

// A network that is defined anew is attached anew if the caller asks for it.
func TestDiffOfDefinitions(t *testing.T) {
	compared(t, map[string]comparison{
		"defined anew": {have: "a,b", want: "b,a", change: redefined, steps: ""},
		"defined anew, and asked for": {
			have: "a,b", want: "b,a", change: redefined,
			redefine: true, steps: "-net2=web/b +net2=web/b",
		},
		"defined anew, the name is chosen": {
			have: "b", want: "a,b", change: redefined, redefine: true,
			steps: "-net1=web/b +net2=web/a +net1=web/b",
		},
		"no resource any more": {
			have: "a", want: "a", change: withoutResource,
			redefine: true, steps: "-net1=web/a +net1=web/a",
		},
		"spelled anew":                {have: "b", want: "b", change: respelled, redefine: true},
		"the node has a network more": {have: "a", want: "a", change: clusterWide},
		"the default network is another": {
			have: "a", want: "a", change: otherDefault,
			redefine: true,
		},
	})
}

// A record that does not know what was asked for is compared by names alone.
func TestDiffOfOldRecords(t *testing.T) {
	compared(t, map[string]comparison{
		"old record": {have: "a,b@x", want: "b@x,a", old: true},
		"old record, other requests": {
			have: "b", want: `[{"name": "b", "ips": ["10.0.0.1/24"]}]`,
			old: true, redefine: true,
		},
		"old record, one more": {have: "a", want: "b,a", old: true, steps: "+net2=web/b"},
		"old record, one less": {have: "a,b", want: "b", old: true},
		"old record, defined anew": {
			have: "b", want: "b", old: true, redefine: true,
			change: redefined,
		},
		"old record, a name that is another": {have: "a", want: "a,b@x", old: true, steps: "+x=web/b"},
	})
}

// comparison is a pod that has networks and wants others.
type comparison struct {
	// have and want are annotations.
	have, want string
	// change, if set, is done to the cluster and the node between the two.
	change func(*scenario)
	// old is that the record does not know what was asked for.
	old      bool
	redefine bool
	steps    string
}

// compared fails unless each comparison has its steps, and none are left after these.
func compared(t *testing.T, cases map[string]comparison) {
	t.Helper()
	for name, test := range cases {
		t.Run(name, func(t *testing.T) {
			have := recorded(t, asking(test.have).must(t))
			for i := range have {
				if test.old {
					have[i].Wish = nil
				}
			}
			s := asking(test.want)
			if test.change != nil {
				test.change(s)
			}
			target := s.must(t)
			c := diff(t, have, target, test.redefine)
			want(t, "steps", steps(c), test.steps)
			after := applied(have, c)
			want(t, "steps after these", steps(diff(t, recorded(t, after), target, test.redefine)), "")
			unique(t, after)
		})
	}
}

func redefined(s *scenario) { s.nad("web/b", `{"cniVersion": "1.0.0", "type": "macvlan"}`) }

func withoutResource(s *scenario) { clear(s.nads["web/a"].Annotations) }

func respelled(s *scenario) {
	s.nad("web/b", `{"type": "ipvlan",   "capabilities": {"ips":true}, "cniVersion": "1.0.0"}`)
}

func clusterWide(s *scenario) {
	s.cfg.Delegates = append(s.cfg.Delegates,
		json.RawMessage(`{"cniVersion": "1.0.0", "name": "all", "type": "ptp"}`))
}

func otherDefault(s *scenario) {
	s.cfg.Delegates[0] = json.RawMessage(`{"cniVersion": "1.0.0", "name": "other", "type": "ptp"}`)
}

// A network that all pods of the node have stays where it is, whatever the annotation does, and is
// not what an element of the annotation asks for.
func TestDiffLeavesNetworksOfTheNode(t *testing.T) {
	s := asking("b")
	clusterWide(s)
	have := recorded(t, s.must(t))
	want(t, "interfaces", strings.Join(ifNames(have), " "), "eth0 net1 net2")
	for annotation, all := range map[string]string{
		"":       "-net2=web/b",
		"a@net2": "-net2=web/b +net2=web/a",
		"b,b":    "+net3=web/b",
	} {
		s := asking(annotation)
		clusterWide(s)
		want(t, annotation, steps(diff(t, have, s.must(t), true)), all)
	}
	_, err := plan.Diff(have, asking("a@net1").must(t), false)
	if failure.ReasonOf(err) != failure.InterfaceConflict || !strings.Contains(err.Error(), "net1") {
		t.Errorf("the interface of a network that the node has taken back: %v", err)
	}
}

// Attachments that stay keep their devices, and those that come have others.
func TestDiffDevices(t *testing.T) {
	one, two := asking("a"), asking(`[{"name": "c", "oops": 1}, {"name": "a"}]`)
	for _, s := range []*scenario{one, two} {
		s.devices = map[string][]string{"r": {"d1", "d2"}}
	}
	have := recorded(t, one.must(t))
	c := diff(t, have, two.must(t), true)
	want(t, "steps", steps(c), "+net2=web/c")
	added := c.Add[0]
	want(t, "device", added.DeviceID, "d2")
	want(t, "capability", string(added.RuntimeConfig["deviceID"]), `"d2"`)
	want(t, "configuration", string(decode(t, added).Plugins[0]["deviceID"]), `"d2"`)
	if len(added.Warnings) != 1 || added.Warnings[0].Interface != "net2" {
		t.Errorf("warnings %v", added.Warnings)
	}
	two.pod.Annotations[nadv1.NetworksAnnotation] = "c"
	want(t, "the device of one that goes", steps(diff(t, have, two.must(t), true)),
		"-net1=web/a +net1=web/c")
}

// unique fails the test unless each name and device is of one attachment.
func unique(t *testing.T, attachments []plan.Attachment) {
	t.Helper()
	seen := map[string]bool{}
	for _, a := range attachments {
		for _, is := range []string{"interface " + a.IfName, "device " + a.DeviceID} {
			if is != "device " && seen[is] {
				t.Errorf("%s twice in %v", is, ifNames(attachments))
			}
			seen[is] = true
		}
		if a.DeviceID != "" && !strings.Contains(string(a.Conf), `"deviceID":"`+a.DeviceID+`"`) {
			t.Errorf("device %s of %s is not in %s", a.DeviceID, a.IfName, a.Conf)
		}
	}
}

// element is one of an annotation that is made of a number.
func element(n int) map[string]any {
	e := map[string]any{"name": []string{"a", "b", "c"}[n%3]}
	n /= 3
	if named := []string{"", "", "", "net1", "net2", "net3", "x", "y"}[n%8]; named != "" {
		e["interface"] = named
	}
	n /= 8
	if ip := n % 3; ip > 0 {
		e["ips"] = []string{fmt.Sprintf("10.0.0.%d/24", ip)}
	}
	return e
}

// annotation is of up to six elements, which have names that differ where they have some.
func annotation(numbers []byte) string {
	used := map[any]bool{nil: false}
	var all []any
	for _, n := range numbers[:min(len(numbers), 6)] {
		e := element(int(n))
		if !used[e["interface"]] {
			used[e["interface"]] = e["interface"] != nil
			all = append(all, e)
		}
	}
	if len(all) == 0 {
		return ""
	}
	raw, _ := json.Marshal(all) //nolint:errcheck // of strings
	return string(raw)
}

// class is what is alike.
func class(a plan.Attachment) string {
	if a.Wish == nil {
		return "of the node: " + a.Name
	}
	return a.Name + string(a.Wish.Requests)
}

// stay is how many attachments can stay at most.
func stay(have, target []plan.Attachment) (n int) {
	asked, left, generic := map[string]string{}, map[string]int{}, map[string]int{}
	for _, a := range target[1:] {
		if a.Wish.IfName == "" {
			generic[class(a)]++
		} else {
			asked[a.Wish.IfName] = class(a)
		}
	}
	for _, a := range have[1:] {
		if by, ok := asked[a.IfName]; !ok {
			left[class(a)]++
		} else if by == class(a) {
			n++
		}
	}
	for c := range maps.Keys(left) {
		n += min(left[c], generic[c])
	}
	return n
}

// step brings a pod to another annotation, if that has a plan, and holds Diff to what it promises.
func step(t *testing.T, have []plan.Attachment, networks string) []plan.Attachment {
	t.Helper()
	target, err := asking(networks).plan()
	if failure.ReasonOf(err) == failure.InterfaceConflict {
		return have
	}
	if err != nil {
		t.Fatal(err)
	}
	c := diff(t, have, target, false)
	after := recorded(t, applied(have, c))
	unique(t, after)
	want(t, "default network", after[0], have[0])
	want(t, "attachments", slices.Sorted(slices.Values(names(after, class))),
		slices.Sorted(slices.Values(names(target, class))))
	for _, a := range target[1:] {
		if !slices.ContainsFunc(after, func(b plan.Attachment) bool {
			return class(a) == class(b) && (a.Wish.IfName == "" || a.Wish.IfName == b.IfName)
		}) {
			t.Errorf("%s at %q is missing", class(a), a.Wish.IfName)
		}
	}
	want(t, "how many stay", len(have)-1-len(c.Remove), stay(have, target))
	want(t, "changes after the changes", steps(diff(t, after, target, true)), "")
	want(t, "changes of what is alike", steps(diff(t, target, target, true)), "")
	if t.Failed() {
		t.Fatalf("have %v, want %s: %s", steps(plan.Changes{Add: have}), networks, steps(c))
	}
	return after
}

func TestDiffSteps(t *testing.T) {
	for seed := range uint64(50) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		have := recorded(t, asking("").must(t))
		for range 40 {
			numbers := make([]byte, rnd.IntN(7))
			for i := range numbers {
				numbers[i] = byte(rnd.IntN(72))
			}
			have = step(t, have, annotation(numbers))
		}
	}
}

func FuzzDiff(f *testing.F) {
	f.Add([]byte{0, 1, 2}, []byte{2, 1, 0}, []byte{9, 0})
	f.Add([]byte{0, 0, 0}, []byte{0, 18}, []byte{})
	f.Fuzz(func(t *testing.T, first, second, third []byte) {
		have := recorded(t, asking("").must(t))
		for _, numbers := range [][]byte{first, second, third} {
			have = step(t, have, annotation(numbers))
		}
	})
}
