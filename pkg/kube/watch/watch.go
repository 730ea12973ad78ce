// Package watch keeps NADs and the labels of namespaces in memory, by client-go's informers. It is
// apart from package kube because what comes with them is megabytes, which a process for every pod
// does not carry.
//
// Contract: what is not known yet, or not there, is asked of the API server: an object may be younger
// than what the informers have seen of it.
package watch

import (
	"context"
	"fmt"
	"log/slog"
	"sync"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiwatch "k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/tools/cache"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/kube"
)

// Cluster is the API server with a memory. Its methods are those of kube.API; NAD, NADs and
// Namespace answer from memory where they can.
type Cluster struct {
	*kube.API

	nads, namespaces             cache.Store
	nadsInformer, spacesInformer cache.Controller
}

// New makes a memory that is empty until Run. It dials nobody.
func New(api *kube.API) (*Cluster, error) {
	config, err := api.RESTConfig()
	if err != nil {
		return nil, err
	}
	config.QPS = -1
	objects, err := dynamic.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("watch NADs: %w", err)
	}
	labels, err := metadata.NewForConfig(config)
	if err != nil {
		return nil, fmt.Errorf("watch namespaces: %w", err)
	}
	nads := objects.Resource(schema.GroupVersionResource{Group: nadv1.GroupName, Version: nadv1.Version, Resource: nadv1.Resource})
	spaces := labels.Resource(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"})
	c := &Cluster{API: api}
	c.nads, c.nadsInformer = cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
			ListWithContextFunc:  func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return nads.List(ctx, o) },
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (apiwatch.Interface, error) { return nads.Watch(ctx, o) },
		}, objects),
		ObjectType: &unstructured.Unstructured{}, Handler: cache.ResourceEventHandlerFuncs{}, Transform: nadOf,
	})
	c.namespaces, c.spacesInformer = cache.NewInformerWithOptions(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return spaces.List(ctx, o) },
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (apiwatch.Interface, error) {
				return spaces.Watch(ctx, o)
			},
		}, labels),
		ObjectType: &metav1.PartialObjectMetadata{}, Handler: cache.ResourceEventHandlerFuncs{}, Transform: namespaceOf,
	})
	return c, nil
}

// Run keeps the memory until ctx is done.
func (c *Cluster) Run(ctx context.Context, log *slog.Logger) {
	log.DebugContext(ctx, "watching NADs and namespaces")
	var work sync.WaitGroup
	work.Go(func() { c.nadsInformer.RunWithContext(ctx) })
	work.Go(func() { c.spacesInformer.RunWithContext(ctx) })
	work.Wait()
}

// Synced reports whether the memory has all that there was at the start of Run.
func (c *Cluster) Synced() bool { return c.nadsInformer.HasSynced() && c.spacesInformer.HasSynced() }

// remembered is a NAD in memory: what an ADD reads of it.
type remembered struct {
	metav1.ObjectMeta

	config string
}

// nadOf is what is kept of a NAD: of 5,000 of them most of the rest is who manages which field.
func nadOf(o any) (any, error) {
	u, ok := o.(*unstructured.Unstructured)
	if !ok {
		return o, nil
	}
	config, _, _ := unstructured.NestedString(u.Object, "spec", "config") //nolint:errcheck // the schema has it as a string
	annotations := u.GetAnnotations()
	delete(annotations, lastApplied)
	return &remembered{config: config, ObjectMeta: metav1.ObjectMeta{
		Namespace: u.GetNamespace(), Name: u.GetName(), UID: u.GetUID(), ResourceVersion: u.GetResourceVersion(), Annotations: annotations,
	}}, nil
}

// lastApplied is where kubectl keeps a copy of the object.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// namespaceOf is what is kept of a namespace: its labels.
func namespaceOf(o any) (any, error) {
	m, ok := o.(*metav1.PartialObjectMetadata)
	if !ok {
		return o, nil
	}
	return &remembered{ObjectMeta: metav1.ObjectMeta{Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion, Labels: m.Labels}}, nil
}

func (r *remembered) nad() *nadv1.NetworkAttachmentDefinition {
	return &nadv1.NetworkAttachmentDefinition{ObjectMeta: r.ObjectMeta, Spec: nadv1.NetworkAttachmentDefinitionSpec{Config: r.config}}
}

// find returns an object in memory; nil for none.
func find(store cache.Store, informer cache.Controller, key string) *remembered {
	if !informer.HasSynced() {
		return nil
	}
	o, _, err := store.GetByKey(key)
	if err != nil {
		return nil
	}
	r, _ := o.(*remembered)
	return r
}

// NAD returns a NAD.
func (c *Cluster) NAD(ctx context.Context, namespace, name string) (*nadv1.NetworkAttachmentDefinition, error) {
	if r := find(c.nads, c.nadsInformer, namespace+"/"+name); r != nil {
		return r.nad(), nil
	}
	return c.API.NAD(ctx, namespace, name)
}

// NADs returns the NADs of all namespaces.
func (c *Cluster) NADs(ctx context.Context) ([]nadv1.NetworkAttachmentDefinition, error) {
	if !c.nadsInformer.HasSynced() {
		return c.API.NADs(ctx)
	}
	var all []nadv1.NetworkAttachmentDefinition
	for _, o := range c.nads.List() {
		if r, ok := o.(*remembered); ok {
			all = append(all, *r.nad())
		}
	}
	return all, nil
}

// Namespace returns a namespace, of its metadata the name and the labels. One that is not there has
// none: it is being made, or somebody asks for a name that nobody has.
func (c *Cluster) Namespace(ctx context.Context, name string) (*metav1.ObjectMeta, error) {
	if r := find(c.namespaces, c.spacesInformer, name); r != nil {
		return &metav1.ObjectMeta{Name: name, Labels: r.Labels}, nil
	}
	namespace, err := c.API.Namespace(ctx, name)
	if apierrors.IsNotFound(err) {
		return &metav1.ObjectMeta{Name: name}, nil
	}
	return namespace, err
}
