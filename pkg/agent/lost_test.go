package agent_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/pkg/agent"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/record"
)

// An interface is lost if its link is gone, under whatever name; and only where it is known to be
// on a master of the node, in a namespace that is there.
func TestLostInterfaces(t *testing.T) {
	on := func(plugin string, index int) record.Attachment {
		return record.Attachment{
			Attachment: plan.Attachment{
				Name: "ns/n", IfName: "net1", Conf: []byte(`{"plugins": [` + plugin + `]}`),
			}, State: record.Added, Index: index,
		}
	}
	const onNIC = `{"type": "macvlan", "master": "ens1"}, {"type": "tuning"}`
	leaving, planned, owed := on(onNIC, 9), on(onNIC, 9), on(onNIC, 9)
	leaving.Leaving, planned.State, owed.State = true, record.Planned, record.Owed
	def := on(onNIC, 9)
	def.Default = true
	var records []*record.Record
	for name, attachment := range map[string]record.Attachment{
		"lost": on(onNIC, 9), "lost too": on(`{"type": "ipvlan", "master": "ens1"}`, 4), "there": on(onNIC, 3),
		"renamed": on(onNIC, 2), "unknown index": on(onNIC, 0), "default": def, "owed": owed,
		"planned": planned, "leaving": leaving, "bridge": on(`{"type": "bridge"}`, 9),
		"in the pod": on(`{"type": "macvlan", "master": "eth0", "linkInContainer": true}`, 9),
		"no conf":    {State: record.Added, Index: 9}, "no namespace": on(onNIC, 9),
		"incomplete": on(onNIC, 9),
	} {
		records = append(records, &record.Record{
			ContainerID: name, NetNS: "/run/netns/" + name, Complete: name != "incomplete",
			Pod: record.Pod{Namespace: "ns", Name: name}, Attachments: []record.Attachment{attachment},
		})
	}
	got := agent.LostInterfaces(records, func(netns string) (map[string]int, error) {
		if strings.HasSuffix(netns, "/no namespace") {
			return nil, errors.New("it is gone")
		}
		return map[string]int{"lo": 1, "pod7e4f": 2, "net1": 3}, nil
	})
	var texts []string
	for _, l := range got {
		texts = append(texts, l.ContainerID+" "+l.Interface+" "+l.NAD+" "+l.Master)
	}
	want := []string{"lost net1 ns/n ens1", "lost too net1 ns/n ens1"}
	if diff := cmp.Diff(want, texts); diff != "" {
		t.Errorf("lost (-want +got):\n%s", diff)
	}
}

func TestLostText(t *testing.T) {
	var lost []agent.Lost
	for i := range 10 {
		lost = append(lost, agent.Lost{
			Pod:       record.Pod{Namespace: "ns", Name: fmt.Sprint("p", i)},
			Interface: "net1", Master: "ens1",
		})
	}
	const begin = "pods have lost interfaces with their masters: ns/p0 (net1 on ens1), "
	if got := agent.LostText(lost); !strings.HasPrefix(got, begin) ||
		!strings.Contains(got, "ns/p7 (net1 on ens1), and 2 more; see that") {
		t.Errorf("of ten: %q", got)
	}
	if got := agent.LostText(nil); got != "" {
		t.Errorf("of none: %q", got)
	}
}
