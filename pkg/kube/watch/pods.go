// Package watch keeps an eye on objects of the API server, by client-go's informers. It is apart
// from package kube because these are megabytes, which a process for every pod does not carry.
//
// Contract: what is watched is told in the order of the server, each object at least once, and
// again what went on while the server could not be reached. Handlers are called one after the other
// and must not block.
package watch

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"

	"github.com/braid-cni/braid/pkg/kube"
)

// Pods are those of one node.
type Pods struct {
	API  *kube.API
	Node string
	// Changed is called with the metadata of a pod that is new or has changed, which is not to be
	// changed; Gone with that of one that was deleted.
	Changed, Gone func(*metav1.ObjectMeta)
	// Synced, if set, is called once, when all pods that there were at the start have been told.
	Synced func()
}

// Run watches until ctx is done, which is no error.
func (p *Pods) Run(ctx context.Context) error {
	config, err := p.API.RESTConfig()
	if err != nil {
		return fmt.Errorf("watch pods: %w", err)
	}
	client, err := metadata.NewForConfig(config)
	if err != nil {
		return fmt.Errorf("watch pods: %w", err)
	}
	pods := client.Resource(schema.GroupVersionResource{Version: "v1", Resource: "pods"})
	selector := fields.OneTermEqualSelector("spec.nodeName", p.Node).String()
	_, controller := cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: selected(pods, selector),
		ObjectType:    &metav1.PartialObjectMetadata{},
		Transform:     withoutManagers,
		Handler: cache.ResourceEventHandlerFuncs{
			AddFunc:    func(object any) { tell(p.Changed, object) },
			UpdateFunc: func(_, object any) { tell(p.Changed, object) },
			DeleteFunc: func(object any) { tell(p.Gone, object) },
		},
	})
	if p.Synced != nil {
		go func() {
			if cache.WaitForCacheSync(ctx.Done(), controller.HasSynced) {
				p.Synced()
			}
		}()
	}
	controller.RunWithContext(ctx)
	return nil
}

// selected lists and watches the objects that a field selector selects.
func selected(all metadata.ResourceInterface, selector string) *cache.ListWatch {
	return &cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			o.FieldSelector = selector
			return all.List(ctx, o)
		},
		WatchFuncWithContext: func(
			ctx context.Context, o metav1.ListOptions,
		) (apiwatch.Interface, error) {
			o.FieldSelector = selector
			return all.Watch(ctx, o)
		},
	}
}

// withoutManagers drops what most of an object's metadata is, and nobody reads.
func withoutManagers(object any) (any, error) {
	if pod, ok := object.(*metav1.PartialObjectMetadata); ok {
		pod.ManagedFields = nil
	}
	return object, nil
}

// tell hands an object on. One whose deletion was missed comes as it was known last.
func tell(to func(*metav1.ObjectMeta), object any) {
	if last, ok := object.(cache.DeletedFinalStateUnknown); ok {
		object = last.Obj
	}
	if pod, ok := object.(*metav1.PartialObjectMetadata); ok && to != nil {
		to(&pod.ObjectMeta)
	}
}
