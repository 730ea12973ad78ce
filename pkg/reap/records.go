package reap

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	wbv1 "github.com/braid-cni/braid/pkg/api/whereabouts/v1alpha1"
	"github.com/braid-cni/braid/pkg/ipam/alloc"
	"github.com/braid-cni/braid/pkg/ipam/block"
)

// Whereabouts has the objects in which whereabouts records what it gave away, and the pods. Answers
// are never stale. A kind that is not served is told by IsNotFound.
type Whereabouts interface {
	IPPools(ctx context.Context) ([]wbv1.IPPool, error)
	Reservations(ctx context.Context) ([]wbv1.OverlappingRangeIPReservation, error)
	// Pods returns the pods of a namespace, of all for "".
	Pods(ctx context.Context, namespace string) ([]metav1.ObjectMeta, error)
}

// record is an address that whereabouts gave away.
type record struct {
	// network is the network_name, which may be empty.
	network string
	addr    netip.Addr
	// only is the range that it was given for; not valid where a reservation alone records it.
	only netip.Prefix
	// reserved is true if no other range may give the address.
	reserved bool
	// pod is "namespace/name".
	pod, containerID, ifName string
	// source names the object.
	source string
}

// recordKey names what was recorded for one container, for good: whereabouts takes over a record
// for another container of the same pod's name, and then writes that container's ID.
type recordKey struct{ address, pod, containerID string }

func (r *record) key() recordKey { return recordKey{r.addr.String(), r.pod, r.containerID} }

// spaces returns those in which the address is in use. Where nothing says that it is in use in
// other ranges, it is taken to be so all the same.
func (r *record) spaces() []string {
	spaces := []string{block.SpaceOf(r.network, "")}
	if !r.reserved && r.only.IsValid() {
		spaces = append(spaces, block.SpaceOf(r.network, r.only.String()))
	}
	return spaces
}

// pool is a range of whereabouts.
type pool struct {
	network string
	prefix  netip.Prefix
}

// records are all that whereabouts recorded.
type records struct {
	// list is sorted; of an address, what names a container comes first. at has the same by address.
	list  []*record
	at    map[netip.Addr][]*record
	pools []pool
	// unreadable are records whose address is not known.
	unreadable []Entry
}

// readRecords returns nil where whereabouts' kinds are not served.
func readRecords(ctx context.Context, w Whereabouts) (*records, error) {
	pools, err := w.IPPools(ctx)
	if apierrors.IsNotFound(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list IPPools: %w", err)
	}
	reservations, err := w.Reservations(ctx)
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, fmt.Errorf("list OverlappingRangeIPReservations: %w", err)
	}
	r := &records{at: map[netip.Addr][]*record{}}
	for i := range pools {
		r.addPool(&pools[i])
	}
	for i := range reservations {
		r.addReservation(&reservations[i])
	}
	slices.SortFunc(r.list, func(a, b *record) int {
		return cmp.Or(strings.Compare(a.network, b.network), a.addr.Compare(b.addr),
			-strings.Compare(a.containerID, b.containerID),
			strings.Compare(a.source, b.source))
	})
	return r, nil
}

func (r *records) add(x *record) {
	r.list = append(r.list, x)
	r.at[x.addr] = append(r.at[x.addr], x)
}

// addPool takes in a range and what is given of it. Its name has the network_name, if it has one,
// before the range.
func (r *records) addPool(p *wbv1.IPPool) {
	source := wbv1.PoolKind + " " + p.Namespace + "/" + p.Name
	text, _, _ := strings.Cut(p.Spec.Range, "/")
	first, ok := alloc.ParseAddr(text)
	prefix, _, _, err := alloc.ParseRange(p.Spec.Range, "", "")
	if !ok || err != nil {
		r.unreadable = append(r.unreadable, Entry{
			State: Unreadable, Record: source,
			Detail: fmt.Sprintf("spec.range %.80q is no range", p.Spec.Range),
		})
		return
	}
	network := strings.TrimSuffix(strings.TrimSuffix(p.Name, dashed(p.Spec.Range)), "-")
	r.pools = append(r.pools, pool{network, prefix})
	for offset, a := range p.Spec.Allocations {
		n, err := strconv.ParseUint(offset, 10, 64)
		addr := plus(first, n)
		if err != nil || !prefix.Contains(addr) {
			r.unreadable = append(r.unreadable, Entry{
				State: Unreadable, Network: network, Pod: a.PodRef, Record: source,
				Detail: fmt.Sprintf("spec.allocations %.80q is no offset in %s", offset, prefix),
			})
			continue
		}
		r.add(&record{
			network: network, addr: addr, only: prefix, pod: a.PodRef, containerID: a.ContainerID,
			ifName: a.IfName, source: source,
		})
	}
}

// addReservation notes that what a pool records is reserved, or else records the address alone.
func (r *records) addReservation(o *wbv1.OverlappingRangeIPReservation) {
	source := wbv1.ReservationKind + " " + o.Namespace + "/" + o.Name
	network, addr, ok := r.parseReserved(o.Name)
	if !ok {
		r.unreadable = append(r.unreadable,
			Entry{State: Unreadable, Pod: o.Spec.PodRef, Record: source, Detail: "its name has no address"})
		return
	}
	known := false
	for _, x := range r.at[addr] {
		if x.network == network && x.pod == o.Spec.PodRef {
			x.reserved, known = true, true
		}
	}
	if !known {
		r.add(&record{
			network: network, addr: addr, reserved: true, pod: o.Spec.PodRef,
			containerID: o.Spec.ContainerID, ifName: o.Spec.IfName, source: source,
		})
	}
}

// parseReserved reads "[network-]address", in which dashes stand for colons. Where it can be read
// in more ways than one, a network that has a pool decides.
func (r *records) parseReserved(name string) (network string, addr netip.Addr, ok bool) {
	for end := -1; ; {
		prefix, text := name[:max(end, 0)], name[end+1:]
		a, isAddr := alloc.ParseAddr(strings.ReplaceAll(text, "-", ":"))
		known := slices.ContainsFunc(r.pools, func(p pool) bool {
			return p.network == prefix && a.BitLen() == p.prefix.Addr().BitLen()
		})
		if isAddr && (known || !ok) {
			network, addr, ok = prefix, a, true
		}
		next := strings.IndexByte(text, '-')
		if isAddr && known || next < 0 {
			return network, addr, ok
		}
		end += 1 + next
	}
}

// dashed is a range, or an address, as whereabouts names objects by it.
func dashed(s string) string { return strings.NewReplacer(":", "-", "/", "-").Replace(s) }

// plus returns the address n after another.
func plus(a netip.Addr, n uint64) netip.Addr {
	b := a.As16()
	low, carry := bits.Add64(binary.BigEndian.Uint64(b[8:]), n, 0)
	binary.BigEndian.PutUint64(b[8:], low)
	binary.BigEndian.PutUint64(b[:8], binary.BigEndian.Uint64(b[:8])+carry)
	if a.Is4() {
		return netip.AddrFrom16(b).Unmap()
	}
	return netip.AddrFrom16(b)
}
