package kube

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/kube/internal/objects"
)

const (
	// pageSize bounds the answer to one LIST, which an API server reads from its store as a whole.
	pageSize = 500
	// metadataListType is metadataType for a LIST.
	metadataListType = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
)

// wireBlock is an IPBlock in requests and answers. Who manages which of its fields is a third of
// its bytes and of no use here, so it is dropped. A server takes an object without it for one that
// does not change it.
type wireBlock struct {
	wireMetadata

	Spec   v1alpha1.IPBlockSpec   `json:"spec"`
	Status v1alpha1.IPBlockStatus `json:"status"`
}

func (w *wireBlock) block() v1alpha1.IPBlock {
	return v1alpha1.IPBlock{
		TypeMeta: objects.BlockType(), ObjectMeta: w.Metadata.ObjectMeta, Spec: w.Spec, Status: w.Status,
	}
}

// skipped is a JSON value that is not decoded.
type skipped struct{}

// UnmarshalJSON takes any value.
func (*skipped) UnmarshalJSON([]byte) error { return nil }

// CreateBlock makes a block. The server names who manages its fields after the user agent: "braid",
// which is stored with every block. A block that exists already may be that of a try whose answer
// was lost: then its owner, who names the claim, is the same.
func (a *API) CreateBlock(ctx context.Context, block *v1alpha1.IPBlock) (*v1alpha1.IPBlock, error) {
	tries := 0
	made, err := a.writeBlock(ctx, "create", block, func(c *client) *rest.Request {
		tries++
		return c.blocks.Post().Resource(v1alpha1.Resource)
	})
	if tries < 2 || block.Spec.Owner == nil || !apierrors.IsAlreadyExists(err) {
		return made, err
	}
	made, gerr := a.Block(ctx, block.Name)
	if gerr == nil && (made.Spec.Owner == nil || *made.Spec.Owner != *block.Spec.Owner) {
		return nil, err
	}
	return made, gerr
}

// UpdateBlock replaces the spec of one version of a block: the server compares resourceVersion and
// uid.
func (a *API) UpdateBlock(ctx context.Context, block *v1alpha1.IPBlock) (*v1alpha1.IPBlock, error) {
	if err := objects.CheckVersion(block); err != nil {
		return nil, fmt.Errorf("update block: %w", err)
	}
	return a.writeBlock(ctx, "update", block, func(c *client) *rest.Request {
		return c.blocks.Put().Resource(v1alpha1.Resource).Name(block.Name)
	})
}

// writeBlock sends a block and returns it as it is stored, with its new version.
func (a *API) writeBlock(
	ctx context.Context, verb string, block *v1alpha1.IPBlock, request func(*client) *rest.Request,
) (*v1alpha1.IPBlock, error) {
	sent := *block
	sent.TypeMeta, sent.ManagedFields = objects.BlockType(), nil
	body, err := json.Marshal(&sent)
	if err != nil {
		return nil, fmt.Errorf("encode block: %w", err)
	}
	c := blockCall(verb, block.Name, func(c *client) *rest.Request {
		return send(request(c).SetHeader("Content-Type", runtime.ContentTypeJSON), body)
	})
	return a.blockAnswer(ctx, c)
}

func blockCall(verb, name string, request func(*client) *rest.Request) *call {
	return &call{verb: verb + " block", scope: clusterScoped, name: name, request: request}
}

// blockAnswer makes a call that is answered by a block.
func (a *API) blockAnswer(ctx context.Context, c *call) (*v1alpha1.IPBlock, error) {
	var answer wireBlock
	if err := a.get(ctx, c, &answer, &answer.Metadata.ObjectMeta); err != nil {
		return nil, unservedIPAM(err)
	}
	block := answer.block()
	return &block, nil
}

// unservedIPAM converts the error of an API server that does not serve blocks or claims, so that it
// is not "not found": what is not found is free to others.
func unservedIPAM(err error) error {
	if !unserved(err) {
		return err
	}
	return &failure.Error{
		Reason: failure.APIUnavailable,
		Err:    errors.New("the API server does not serve the resource: " + err.Error()),
		Fix:    "install the CustomResourceDefinitions of conf/crd",
	}
}

