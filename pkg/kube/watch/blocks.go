package watch

import (
	"context"
	"strings"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	"github.com/braid-cni/braid/pkg/kube"
)

// Blocks is the API server with a memory of blocks of addresses. They are watched from when they
// are first asked for.
type Blocks struct {
	*kube.API

	memory *Memory[v1alpha1.IPBlock]
	asked  chan struct{}
	once   sync.Once
}

// NewBlocks makes a memory that is empty until Run. It dials nobody.
func NewBlocks(api *kube.API) (*Blocks, error) {
	memory, err := NewMemory(api, Objects[v1alpha1.IPBlock, v1alpha1.IPBlock]{
		Resource: schema.GroupVersionResource{
			Group: v1alpha1.GroupName, Version: v1alpha1.Version, Resource: v1alpha1.Resource,
		},
		Keep: func(b *v1alpha1.IPBlock) (v1alpha1.IPBlock, bool) {
			meta := metav1.ObjectMeta{Name: b.Name}
			return v1alpha1.IPBlock{ObjectMeta: meta, Spec: b.Spec, Status: b.Status}, true
		},
	})
	return &Blocks{API: api, memory: memory, asked: make(chan struct{})}, err
}

// Run keeps the memory, once it was asked for, until ctx is done.
func (b *Blocks) Run(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-b.asked:
		b.memory.Run(ctx)
	}
}

// Blocks answers from memory where the latest changes may be missing.
func (b *Blocks) Blocks(
	ctx context.Context, opts metav1.ListOptions,
) (some []v1alpha1.IPBlock, err error) {
	b.once.Do(func() { close(b.asked) })
	space, ofSpace := strings.CutPrefix(opts.FieldSelector, "spec.space=")
	if opts.ResourceVersion != "0" || !ofSpace || !b.memory.Synced() {
		return b.API.Blocks(ctx, opts)
	}
	for _, block := range b.memory.All() {
		if block.Spec.Space == space {
			some = append(some, block)
		}
	}
	return some, nil
}
