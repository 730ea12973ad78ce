package reap

import (
	"context"
	"fmt"
	"maps"
	"math/bits"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	"github.com/braid-cni/braid/pkg/ipam/block"
)

const (
	// Network is the network of the allocations of shared blocks that stand for records of
	// whereabouts. They have no node, so that no node takes them for its own.
	Network = "whereabouts"
	// recaller is in whose name blocks of nodes are recalled that have recorded addresses.
	recaller = "braid-controller"
)

// adopted reports whether an allocation stands for a record of whereabouts.
func adopted(e v1alpha1.Allocation) bool {
	return e.Network == Network && e.Node == nil && e.Claim == nil
}

// adoption is what whereabouts' records ask of the blocks. A nil one asks nothing.
type adoption struct {
	*Reaper
	// want are the allocations that live pods need, by the name of the block; what is found there is
	// taken off.
	want map[string]map[netip.Addr]v1alpha1.Allocation
	// cut says which blocks the names are of.
	cut map[string]v1alpha1.IPBlockSpec
	// pods are the uids of those that exist.
	pods  map[string]types.UID
	pools []pool
}

// adoption reads what whereabouts recorded; nil if it is not to be adopted.
func (r *Reaper) adoption(ctx context.Context, blocks []v1alpha1.IPBlock) (*adoption, error) {
	if r.Whereabouts == nil {
		return nil, nil
	}
	found, err := readRecords(ctx, r.Whereabouts)
	if err != nil {
		return nil, err
	}
	if found == nil {
		found = new(records)
	}
	pods, err := podsOf(ctx, r.Whereabouts, found, blocks)
	if err != nil {
		return nil, err
	}
	a := &adoption{
		Reaper: r, want: map[string]map[netip.Addr]v1alpha1.Allocation{},
		cut: map[string]v1alpha1.IPBlockSpec{}, pods: pods, pools: found.pools,
	}
	for _, bad := range found.unreadable {
		r.Log.WarnContext(ctx, "record of whereabouts cannot be read",
			"record", bad.Record, "pod", bad.Pod, "reason", bad.Detail)
	}
	a.wishAll(found.list)
	return a, nil
}

// wishAll takes in all records. Those of pods that are gone are remembered as dead.
func (a *adoption) wishAll(list []*record) {
	dead := map[recordKey]bool{}
	for _, rec := range list {
		if !rec.lives(a.pods) || a.dead[rec.key()] {
			dead[rec.key()] = rec.containerID != ""
		} else {
			a.wish(rec)
		}
	}
	a.dead = dead
}

// podsOf returns the uids of the pods that records and adopted allocations name, as far as they
// exist.
func podsOf(
	ctx context.Context, w Whereabouts, found *records, blocks []v1alpha1.IPBlock,
) (map[string]types.UID, error) {
	namespaces := map[string]bool{}
	for _, rec := range found.list {
		namespaces[namespaceOf(rec.pod)] = true
	}
	for i := range blocks {
		for _, e := range blocks[i].Spec.Allocations {
			if adopted(e) {
				namespaces[namespaceOf(e.Pod)] = true
			}
		}
	}
	delete(namespaces, "")
	pods := map[string]types.UID{}
	for namespace := range namespaces {
		list, err := w.Pods(ctx, namespace)
		if err != nil {
			return nil, fmt.Errorf("list pods in namespace %s: %w", namespace, err)
		}
		for i := range list {
			pods[namespace+"/"+list[i].Name] = list[i].UID
		}
	}
	return pods, nil
}

// namespaceOf returns the namespace of a pod "namespace/name"; empty for what names no pod.
func namespaceOf(pod string) string {
	namespace, name, _ := strings.Cut(pod, "/")
	if name == "" || len(validation.IsDNS1123Label(namespace)) > 0 {
		return ""
	}
	return namespace
}

// lives reports whether the record's pod may still be there. Of one that names no pod nobody knows.
func (r *record) lives(pods map[string]types.UID) bool {
	_, ok := pods[r.pod]
	return ok || namespaceOf(r.pod) == ""
}

