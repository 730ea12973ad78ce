// Package blocktest has an API of blocks in memory, in which requests can be made to fail before
// and after they take effect. Package pkg/kube's tests hold it to the same contract as the real
// ones.
package blocktest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	claimv1 "github.com/braid-cni/braid/pkg/api/ipamclaim/v1alpha1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/ipam/block"
)

// Fake is a block.Store, block.Nodes and block.IPAMClaims.
type Fake struct {
	// Fault, if set, is asked before and after each request takes effect, with the verb, and makes it
	// fail with what it returns. It is called without a lock. If it returns ErrLate before, the
	// request takes effect when Arrive says so, and what Fault returns when asked with "late" is its
	// error.
	Fault func(when, verb string) error

	mu      sync.Mutex
	version int
	blocks  map[string]*v1alpha1.IPBlock
	// stale is what blocks were some changes ago.
	stale map[string]*v1alpha1.IPBlock
	nodes map[string]types.UID
	// outOfService are nodes that are taken for lost.
	outOfService map[string]bool
	claims       map[string]*claimv1.IPAMClaim
	calls        map[string]int
	late         []func() error
}

// ErrLate is for Fault.
var ErrLate = errors.New("the request is on its way")

// Arrive makes requests that are on their way take effect, in their order.
func (f *Fake) Arrive() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, do := range f.late {
		do() //nolint:errcheck // nobody waits for the answer
	}
	f.late = nil
}

var (
	_ block.Store      = (*Fake)(nil)
	_ block.Nodes      = (*Fake)(nil)
	_ block.IPAMClaims = (*Fake)(nil)
)

// New makes an empty API.
func New() *Fake {
	return &Fake{
		blocks: map[string]*v1alpha1.IPBlock{}, nodes: map[string]types.UID{},
		claims: map[string]*claimv1.IPAMClaim{}, calls: map[string]int{},
	}
}

// AddNode makes or replaces a Node object.
func (f *Fake) AddNode(name string, uid types.UID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.nodes[name] = uid
}

// SetOutOfService taints a Node object, or takes the taint off it.
func (f *Fake) SetOutOfService(name string, tainted bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.outOfService == nil {
		f.outOfService = map[string]bool{}
	}
	f.outOfService[name] = tainted
}

// DeleteNode removes a Node object.
func (f *Fake) DeleteNode(name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.nodes, name)
}

// AddClaim makes or replaces an IPAMClaim.
func (f *Fake) AddClaim(c *claimv1.IPAMClaim) {
	f.mu.Lock()
	defer f.mu.Unlock()
	copied := *c
	f.claims[c.Namespace+"/"+c.Name] = &copied
}

// RemoveClaim removes an IPAMClaim.
func (f *Fake) RemoveClaim(namespace, name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.claims, namespace+"/"+name)
}

// Remember makes what is there now the answer of lists that may be stale.
func (f *Fake) Remember() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stale = maps.Clone(f.blocks)
}

// All returns the blocks as they are now. It is no request.
func (f *Fake) All() (list []v1alpha1.IPBlock) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, name := range slices.Sorted(maps.Keys(f.blocks)) {
		list = append(list, *f.blocks[name].DeepCopy())
	}
	return list
}

// Calls returns how many requests of these verbs there were; of all without any.
func (f *Fake) Calls(verbs ...string) (n int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for verb, calls := range f.calls {
		if len(verbs) == 0 || slices.Contains(verbs, verb) {
			n += calls
		}
	}
	return n
}

// request runs one request.
func (f *Fake) request(ctx context.Context, verb string, do func() error) error {
	if ctx.Err() != nil {
		return &failure.Error{
			Reason: failure.TimedOut, Err: fmt.Errorf("%s: %w", verb, context.Cause(ctx)),
		}
	}
	fault := func(when string) error {
		if f.Fault == nil {
			return nil
		}
		return f.Fault(when, verb)
	}
	if err := fault("before"); errors.Is(err, ErrLate) {
		f.mu.Lock()
		f.late = append(f.late, do)
		f.mu.Unlock()
		return fault("late")
	} else if err != nil {
		return err
	}
	f.mu.Lock()
	f.calls[verb]++
	err := do()
	f.mu.Unlock()
	if err != nil {
		return err
	}
	return fault("after")
}

