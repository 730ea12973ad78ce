package watch

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/tools/cache"

	"github.com/braid-cni/braid/pkg/kube"
)

// Objects are those of a kind, in all namespaces, of which a Memory keeps some.
type Objects[O, T any] struct {
	Resource schema.GroupVersionResource
	// Fields is a field selector; empty for all objects.
	Fields string
	// Keep returns what is kept of an object, and false for one that is not to be told of.
	Keep func(*O) (T, bool)
	// Changed, if set, is called after each change with what was kept of the object, and with what
	// is. It must not block.
	Changed func(T)
}

// Memory is what is kept of objects. NewMemory makes one.
type Memory[T any] struct {
	seen

	store    cache.Store
	informer cache.Controller
}

// kept is an object in memory.
type kept[T any] struct {
	metav1.Object // names it

	told  bool
	value T
}

// NewMemory returns a memory that is empty until Run. It dials nobody.
func NewMemory[O, T any](api *kube.API, of Objects[O, T]) (*Memory[T], error) {
	config, err := api.RESTConfig()
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	client, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", of.Resource.Resource, err)
	}
	objects := client.Resource(of.Resource)
	m := &Memory[T]{}
	m.store, m.informer = cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
				o.FieldSelector = of.Fields
				return objects.List(ctx, o)
			},
			WatchFuncWithContext: func(
				ctx context.Context, o metav1.ListOptions,
			) (apiwatch.Interface, error) {
				o.FieldSelector = of.Fields
				return m.hear(objects.Watch(ctx, o))
			},
		}, client),
		ObjectType: &unstructured.Unstructured{}, Transform: of.transform, Handler: of.handler(),
	})
	return m, nil
}

// transform makes an object one that is kept.
func (of Objects[O, T]) transform(object any) (any, error) {
	u, ok := object.(*unstructured.Unstructured)
	if !ok {
		return object, nil
	}
	k := &kept[T]{Object: &metav1.ObjectMeta{
		Namespace: u.GetNamespace(), Name: u.GetName(), UID: u.GetUID(),
		ResourceVersion: u.GetResourceVersion(),
	}}
	var o O
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(u.Object, &o); err != nil {
		return k, nil //nolint:nilerr // what cannot be read is not told of
	}
	k.value, k.told = of.Keep(&o)
	if named, ok := any(k.value).(metav1.Object); ok && k.told { // it is kept once
		k.Object = named
	}
	return k, nil
}

// handler calls Changed where there is something to tell, or was.
func (of Objects[O, T]) handler() cache.ResourceEventHandler {
	told := func(objects ...any) {
		for _, o := range objects {
			if last, ok := o.(cache.DeletedFinalStateUnknown); ok {
				o = last.Obj
			}
			if k, ok := o.(*kept[T]); ok && k.told && of.Changed != nil {
				of.Changed(k.value)
			}
		}
	}
	return cache.ResourceEventHandlerFuncs{
		AddFunc:    func(o any) { told(o) },
		UpdateFunc: func(before, now any) { told(before, now) },
		DeleteFunc: func(o any) { told(o) },
	}
}

// Run keeps the memory until ctx is done.
func (m *Memory[T]) Run(ctx context.Context) { m.informer.RunWithContext(ctx) }

// Synced reports whether the memory has all that there was at the start of Run.
func (m *Memory[T]) Synced() bool { return m.informer.HasSynced() }

// WaitSynced waits for Synced; it is false if ctx is done before.
func (m *Memory[T]) WaitSynced(ctx context.Context) bool {
	return cache.WaitForCacheSync(ctx.Done(), m.informer.HasSynced)
}

// fresh reports whether the memory has all that there was MaxAge ago.
func (m *Memory[T]) fresh() bool { return m.recent() && m.Synced() }

// find returns what is kept of an object, if the memory is fresh.
func (m *Memory[T]) find(key string) (value T, ok bool) {
	if !m.fresh() {
		return value, false
	}
	o, _, err := m.store.GetByKey(key)
	if k, is := o.(*kept[T]); is && err == nil && k.told {
		return k.value, true
	}
	return value, false
}

// All returns what is kept, in no order. It is not to be changed.
func (m *Memory[T]) All() (all []T) {
	for _, o := range m.store.List() {
		if k, ok := o.(*kept[T]); ok && k.told {
			all = append(all, k.value)
		}
	}
	return all
}