// Block returns a block.
func (a *API) Block(ctx context.Context, name string) (*v1alpha1.IPBlock, error) {
	return a.blockAnswer(ctx, blockCall("get", name, func(c *client) *rest.Request {
		return c.blocks.Get().Resource(v1alpha1.Resource).Name(name)
	}))
}

// Blocks lists blocks.
func (a *API) Blocks(ctx context.Context, opts metav1.ListOptions) ([]v1alpha1.IPBlock, error) {
	c := &call{verb: "list blocks", request: func(c *client) *rest.Request {
		return c.blocks.Get().Resource(v1alpha1.Resource)
	}}
	items, err := listOf[wireBlock](ctx, a, c, opts, v1alpha1.Kind+"List")
	if err != nil {
		return nil, unservedIPAM(err)
	}
	blocks := make([]v1alpha1.IPBlock, len(items))
	for i := range items {
		blocks[i] = items[i].block()
	}
	return blocks, nil
}

// patchOp is an operation of a JSON patch (RFC 6902).
type patchOp struct {
	Op    string `json:"op"`
	Path  string `json:"path"`
	Value any    `json:"value"`
}

// UpdateBlockStatus sets the status by one PATCH. It is a JSON patch, which can test the uid: API
// servers ignore the metadata in a merge patch of a custom resource's status.
func (a *API) UpdateBlockStatus(ctx context.Context, block *v1alpha1.IPBlock) error {
	if err := objects.CheckUID("block", &block.ObjectMeta); err != nil {
		return fmt.Errorf("update status: %w", err)
	}
	body, err := json.Marshal([]patchOp{
		{"test", "/metadata/uid", block.UID}, {"add", "/status", block.Status},
	})
	if err != nil {
		return fmt.Errorf("encode block's status: %w", err)
	}
	_, err = a.do(ctx, blockCall("update status of", block.Name, func(c *client) *rest.Request {
		return send(c.blocks.Patch(types.JSONPatchType).Resource(v1alpha1.Resource).Name(block.Name).
			SubResource("status").
			SetHeader("Accept", metadataType), body)
	}))
	return otherBlock(unservedIPAM(err), block)
}

// otherBlock makes a conflict of what API servers say of a test that failed: status 422, and unlike
// of an invalid object no causes.
func otherBlock(err error, block *v1alpha1.IPBlock) error {
	status, ok := errors.AsType[*apierrors.StatusError](err)
	if !ok || !apierrors.IsInvalid(err) ||
		status.ErrStatus.Details != nil && len(status.ErrStatus.Details.Causes) > 0 {
		return err
	}
	conflict := apierrors.NewConflict(objects.BlockResource(), block.Name,
		fmt.Errorf("its uid is not %.80q any more", block.UID))
	return fmt.Errorf("update status of block: %w", conflict)
}

// DeleteBlock removes one version of a block: the server compares resourceVersion and uid.
func (a *API) DeleteBlock(ctx context.Context, block *v1alpha1.IPBlock) error {
	if err := objects.CheckVersion(block); err != nil {
		return fmt.Errorf("delete block: %w", err)
	}
	body, err := json.Marshal(&metav1.DeleteOptions{
		TypeMeta:      metav1.TypeMeta{APIVersion: "v1", Kind: "DeleteOptions"},
		Preconditions: &metav1.Preconditions{UID: &block.UID, ResourceVersion: &block.ResourceVersion},
	})
	if err != nil {
		return fmt.Errorf("encode precondition: %w", err)
	}
	_, err = a.do(ctx, blockCall("delete", block.Name, func(c *client) *rest.Request {
		return c.blocks.Delete().Resource(v1alpha1.Resource).Name(block.Name).
			SetHeader("Content-Type", runtime.ContentTypeJSON).Body(body)
	}))
	return unservedIPAM(err)
}