// named refuses names that no object can have.
func named(names ...string) error {
	for _, name := range names {
		if bad := validation.IsDNS1123Subdomain(name); bad != nil {
			return apierrors.NewBadRequest(fmt.Sprintf("name %q: %v", name, bad))
		}
	}
	return nil
}

// versioned refuses a block without a uid, or without a version.
func versioned(b *v1alpha1.IPBlock, version string) error {
	if b.UID == "" || version == "" {
		return apierrors.NewBadRequest("block " + b.Name + " has no uid or no resourceVersion")
	}
	return named(b.Name)
}

func resource() schema.GroupResource {
	return schema.GroupResource{Group: v1alpha1.GroupName, Resource: v1alpha1.Resource}
}

func (f *Fake) stamp(b *v1alpha1.IPBlock) {
	f.version++
	b.ResourceVersion = strconv.Itoa(f.version)
}

// CreateBlock implements block.Store.
func (f *Fake) CreateBlock(
	ctx context.Context, b *v1alpha1.IPBlock,
) (made *v1alpha1.IPBlock, err error) {
	if err := named(b.Name); err != nil {
		return nil, err
	}
	err = f.request(ctx, "create", func() error {
		if _, ok := f.blocks[b.Name]; ok {
			return apierrors.NewAlreadyExists(resource(), b.Name)
		}
		stored := b.DeepCopy()
		stored.Status = v1alpha1.IPBlockStatus{}
		f.stamp(stored)
		stored.UID = types.UID("uid-" + stored.ResourceVersion)
		stored.CreationTimestamp = metav1.NewTime(time.Now())
		f.blocks[b.Name], made = stored, stored.DeepCopy()
		return nil
	})
	return made, err
}

// Block implements block.Reader.
func (f *Fake) Block(ctx context.Context, name string) (b *v1alpha1.IPBlock, err error) {
	if err := named(name); err != nil {
		return nil, err
	}
	err = f.request(ctx, "get", func() error {
		stored, ok := f.blocks[name]
		if !ok {
			return apierrors.NewNotFound(resource(), name)
		}
		b = stored.DeepCopy()
		return nil
	})
	return b, err
}

// Blocks implements block.Reader.
func (f *Fake) Blocks(
	ctx context.Context, opts metav1.ListOptions,
) (list []v1alpha1.IPBlock, err error) {
	selector, err := fields.ParseSelector(opts.FieldSelector)
	if err != nil {
		return nil, apierrors.NewBadRequest("field selector: " + err.Error())
	}
	known := []string{"metadata.name", "spec.space", "spec.owner.nodeName", "spec.recall.by"}
	for _, r := range selector.Requirements() {
		if !slices.Contains(known, r.Field) {
			return nil, apierrors.NewBadRequest("field selector: " + r.Field + " is none")
		}
	}
	err = f.request(ctx, "list", func() error {
		from := f.blocks
		if opts.ResourceVersion == "0" && f.stale != nil {
			from = f.stale
		}
		for _, name := range slices.Sorted(maps.Keys(from)) {
			b := from[name]
			set := fields.Set{"spec.space": b.Spec.Space, "metadata.name": b.Name}
			if b.Spec.Owner != nil {
				set["spec.owner.nodeName"] = b.Spec.Owner.NodeName
			}
			if b.Spec.Recall != nil {
				set["spec.recall.by"] = b.Spec.Recall.By
			}
			if selector.Matches(set) {
				list = append(list, *b.DeepCopy())
			}
		}
		return nil
	})
	return list, err
}

// current returns the stored block, if it is the version that is given.
func (f *Fake) current(b *v1alpha1.IPBlock) (*v1alpha1.IPBlock, error) {
	stored, ok := f.blocks[b.Name]
	if !ok {
		return nil, apierrors.NewNotFound(resource(), b.Name)
	}
	if stored.UID != b.UID || stored.ResourceVersion != b.ResourceVersion {
		return nil, apierrors.NewConflict(resource(), b.Name,
			fmt.Errorf("it is version %s of %s", stored.ResourceVersion, stored.UID))
	}
	return stored, nil
}