// wish notes what a record needs. Of several records of an address the first counts.
func (a *adoption) wish(rec *record) {
	cidr, err := rec.addr.Prefix(blockBits(rec.addr))
	if err != nil {
		return
	}
	for _, space := range rec.spaces() {
		name := block.NameOf(space, cidr)
		if a.want[name] == nil {
			a.want[name] = map[netip.Addr]v1alpha1.Allocation{}
			a.cut[name] = v1alpha1.IPBlockSpec{Space: space, CIDR: cidr.String()}
		}
		if _, ok := a.want[name][rec.addr]; !ok {
			a.want[name][rec.addr] = v1alpha1.Allocation{
				Address: rec.addr.String(), Network: Network, ContainerID: rec.containerID, IfName: rec.ifName,
				Pod: rec.pod, PodUID: a.pods[rec.pod],
			}
		}
	}
}

// edit returns what the allocations of a shared block are to be.
func (a *adoption) edit(b *v1alpha1.IPBlock, list []v1alpha1.Allocation) []v1alpha1.Allocation {
	if a == nil {
		return list
	}
	want := a.want[b.Name]
	delete(a.want, b.Name)
	var kept []v1alpha1.Allocation
	for _, e := range list {
		if e, keep := a.settle(b, e, want); keep {
			kept = append(kept, e)
		}
	}
	return append(kept, sorted(want)...)
}

// settle returns what an allocation of a shared block is to be, and whether it is to be at all. It
// takes off want what is asked for at the address.
func (a *adoption) settle(
	b *v1alpha1.IPBlock, e v1alpha1.Allocation, want map[netip.Addr]v1alpha1.Allocation,
) (to v1alpha1.Allocation, keep bool) {
	addr, err := netip.ParseAddr(e.Address)
	w, ok := want[addr]
	delete(want, addr)
	if !adopted(e) {
		if ok {
			a.Log.Warn("address that whereabouts recorded is another's",
				"block", b.Name, "address", addr, "pod", w.Pod, "other", e.Pod)
		}
		return e, true
	}
	switch {
	case err != nil:
		return e, true
	case ok && ofOneContainer(w, e) && w.PodUID != e.PodUID:
		// The pod that has the name now did not get the address.
		a.dead[recordKey{e.Address, e.Pod, e.ContainerID}] = true
		return e, false
	case ok:
		return w, true
	}
	return e, !a.ended(b.Spec.Space, addr, e)
}

// ofOneContainer reports whether two allocations are known to be of the same container.
func ofOneContainer(a, b v1alpha1.Allocation) bool {
	return a.Pod == b.Pod && a.ContainerID == b.ContainerID && a.ContainerID != ""
}

// ended reports whether an adopted address without a record is free:
// whereabouts took the record out, or the pod is gone. A pool that is not there any more says
// nothing.
func (a *adoption) ended(space string, addr netip.Addr, e v1alpha1.Allocation) bool {
	uid, ok := a.pods[e.Pod]
	return !ok || uid != e.PodUID || slices.ContainsFunc(a.pools, func(p pool) bool {
		return p.prefix.Contains(addr) &&
			(space == block.SpaceOf(p.network, "") || space == block.SpaceOf(p.network, p.prefix.String()))
	})
}

// misses reports whether an address is needed of a block that has an owner.
func (a *adoption) misses(b *v1alpha1.IPBlock) bool {
	if a == nil || len(a.want[b.Name]) == 0 {
		return false
	}
	for _, w := range sorted(a.want[b.Name]) {
		a.Log.Warn("address that whereabouts recorded is of a node's block, which is called back",
			"block", b.Name, "node", b.Spec.Owner.NodeName, "address", w.Address, "pod", w.Pod)
	}
	delete(a.want, b.Name)
	return true
}

// create returns the blocks that are needed and not there.
func (a *adoption) create() []*v1alpha1.IPBlock {
	if a == nil {
		return nil
	}
	var blocks []*v1alpha1.IPBlock
	for _, name := range slices.Sorted(maps.Keys(a.want)) {
		spec := a.cut[name]
		spec.Allocations = sorted(a.want[name])
		blocks = append(blocks, &v1alpha1.IPBlock{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: spec})
	}
	return blocks
}

// sorted returns allocations in the order of their addresses.
func sorted(want map[netip.Addr]v1alpha1.Allocation) []v1alpha1.Allocation {
	var list []v1alpha1.Allocation
	for _, addr := range slices.SortedFunc(maps.Keys(want), netip.Addr.Compare) {
		list = append(list, want[addr])
	}
	return list
}

// blockBits returns the length of the prefix of the block that an address is of.
func blockBits(a netip.Addr) int { return a.BitLen() - bits.Len(block.Size-1) }
