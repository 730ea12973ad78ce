package agent

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/braid-cni/braid/pkg/record"
)

// Lost is an interface on a master of the node that is gone from a pod that runs: the kernel
// removes it with its master.
type Lost struct {
	ContainerID string
	Pod         record.Pod
	// NAD is the network, Interface what it was called in the pod.
	NAD, Interface, Master string
}

// String says what is lost, and what to do.
func (l Lost) String() string {
	return fmt.Sprintf("interface %s of network %s, on the node's %s, is gone from the pod; see that "+
		"the node has %[3]s, and delete the pod", l.Interface, l.NAD, l.Master)
}

// LostInterfaces returns those of all pods, sorted by pod. links returns the indexes of the links
// of a network namespace, by name. A namespace that cannot be looked into has lost nothing.
func LostInterfaces(
	records []*record.Record, links func(netns string) (map[string]int, error),
) (lost []Lost) {
	for _, rec := range records {
		if !rec.Complete {
			continue
		}
		var there map[string]int
		for i := range rec.Attachments {
			a := &rec.Attachments[i]
			master := masterOf(a)
			if master == "" {
				continue
			}
			if there == nil {
				var err error
				if there, err = links(rec.NetNS); err != nil {
					break
				}
			}
			if !slices.Contains(slices.Collect(maps.Values(there)), a.Index) {
				lost = append(lost, Lost{rec.ContainerID, rec.Pod, a.Name, a.IfName, master})
			}
		}
	}
	slices.SortStableFunc(lost, func(a, b Lost) int {
		return strings.Compare(a.Pod.String(), b.Pod.String())
	})
	return lost
}

// masterOf returns the link of the node that an attachment is on; empty if that has none by name,
// or is not all there.
func masterOf(a *record.Attachment) string {
	if a.Default || a.State != record.Added || a.Leaving || a.Index == 0 {
		return ""
	}
	var list struct {
		Plugins []struct {
			Master          string
			LinkInContainer bool
		}
	}
	if json.Unmarshal(a.Conf, &list) != nil || len(list.Plugins) == 0 ||
		list.Plugins[0].LinkInContainer {
		return ""
	}
	return list.Plugins[0].Master
}

// maxPodsTold is how many pods LostText names.
const maxPodsTold = 8

// LostText returns one sentence about all, for the node; empty if there are none.
func LostText(lost []Lost) string {
	if len(lost) == 0 {
		return ""
	}
	var texts []string
	for _, l := range lost[:min(len(lost), maxPodsTold)] {
		texts = append(texts, fmt.Sprintf("%s (%s on %s)",
			cmp.Or(l.Pod.String(), l.ContainerID), l.Interface, l.Master))
	}
	if more := len(lost) - maxPodsTold; more > 0 {
		texts = append(texts, fmt.Sprintf("and %d more", more))
	}
	return "pods have lost interfaces with their masters: " + strings.Join(texts, ", ") +
		"; see that the node has the masters, and delete the pods"
}