// UpdateBlock implements block.Store.
func (f *Fake) UpdateBlock(
	ctx context.Context, b *v1alpha1.IPBlock,
) (made *v1alpha1.IPBlock, err error) {
	if err := versioned(b, b.ResourceVersion); err != nil {
		return nil, err
	}
	err = f.request(ctx, "update", func() error {
		stored, err := f.current(b)
		if err != nil {
			return err
		}
		if b.Spec.Space != stored.Spec.Space || b.Spec.CIDR != stored.Spec.CIDR {
			return apierrors.NewInvalid(schema.GroupKind{Group: v1alpha1.GroupName, Kind: v1alpha1.Kind},
				b.Name, nil)
		}
		next := stored.DeepCopy()
		next.Spec = b.DeepCopy().Spec
		f.stamp(next)
		f.blocks[b.Name], made = next, next.DeepCopy()
		return nil
	})
	return made, err
}

// UpdateBlockStatus implements block.Store.
func (f *Fake) UpdateBlockStatus(ctx context.Context, b *v1alpha1.IPBlock) error {
	if err := versioned(b, "any"); err != nil {
		return err
	}
	return f.request(ctx, "status", func() error {
		stored, ok := f.blocks[b.Name]
		if !ok {
			return apierrors.NewNotFound(resource(), b.Name)
		}
		if stored.UID != b.UID {
			return apierrors.NewConflict(resource(), b.Name, fmt.Errorf("its uid is %s", stored.UID))
		}
		next := stored.DeepCopy()
		next.Status = b.Status
		f.stamp(next)
		f.blocks[b.Name] = next
		return nil
	})
}

// DeleteBlock implements block.Store.
func (f *Fake) DeleteBlock(ctx context.Context, b *v1alpha1.IPBlock) error {
	if err := versioned(b, b.ResourceVersion); err != nil {
		return err
	}
	return f.request(ctx, "delete", func() error {
		if _, err := f.current(b); err != nil {
			return err
		}
		delete(f.blocks, b.Name)
		return nil
	})
}

// Node implements block.Nodes.
func (f *Fake) Node(ctx context.Context, name string) (node *metav1.ObjectMeta, err error) {
	if err := named(name); err != nil {
		return nil, err
	}
	err = f.request(ctx, "node", func() error {
		uid, ok := f.nodes[name]
		if !ok {
			return apierrors.NewNotFound(schema.GroupResource{Resource: "nodes"}, name)
		}
		if f.outOfService[name] {
			return &failure.Error{
				Reason: failure.NotReady, Err: errors.New("node " + name + " is out of service"),
			}
		}
		node = &metav1.ObjectMeta{Name: name, UID: uid}
		return nil
	})
	return node, err
}

// NodeCount implements block.Nodes.
func (f *Fake) NodeCount(ctx context.Context) (n int, err error) {
	err = f.request(ctx, "count", func() error {
		n = len(f.nodes)
		return nil
	})
	return n, err
}

// IPAMClaim implements block.IPAMClaims.
func (f *Fake) IPAMClaim(
	ctx context.Context, namespace, name string,
) (claim *claimv1.IPAMClaim, err error) {
	if err := named(namespace, name); err != nil {
		return nil, err
	}
	err = f.request(ctx, "claim", func() error {
		stored, ok := f.claims[namespace+"/"+name]
		if !ok {
			return apierrors.NewNotFound(schema.GroupResource{
				Group: claimv1.GroupName, Resource: claimv1.Resource,
			}, name)
		}
		copied := *stored
		claim = &copied
		return nil
	})
	return claim, err
}

// SetIPAMClaimIPs implements block.IPAMClaims.
func (f *Fake) SetIPAMClaimIPs(ctx context.Context, claim *claimv1.IPAMClaim, ips []string) error {
	if err := named(claim.Namespace, claim.Name); err != nil {
		return err
	}
	if claim.UID == "" {
		return apierrors.NewBadRequest("claim " + claim.Name + " has no uid")
	}
	return f.request(ctx, "claim status", func() error {
		stored, ok := f.claims[claim.Namespace+"/"+claim.Name]
		gr := schema.GroupResource{Group: claimv1.GroupName, Resource: claimv1.Resource}
		if !ok {
			return apierrors.NewNotFound(gr, claim.Name)
		}
		if stored.UID != claim.UID {
			return apierrors.NewConflict(gr, claim.Name, fmt.Errorf("its uid is %s", stored.UID))
		}
		stored.Status.IPs, stored.Status.OwnerPod = slices.Clone(ips), claim.Status.OwnerPod
		return nil
	})
}
