package reap

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/ipam/block"
)

// Entry is a record of whereabouts, or what lacks one.
type Entry struct {
	State State `json:"state"`
	// Network is the network_name, which may be empty.
	Network string `json:"network,omitempty"`
	Address string `json:"address,omitempty"`
	// Pod is "namespace/name".
	Pod string `json:"pod,omitempty"`
	// Record names the object.
	Record string `json:"record,omitempty"`
	// Detail says more where something is wrong.
	Detail string `json:"detail,omitempty"`
}

// State is what an Entry is.
type State string

// The states of entries. All but OK are wrong.
const (
	OK State = "ok"
	// Orphan: the pod is gone.
	Orphan State = "orphan"
	// Duplicate: the address is recorded for another interface too, among networks that must not share
	// it.
	Duplicate State = "duplicate"
	// Conflict: the address is another's, or a node's to give, in Braid's blocks.
	Conflict State = "conflict"
	// Unreadable: the record does not say which address.
	Unreadable State = "unreadable"
	// Unrecorded: a pod reports an address of a range of whereabouts that nobody has recorded for it.
	Unrecorded State = "unrecorded"
)

// Audit compares what whereabouts recorded with pods and blocks, and changes nothing. Without
// whereabouts' kinds there are no entries.
func Audit(ctx context.Context, b Blocks, w Whereabouts) ([]Entry, error) {
	list, err := b.Blocks(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, fmt.Errorf("list blocks: %w", err)
	}
	found, err := readRecords(ctx, w)
	if err != nil || found == nil {
		return nil, err
	}
	pods, err := w.Pods(ctx, "")
	if err != nil {
		return nil, fmt.Errorf("list pods: %w", err)
	}
	a := newAudit(found, list, pods)
	entries := slices.Clone(found.unreadable)
	for _, rec := range found.list {
		entries = append(entries, a.entry(rec))
	}
	for i := range pods {
		entries = append(entries, a.unrecorded(&pods[i])...)
	}
	return entries, nil
}

// audit is what an Audit compares.
type audit struct {
	*records
	// blocks are by name, the uids of pods by "namespace/name".
	blocks map[string]*v1alpha1.IPBlock
	pods   map[string]types.UID
}

func newAudit(found *records, blocks []v1alpha1.IPBlock, pods []metav1.ObjectMeta) *audit {
	a := &audit{records: found, blocks: map[string]*v1alpha1.IPBlock{}, pods: map[string]types.UID{}}
	for i := range blocks {
		a.blocks[blocks[i].Name] = &blocks[i]
	}
	for i := range pods {
		a.pods[pods[i].Namespace+"/"+pods[i].Name] = pods[i].UID
	}
	return a
}

// entry returns the worst that is to be said of a record.
func (a *audit) entry(r *record) Entry {
	e := Entry{State: OK, Network: r.network, Address: r.addr.String(), Pod: r.pod, Record: r.source}
	if !r.lives(a.pods) {
		e.State, e.Detail = Orphan, "the pod is gone"
	} else if other := a.other(r); other != nil {
		e.State, e.Detail = Duplicate, fmt.Sprintf("also recorded for pod %s in %s",
			other.pod, other.source)
	} else if detail := a.conflict(r); detail != "" {
		e.State, e.Detail = Conflict, detail
	}
	return e
}

// other is another record of the address. Ranges that reserve nothing may share it.
func (a *audit) other(r *record) *record {
	for _, x := range a.at[r.addr] {
		if x != r && x.network == r.network && x.lives(a.pods) && !x.sameUser(r) && x.excludes(r) {
			return x
		}
	}
	return nil
}

// sameUser reports whether two records may be of one interface. A record of an old whereabouts does
// not name it.
func (r *record) sameUser(other *record) bool {
	return r.pod == other.pod &&
		(r.ifName == other.ifName || r.ifName == "" || other.ifName == "")
}

// excludes reports whether no record of the same address beside this one may be right.
func (r *record) excludes(other *record) bool {
	return r.reserved || other.reserved || r.only == other.only
}

// conflict says who has the address in the blocks.
func (a *audit) conflict(r *record) string {
	b, held := a.holder(block.SpaceOf(r.network, ""), r.addr)
	switch {
	case b == nil:
	case b.Spec.Owner != nil:
		return fmt.Sprintf("of block %s, which is node %s's", b.Name, b.Spec.Owner.NodeName)
	case held != nil && !adopted(*held):
		return fmt.Sprintf("pod %s has it in block %s", cmp.Or(held.Pod, "of an IPAMClaim"), b.Name)
	}
	return ""
}

// holder returns the block that an address of a space is of, and what holds it there, both nil for
// none.
func (a *audit) holder(space string, addr netip.Addr) (*v1alpha1.IPBlock, *v1alpha1.Allocation) {
	cidr, err := addr.Prefix(blockBits(addr))
	b := a.blocks[block.NameOf(space, cidr)]
	if err != nil || b == nil {
		return nil, nil
	}
	for i := range b.Spec.Allocations {
		if x, err := netip.ParseAddr(b.Spec.Allocations[i].Address); err == nil && x == addr {
			return b, &b.Spec.Allocations[i]
		}
	}
	return b, nil
}

// unrecorded compares what a pod reports in its network-status with what is recorded. A pod does
// not say by which network_name it got an address, so that a record for it under any will do.
func (a *audit) unrecorded(pod *metav1.ObjectMeta) (entries []Entry) {
	var status []nadv1.NetworkStatus
	text := pod.Annotations[nadv1.StatusAnnotation]
	if text == "" || json.Unmarshal([]byte(text), &status) != nil {
		return nil // another's annotation, which tells nothing
	}
	name := pod.Namespace + "/" + pod.Name
	for _, s := range status {
		for _, ip := range s.IPs {
			addr, err := netip.ParseAddr(ip)
			ranges := a.rangesOf(addr)
			if err == nil && !s.Default && len(ranges) > 0 && !a.known(name, addr, ranges) {
				entries = append(entries, Entry{
					State: Unrecorded, Address: ip, Pod: name,
					Detail: fmt.Sprintf("interface %s of network %s has an address of %s",
						s.Interface, s.Name, strings.Join(sources(ranges), ", ")),
				})
			}
		}
	}
	return entries
}

// rangesOf returns the ranges of whereabouts that an address is in.
func (a *audit) rangesOf(addr netip.Addr) (list []pool) {
	for _, p := range a.pools {
		if p.prefix.Contains(addr) {
			list = append(list, p)
		}
	}
	return list
}

// sources names ranges for a message.
func sources(pools []pool) (texts []string) {
	for _, p := range pools {
		texts = append(texts, strings.TrimSpace("range "+p.prefix.String()+" "+p.network))
	}
	return texts
}

// known reports whether whereabouts recorded the address for the pod, or Braid has it: in a shared
// block for the pod, or in one that a node owns, and knows about.
func (a *audit) known(pod string, addr netip.Addr, ranges []pool) bool {
	if slices.ContainsFunc(a.at[addr], func(r *record) bool { return r.pod == pod }) {
		return true
	}
	for _, p := range ranges {
		for _, space := range []string{
			block.SpaceOf(p.network, ""), block.SpaceOf(p.network, p.prefix.String()),
		} {
			b, held := a.holder(space, addr)
			if b != nil && (b.Spec.Owner != nil || held != nil && held.Pod == pod) {
				return true
			}
		}
	}
	return false
}
