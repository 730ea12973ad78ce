package vlan

import (
	"strings"
	"testing"
)

// Names fit, and masters whose names begin alike have links of different names.
func TestNameOf(t *testing.T) {
	for _, test := range []struct {
		master string
		id     int
		want   string // what it is, or begins with
	}{
		{"eth0", 500, "eth0.500"},
		{"tenant-bond", 500, "tenant-bond.500"},
		{"tenant-bond0", 500, "tena"},
		{"tenant-bond", 4094, "tena"},
		{"eth0.100", 200, "eth0.100.200"},
		{"a", 1, "a.1"},
	} {
		got := nameOf(test.master, test.id)
		if len(got) > 15 || !strings.HasPrefix(got, test.want) {
			t.Errorf("%s in VLAN %d: %q", test.master, test.id, got)
		}
	}
	if nameOf("tenant-bond0", 500) == nameOf("tenant-bond1", 500) {
		t.Error("two masters have one name")
	}
	if link, inPod := linkOf((Holder{ContainerID: "c"}).users("eth0.500", true)); link != "eth0.500" || !inPod {
		t.Errorf("the link in a pod is %q, %v", link, inPod)
	}
	if link, inPod := linkOf((Holder{ContainerID: "c"}).users("eth0.500", false)); link != "eth0.500" || inPod {
		t.Errorf("the link on the node is %q, %v", link, inPod)
	}
}
