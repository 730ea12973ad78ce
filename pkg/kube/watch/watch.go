// Package watch keeps NADs and the labels of namespaces in memory, by client-go's informers. It is
// apart from package kube because what comes with them is megabytes, which a process for every pod
// does not carry.
//
// Contract: what is not known yet, or not there, is asked of the API server: an object may be
// younger than what the informers have seen of it. So is everything while the API server was not
// heard for MaxAge: a watch that was lost does not show what has changed.
package watch

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

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

// MaxAge is how old what is remembered may be: twice the time between two signs of life of a watch
// on which nothing happens.
const MaxAge = 2 * time.Minute

// Cluster is the API server with a memory. Its methods are those of kube.API; NAD, NADs and
// Namespace answer from memory where they can.
type Cluster struct {
	*kube.API

	nads, namespaces *seen
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
	nads := objects.Resource(schema.GroupVersionResource{
		Group: nadv1.GroupName, Version: nadv1.Version, Resource: nadv1.Resource,
	})
	spaces := labels.Resource(schema.GroupVersionResource{Version: "v1", Resource: "namespaces"})
	c := &Cluster{API: api, nads: &seen{}, namespaces: &seen{}}
	c.nads.watch(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
				return nads.List(ctx, o)
			},
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (apiwatch.Interface,
				error,
			) {
				return c.nads.hear(nads.Watch(ctx, o))
			},
		}, objects),
		ObjectType: &unstructured.Unstructured{}, Transform: nadOf,
	})
	c.namespaces.watch(cache.InformerOptions{
		ListerWatcher: cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
			ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
				return spaces.List(ctx, o)
			},
			WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (apiwatch.Interface,
				error,
			) {
				return c.namespaces.hear(spaces.Watch(ctx, o))
			},
		}, labels),
		ObjectType: &metav1.PartialObjectMetadata{}, Transform: namespaceOf,
	})
	return c, nil
}

// With returns the same memory with another account behind it, which is asked for what is not in
// it.
func (c *Cluster) With(api *kube.API) *Cluster {
	with := *c
	with.API = api
	return &with
}

// Run keeps the memory until ctx is done.
func (c *Cluster) Run(ctx context.Context, log *slog.Logger) {
	log.DebugContext(ctx, "watching NADs and namespaces")
	var work sync.WaitGroup
	work.Go(func() { c.nads.informer.RunWithContext(ctx) })
	work.Go(func() { c.namespaces.informer.RunWithContext(ctx) })
	work.Wait()
}

// Synced reports whether the memory has all that there was at the start of Run.
func (c *Cluster) Synced() bool {
	return c.nads.informer.HasSynced() && c.namespaces.informer.HasSynced()
}

// Fresh reports whether both kinds are answered from memory now.
func (c *Cluster) Fresh() bool { return c.nads.fresh() && c.namespaces.fresh() }

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
	//nolint:errcheck // the schema has it as a string
	config, _, _ := unstructured.NestedString(u.Object, "spec", "config")
	annotations := u.GetAnnotations()
	delete(annotations, lastApplied)
	return &remembered{config: config, ObjectMeta: metav1.ObjectMeta{
		Namespace: u.GetNamespace(), Name: u.GetName(), UID: u.GetUID(),
		ResourceVersion: u.GetResourceVersion(), Annotations: annotations,
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
	return &remembered{
		ObjectMeta: metav1.ObjectMeta{
			Name: m.Name, UID: m.UID, ResourceVersion: m.ResourceVersion, Labels: m.Labels,
		},
	}, nil
}

func (r *remembered) nad() *nadv1.NetworkAttachmentDefinition {
	return &nadv1.NetworkAttachmentDefinition{
		ObjectMeta: r.ObjectMeta, Spec: nadv1.NetworkAttachmentDefinitionSpec{Config: r.config},
	}
}

// NAD returns a NAD.
func (c *Cluster) NAD(
	ctx context.Context, namespace, name string,
) (*nadv1.NetworkAttachmentDefinition, error) {
	if r := c.nads.find(namespace + "/" + name); r != nil {
		return r.nad(), nil
	}
	return c.API.NAD(ctx, namespace, name)
}

// NADs returns the NADs of all namespaces.
func (c *Cluster) NADs(ctx context.Context) ([]nadv1.NetworkAttachmentDefinition, error) {
	if !c.nads.fresh() {
		return c.API.NADs(ctx)
	}
	var all []nadv1.NetworkAttachmentDefinition
	for _, o := range c.nads.store.List() {
		if r, ok := o.(*remembered); ok {
			all = append(all, *r.nad())
		}
	}
	return all, nil
}

// Namespace returns a namespace, of its metadata the name and the labels. One that is not there has
// none: it is being made, or somebody asks for a name that nobody has.
func (c *Cluster) Namespace(ctx context.Context, name string) (*metav1.ObjectMeta, error) {
	if r := c.namespaces.find(name); r != nil {
		return &metav1.ObjectMeta{Name: name, Labels: r.Labels}, nil
	}
	namespace, err := c.API.Namespace(ctx, name)
	if apierrors.IsNotFound(err) {
		return &metav1.ObjectMeta{Name: name}, nil
	}
	return namespace, err
}
