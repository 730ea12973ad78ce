package plan_test

import (
	"strings"
	"testing"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/selection"
)

// S25, "same container, network and interface on ADD and DEL; unique generated names".
func TestS25GeneratedNames(t *testing.T) {
	for annotation, interfaces := range map[string]string{
		"a":               "eth0 net1",
		"a,b,a":           "eth0 net1 net2 net3",
		"a,b@x0,a":        "eth0 net1 x0 net3", // by position, counting all
		"a@net1,b":        "eth0 net1 net2",
		"a@net2,b":        "eth0 net2 net1", // its own is taken; net1 is free
		"a@net2,b,a":      "eth0 net2 net1 net3",
		"a@net3,b@net2,a": "eth0 net3 net2 net1",
		"a@net9,b,a,b":    "eth0 net9 net2 net3 net4",
		"a@net2,b@net1,a": "eth0 net2 net1 net3",
	} {
		want(t, annotation, strings.Join(ifNames(newScenario(annotation).must(t)), " "), interfaces)
	}
}

func TestS25AppendingChangesNoName(t *testing.T) {
	all := strings.Split("a@net2,b,a,b@net7,a,a@x,b,a", ",")
	longest := ifNames(newScenario(strings.Join(all, ",")).must(t))
	for n := range all {
		got := ifNames(newScenario(strings.Join(all[:n+1], ",")).must(t))
		want(t, all[n], got, longest[:n+2])
	}
}

func TestS25DefaultNetworkNamedLikeASecondary(t *testing.T) {
	s := newScenario("a,b")
	s.ifName = "net1"
	want(t, "interfaces", ifNames(s.must(t)), []string{"net1", "net2", "net3"})
}

// S17, "interface: a valid name, once".
func TestS17RequestedInterface(t *testing.T) {
	want(t, "JSON", ifNames(newScenario(`[{"name": "a", "interface": "data0"}]`).must(t)),
		[]string{"eth0", "data0"})
}

func TestS17DuplicateInterface(t *testing.T) {
	newScenario("a@eth0").refused(t, failure.InterfaceConflict, "NAD web/a", "interface eth0",
		"the default network", "another name")
	newScenario("a,b@net1").refused(t, failure.InterfaceConflict, "NAD web/b", "interface net1",
		"web/a")

	// The parser of the annotation sees these first; the plan does not rely on it.
	for _, tc := range []struct{ first, second, says string }{
		{"x0", "x0", "web/a"}, {"x0", "lo", "loopback"},
	} {
		s := newScenario("")
		_, err := plan.Make(plan.Input{
			Node: &s.cfg.Node, Policy: &s.cfg.Policy, Call: &s.cfg.Call, ContainerID: "c", IfName: "eth0",
			Requests: []plan.Request{
				{Ref: "cluster", Default: true},
				{Ref: "web/a", Selection: &selection.Selection{Interface: tc.first}},
				{Ref: "web/b", Selection: &selection.Selection{Interface: tc.second}},
			},
			Definitions: make([]plan.Definition, 3),
		})
		if failure.ReasonOf(err) != failure.InterfaceConflict || !strings.Contains(err.Error(), tc.says) {
			t.Errorf("%s twice: %v", tc.second, err)
		}
	}
}

func TestS17DefaultNetworkKeepsTheRuntimesInterface(t *testing.T) {
	for interfaceName, refused := range map[string]bool{"eth0": false, "other0": true} {
		s := newScenario("")
		s.nad("kube-system/d", `{"type": "bridge"}`)
		s.pod.Annotations[nadv1.DefaultNetworkAnnotation] = "d@" + interfaceName
		if refused {
			s.refused(t, failure.InvalidAnnotation, "NAD kube-system/d", "eth0")
			continue
		}
		want(t, interfaceName, ifNames(s.must(t)), []string{"eth0"})
	}
}

// C14, "names: network, container, interface".
func TestC14Names(t *testing.T) {
	for _, bad := range []string{
		"", ".", "..", "sixteen-letters-", "a b", "a/b", "a:b", "a\tb", "net%d", "all", "default", "lo",
		"a\x01", "a\xff",
	} {
		s := newScenario("")
		s.ifName = bad
		s.refused(t, failure.InvalidEnvironment, "CNI_IFNAME")

		if bad == "" || bad == "lo" {
			continue
		}
		_, err := plan.Make(plan.Input{
			Node: &s.cfg.Node, Policy: &s.cfg.Policy, Call: &s.cfg.Call, ContainerID: "c", IfName: "eth0",
			Definitions: make([]plan.Definition, 2),
			Requests: []plan.Request{
				{Default: true}, {Ref: "web/a", Selection: &selection.Selection{Interface: bad}},
			},
		})
		if failure.ReasonOf(err) != failure.InvalidAnnotation {
			t.Errorf("requested interface %q: %v", bad, err)
		}
	}
	for _, bad := range []string{"", "a/b", "../x", "-x", "a b", "a\x00"} {
		s := newScenario("")
		s.containerID = bad
		s.refused(t, "InvalidEnvironment", "CNI_CONTAINERID")
	}
	s := newScenario("a")
	s.ifName = "fifteen-letters"
	s.nad("web/a", `{"name": "-x", "type": "macvlan"}`)
	s.refused(t, failure.NADInvalid, "NAD web/a", "name")
}

func TestC14NameFromBraidsOwnConfiguration(t *testing.T) {
	s := newScenario("")
	s.cfg.Name = "no name"
	s.cfg.Delegates[0] = []byte(`{"type": "bridge"}`)
	if _, err := s.plan(); failure.ReasonOf(err) == "" || !strings.Contains(err.Error(), "no name") {
		t.Errorf("accepted: %v", err)
	}
}
