package vlan

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/braid-cni/braid/pkg/attachment"
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
	link, inPod := linkOf(usersOf("eth0.500", attachment.ID{ContainerID: "c"}, true))
	if link != "eth0.500" || !inPod {
		t.Errorf("the link in a pod is %q, %v", link, inPod)
	}
	link, inPod = linkOf(usersOf("eth0.500", attachment.ID{ContainerID: "c"}, false))
	if link != "eth0.500" || inPod {
		t.Errorf("the link on the node is %q, %v", link, inPod)
	}
}

// Holders that nodes have are found by name and content: neither may change.
func TestHolderStays(t *testing.T) {
	l := &Links{Dir: t.TempDir()}
	id := attachment.ID{Network: "net", ContainerID: "c", IfName: "net1"}
	dir, err := l.lock(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	if _, fresh, err := l.hold(dir, "eth0.5", id); !fresh || err != nil {
		t.Fatalf("fresh %v, %v", fresh, err)
	}
	const name = "63889839ab2375c26da670d3e65b24dd"
	data, err := os.ReadFile(filepath.Join(l.Dir, "eth0.5", name))
	want := `{"network":"net","containerID":"c","ifName":"net1"}`
	if err != nil || string(data) != want {
		t.Errorf("%s, %v", data, err)
	}
	if held, err := read(dir, "eth0.5", name); err != nil || held != id {
		t.Errorf("%+v, %v", held, err)
	}
}
