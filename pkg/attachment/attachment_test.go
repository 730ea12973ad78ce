package attachment_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/pkg/attachment"
)

func Example() {
	id := attachment.ID{Network: "net", ContainerID: "0123", IfName: "net1"}
	fmt.Println(id)
	fmt.Println(id.Hash())
	// Output:
	// container 0123 interface net1 in network net
	// 49c12da7acd0ca9714b51e2a144e06ba
}

// What is on nodes already must be found again: neither form may change.
func TestFormsStay(t *testing.T) {
	id := attachment.ID{Network: "net", ContainerID: "c", IfName: "net1"}
	if got := id.Hash(); got != "63889839ab2375c26da670d3e65b24dd" {
		t.Errorf("hash %s", got)
	}
	const form = `{"network":"net","containerID":"c","ifName":"net1"}`
	if data, err := json.Marshal(id); err != nil || string(data) != form {
		t.Errorf("%s, %v", data, err)
	}
	var back attachment.ID
	if err := json.Unmarshal([]byte(form), &back); err != nil || back != id {
		t.Errorf("%+v, %v", back, err)
	}
}

func TestHashTellsApart(t *testing.T) {
	seen := map[string]attachment.ID{}
	for _, id := range []attachment.ID{
		{Network: "n", ContainerID: "c", IfName: "e"},
		{Network: "nc", IfName: "e"},
		{Network: "n", IfName: "ce"},
		{ContainerID: "nc", IfName: "e"},
		{Network: "n", ContainerID: "ce"},
		{},
	} {
		if other, ok := seen[id.Hash()]; ok {
			t.Errorf("%v and %v have one hash", id, other)
		}
		seen[id.Hash()] = id
	}
}

func TestString(t *testing.T) {
	for want, id := range map[string]attachment.ID{
		"container c":                               {ContainerID: "c"},
		"container c interface net1":                {ContainerID: "c", IfName: "net1"},
		"container c interface net1 in network net": {Network: "net", ContainerID: "c", IfName: "net1"},
	} {
		if got := id.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}

func TestValidate(t *testing.T) {
	good := attachment.ID{
		Network: "net.a_b-1", ContainerID: strings.Repeat("0f", 32), IfName: "net1.100",
	}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for says, change := range map[string]func(*attachment.ID){
		"missing network name":       func(id *attachment.ID) { id.Network = "" },
		"network name":               func(id *attachment.ID) { id.Network = "a/b" },
		"missing containerID":        func(id *attachment.ID) { id.ContainerID = "" },
		"containerID":                func(id *attachment.ID) { id.ContainerID = "a\n" },
		"interface name is empty":    func(id *attachment.ID) { id.IfName = "" },
		"interface name is too long": func(id *attachment.ID) { id.IfName = "sixteen-letters-" },
		"interface name contains":    func(id *attachment.ID) { id.IfName = "a b" },
	} {
		bad := good
		change(&bad)
		if err := bad.Validate(); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%+v: %v, want %q", bad, err, says)
		}
	}
}

// A list that is empty is still a list: nothing is valid.
func TestInNetwork(t *testing.T) {
	if got := attachment.InNetwork("net", nil); got == nil || len(got) != 0 {
		t.Errorf("%#v", got)
	}
	got := attachment.InNetwork("net", []types.GCAttachment{{ContainerID: "c", IfName: "net1"}})
	if len(got) != 1 || got[0] != (attachment.ID{Network: "net", ContainerID: "c", IfName: "net1"}) {
		t.Errorf("%+v", got)
	}
}
