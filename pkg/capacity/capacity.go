// Package capacity decides how many pods of a network a node says that it can take. The scheduler
// reads that from an extended resource of the Node, one for each NAD that asks for it with the
// annotation ScheduleAnnotation, which admission adds to what pods request.
//
// Contract: pure. The scheduler subtracts the requests of the pods that are bound to the node. So a
// node's capacity is what they request plus what is free for more of them, and never less than what
// they request: a kubelet that restarts would refuse the pods that run. A capacity is exact for
// addresses of the node, and a hint where nodes share a range.
package capacity

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/pkg/failure"
)

const (
	// ScheduleAnnotation on a NAD is "true" if the scheduler is to heed its capacity.
	ScheduleAnnotation = "braid-cni.io/schedule"
	// Field is where it is, for messages.
	Field = "metadata.annotations." + ScheduleAnnotation
	// Prefix begins the names of all resources of this package.
	Prefix = "braid-cni.io/"
	// Plenty is the capacity of a network with as many addresses or more, or without any limit. No
	// node runs so many pods.
	Plenty = 10000
	// nameLength is what Kubernetes allows behind the slash of a resource's name.
	nameLength = 63
	// hashBytes is the length of a hash that nobody can find another name for.
	hashBytes = 10
	// tenth is the part of what is free that has to change for the capacity to be written.
	tenth = 10
)

// Asks reports whether a NAD asks for its capacity to be heeded.
func Asks(nad *metav1.ObjectMeta) (bool, error) {
	switch value := strings.TrimSpace(nad.Annotations[ScheduleAnnotation]); value {
	case "true":
		return true, nil
	case "", "false":
		return false, nil
	default:
		return false, &failure.Error{
			Reason: failure.NADInvalid, NAD: nad.Namespace + "/" + nad.Name, Field: Field,
			Err: fmt.Errorf("%.40q is neither true nor false", value),
			Fix: `make it "true" to have the scheduler heed which nodes have addresses`,
		}
	}
}

// Resource returns the name of the resource of a NAD: "braid-cni.io/<namespace>.<name>", or with a
// hash in place of the end of a name that is too long. A namespace has no dot, so no two NADs have
// the same resource.
func Resource(nad *metav1.ObjectMeta) string {
	name := nad.Namespace + "." + nad.Name
	if len(name) >= nameLength { // one with a hash has this length, one without never has
		sum := sha256.Sum256([]byte(name))
		end := "-" + hex.EncodeToString(sum[:hashBytes])
		name = name[:nameLength-len(end)] + end
	}
	return Prefix + name
}

// Requests returns what the containers of a pod request of the resources of this package; nil for
// nothing, and of a pod that has ended.
func Requests(pod *corev1.Pod) map[string]int64 {
	if pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed {
		return nil
	}
	// Those that run together add up; of those that run one after the other the greatest counts.
	var sum, most amounts
	for i := range pod.Spec.InitContainers {
		c := &pod.Spec.InitContainers[i]
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			sum.add(c, plus)
		} else {
			most.add(c, greatest)
		}
	}
	for i := range pod.Spec.Containers {
		sum.add(&pod.Spec.Containers[i], plus)
	}
	for name, n := range most {
		sum.join(name, n, greatest)
	}
	return sum
}

// amounts are quantities of resources, by name; nil is for none.
type amounts map[string]int64

// add joins what a container requests of the resources of this package.
func (a *amounts) add(c *corev1.Container, join func(before, one int64) int64) {
	for name, quantity := range c.Resources.Requests {
		if strings.HasPrefix(string(name), Prefix) {
			a.join(string(name), quantity.Value(), join)
		}
	}
}

// join joins one more quantity of a resource with that before, which is 0 at first.
func (a *amounts) join(name string, n int64, join func(before, one int64) int64) {
	if *a == nil {
		*a = amounts{}
	}
	(*a)[name] = join((*a)[name], n)
}

func plus(a, b int64) int64     { return a + b }
func greatest(a, b int64) int64 { return max(a, b) }

// Pod is a pod that is bound to the node and has not ended.
type Pod struct {
	// Requests are what it requests of the resources of this package.
	Requests map[string]int64
	// Made are how many attachments it has by now, by resource. Complete is that it has all of them.
	Made     map[string]int64
	Complete bool
}

// Network is what there is of a network on a node.
type Network struct {
	// Free is how many more attachments can have what they need.
	Free uint64
	// Requested is what pods that are bound to the node request, Waiting how many of that is for
	// attachments that are not made yet.
	Requested, Waiting int64
}

// NetworkOf returns what there is of the network of a resource.
func NetworkOf(resource string, free uint64, pods []Pod) Network {
	n := Network{Free: free}
	for _, p := range pods {
		n.Requested += p.Requests[resource]
		if !p.Complete {
			n.Waiting += max(0, p.Requests[resource]-p.Made[resource])
		}
	}
	return n
}

// Capacity is what the node says that it can take.
func (n Network) Capacity() int64 {
	if n.Free >= Plenty {
		return max(Plenty, n.Requested)
	}
	return n.Requested + max(0, int64(n.Free)-n.Waiting) //nolint:gosec // it is less than Plenty
}

// due reports whether the capacity is to be written in place of that which the Node has: if a tenth
// of what was free is not free any more, or as much was not before. So the first that is free is
// written, and that none is.
func (n Network) due(written int64) bool {
	before, now := written-n.Requested, n.Capacity()-n.Requested
	change := max(now-before, before-now)
	return change > 0 && change*tenth >= before
}

// short reports whether the Node says less than what pods of it request, as it does after a kubelet
// has set to 0 what it does not know: one that starts would refuse the pods that run.
func (n Network) short(written int64) bool { return written < n.Requested }

// Urgent reports whether something is to be written at once, as pods that run are in danger.
func Urgent(written map[string]int64, networks map[string]*Network) bool {
	for resource, n := range networks {
		if before, has := written[resource]; has && n != nil && n.short(before) {
			return true
		}
	}
	return false
}

// Changes returns what to write into a Node, by resource: a quantity, or nil to remove the
// resource. written is what the Node has of the resources of this package. A network that is nil is
// one of which it is not known what is free: its resource stays as it is. If one is due, all that
// differ are written.
func Changes(written map[string]int64, networks map[string]*Network) map[string]*int64 {
	changes, due := map[string]*int64{}, false
	for resource, n := range networks {
		if n == nil {
			continue
		}
		before, has := written[resource]
		if now := n.Capacity(); !has || now != before {
			changes[resource] = &now
			due = due || !has || n.due(before)
		}
	}
	for resource := range written {
		if _, asks := networks[resource]; !asks {
			changes[resource], due = nil, true
		}
	}
	if !due {
		return nil
	}
	return changes
}
