package agent

import (
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/record"
)

// Unattached returns the pods, "namespace/name", that ask for networks and were started without
// anybody attaching them: there is no record of them, and no network-status. That happens while a
// runtime takes another configuration than Braid's.
func Unattached(started []metav1.ObjectMeta, records []*record.Record) []string {
	known := map[string]bool{}
	for _, r := range records {
		known[r.Pod.UID] = true
	}
	var names []string
	for i := range started {
		p := &started[i]
		asks := p.Annotations[nadv1.NetworksAnnotation] != "" &&
			p.Annotations[nadv1.StatusAnnotation] == ""
		if asks && !known[string(p.UID)] {
			names = append(names, p.Namespace+"/"+p.Name)
		}
	}
	slices.Sort(names)
	return names
}
