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
	"log/slog"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/kube"
)

// MaxAge is how old what is remembered may be: twice the time between two signs of life of a watch
// on which nothing happens.
const MaxAge = 2 * time.Minute

// definition is what is kept of a NAD. It is not to be changed.
type definition = *nadv1.NetworkAttachmentDefinition

// Cluster is the API server with a memory. Its methods are those of kube.API; NAD, NADs and
// Namespace answer from memory where they can.
type Cluster struct {
	*kube.API

	nads       *Memory[definition]
	namespaces *Memory[map[string]string]
}

// New makes a memory that is empty until Run. It dials nobody. changed, if not nil, is called after
// each change of a NAD with what it was, and with what it is. It must not block.
func New(
	api *kube.API, changed func(*nadv1.NetworkAttachmentDefinition),
) (c *Cluster, err error) {
	c = &Cluster{API: api}
	c.nads, err = NewMemory(api, Objects[nadv1.NetworkAttachmentDefinition, definition]{
		Resource: schema.GroupVersionResource{
			Group: nadv1.GroupName, Version: nadv1.Version, Resource: nadv1.Resource,
		},
		Keep: nadOf, Changed: changed,
	})
	if err != nil {
		return nil, err
	}
	c.namespaces, err = NewMemory(api, Objects[metav1.PartialObjectMetadata, map[string]string]{
		Resource: schema.GroupVersionResource{Version: "v1", Resource: "namespaces"},
		Keep: func(n *metav1.PartialObjectMetadata) (map[string]string, bool) {
			return n.Labels, true
		},
	})
	return c, err
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
	work.Go(func() { c.nads.Run(ctx) })
	work.Go(func() { c.namespaces.Run(ctx) })
	work.Wait()
}

// Synced reports whether the memory has all that there was at the start of Run.
func (c *Cluster) Synced() bool {
	return c.nads.Synced() && c.namespaces.Synced()
}

// Fresh reports whether both kinds are answered from memory now.
func (c *Cluster) Fresh() bool { return c.nads.fresh() && c.namespaces.fresh() }

// nadOf is what is kept of a NAD, which is what an ADD reads: of 5,000 of them most of the rest is
// who manages which field.
func nadOf(n *nadv1.NetworkAttachmentDefinition) (definition, bool) {
	delete(n.Annotations, lastApplied)
	return &nadv1.NetworkAttachmentDefinition{Spec: n.Spec, ObjectMeta: metav1.ObjectMeta{
		Namespace: n.Namespace, Name: n.Name, UID: n.UID, ResourceVersion: n.ResourceVersion,
		Annotations: n.Annotations,
	}}, true
}

// lastApplied is where kubectl keeps a copy of the object.
const lastApplied = "kubectl.kubernetes.io/last-applied-configuration"

// NAD returns a NAD.
func (c *Cluster) NAD(
	ctx context.Context, namespace, name string,
) (*nadv1.NetworkAttachmentDefinition, error) {
	if known, ok := c.nads.find(namespace + "/" + name); ok {
		own := *known
		return &own, nil
	}
	return c.API.NAD(ctx, namespace, name)
}

// NADs returns the NADs of all namespaces.
func (c *Cluster) NADs(ctx context.Context) ([]nadv1.NetworkAttachmentDefinition, error) {
	if !c.nads.fresh() {
		return c.API.NADs(ctx)
	}
	var all []nadv1.NetworkAttachmentDefinition
	for _, known := range c.Known() {
		all = append(all, *known)
	}
	return all, nil
}

// Known returns the NADs in memory, however old that is. They are not to be changed.
func (c *Cluster) Known() []*nadv1.NetworkAttachmentDefinition { return c.nads.All() }

// WaitSynced waits until the memory has the NADs that there were at the start of Run. It is false
// if ctx is done before.
func (c *Cluster) WaitSynced(ctx context.Context) bool { return c.nads.WaitSynced(ctx) }

// Namespace returns a namespace, of its metadata the name and the labels. One that is not there has
// none: it is being made, or somebody asks for a name that nobody has.
func (c *Cluster) Namespace(ctx context.Context, name string) (*metav1.ObjectMeta, error) {
	if labels, ok := c.namespaces.find(name); ok {
		return &metav1.ObjectMeta{Name: name, Labels: labels}, nil
	}
	namespace, err := c.API.Namespace(ctx, name)
	if apierrors.IsNotFound(err) {
		return &metav1.ObjectMeta{Name: name}, nil
	}
	return namespace, err
}
