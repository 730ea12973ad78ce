package block

import (
	"context"
	"fmt"
	"slices"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
)

// Free returns how many more addresses Adds on this node could get for the wish, the maximum of the
// type for more. It is exact for shared blocks and those of this node. Of a block of another node
// it takes what that said last, and takes each of those addresses for one of the wish's: the answer
// may be late, and too low where ranges share a block. It asks for blocks as a Reader with
// resourceVersion 0, and changes nothing.
func (m *Manager) Free(ctx context.Context, w Wish) (uint64, error) {
	own := map[string]*local{} // by the objects' names
	if err := m.eachBlock(ctx, func(b *local) { own[b.name()] = b }); err != nil {
		return 0, err
	}
	var used uint64
	for _, space := range append([]string{w.Space}, w.Beside...) {
		opts := metav1.ListOptions{FieldSelector: "spec.space=" + space, ResourceVersion: "0"}
		objects, err := m.Store.Blocks(ctx, opts)
		if err != nil {
			return 0, fmt.Errorf("list blocks of space %s: %w", space, err)
		}
		used += w.usedIn(space, objects, own)
	}
	return w.Window.Size() - min(used, w.Window.Size()), nil
}

// usedIn counts the addresses of the wish that are in use in a space; own are the node's blocks.
func (w Wish) usedIn(
	space string, objects []v1alpha1.IPBlock, own map[string]*local,
) (used uint64) {
	for i := range objects {
		if b := own[objects[i].Name]; b == nil || !b.ours() {
			used += w.usedOf(&objects[i])
		}
	}
	for _, b := range own {
		if b.Space == space && b.ours() {
			used += w.usedHere(b)
		}
	}
	return used
}

// usedHere counts the addresses of the wish that are in use of a block of this node.
func (w Wish) usedHere(b *local) (used uint64) {
	for addr := range b.Used {
		if w.Window.Contains(addr) {
			used++
		}
	}
	return used
}

// usedOf counts those of another block, as its object says.
func (w Wish) usedOf(object *v1alpha1.IPBlock) uint64 {
	cidr, err := ParseBlock(object.Spec.CIDR)
	if err != nil {
		return 0
	}
	if object.Spec.Owner != nil {
		used := uint64(max(0, object.Status.Used)) //nolint:gosec // it is not negative
		return min(used, uint64(len(slices.Collect(w.Window.In(cidr)))))
	}
	var used uint64
	for addr := range w.Window.In(cidr) {
		is := func(e v1alpha1.Allocation) bool { return e.Address == addr.String() }
		if slices.ContainsFunc(object.Spec.Allocations, is) {
			used++
		}
	}
	return used
}
