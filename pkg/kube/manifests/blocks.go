package manifests

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	fieldselector "k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/uuid"
	"k8s.io/apimachinery/pkg/util/validation/field"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/hostfile"
	"github.com/braid-cni/braid/pkg/kube/internal/objects"
)

const (
	blocksDir   = "ipblocks"
	blockSuffix = ".json"
	maxBlock    = 64 << 10 // bytes; a block with 16 allocations has a sixth of it
	maxBlocks   = 1 << 16
)

// CreateBlock makes the file of a block, complete from the moment on that it is there. The name is
// taken by link(2), which refuses to replace what has it, a file of any kind.
func (d *Directory) CreateBlock(
	ctx context.Context, block *v1alpha1.IPBlock,
) (*v1alpha1.IPBlock, error) {
	if err := objects.CheckName(block.Name); err != nil {
		return nil, fmt.Errorf("create block: %w", err)
	}
	created := block.DeepCopy()
	created.TypeMeta, created.Status = objects.BlockType(), v1alpha1.IPBlockStatus{}
	created.UID = uuid.NewUUID()
	created.CreationTimestamp = metav1.NewTime(time.Now().Truncate(time.Second))
	err := d.locked(ctx, func() error {
		//nolint:gosec // as readable as blocks are in a cluster
		err := os.Mkdir(filepath.Join(d.dir, blocksDir), 0o755)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return writeFailed(filepath.Join(d.dir, blocksDir), err)
		}
		return d.putBlock(created, link)
	})
	if err != nil {
		return nil, fmt.Errorf("create block %s: %w", block.Name, err)
	}
	return created, nil
}

// link names a file as a block that must not exist.
func link(from, to string) error {
	err := os.Link(from, to)
	if errors.Is(err, fs.ErrExist) {
		return apierrors.NewAlreadyExists(objects.BlockResource(),
			strings.TrimSuffix(filepath.Base(to), blockSuffix))
	}
	if err == nil {
		os.Remove(from) //nolint:errcheck // the next writer does it
	}
	return err
}

// putBlock gives the block a version, writes it, and has place put it in its place.
func (d *Directory) putBlock(block *v1alpha1.IPBlock, place func(from, to string) error) error {
	if err := d.checkBlocksDir(); err != nil {
		return err
	}
	block.ResourceVersion = rand.Text()
	data, err := json.Marshal(block)
	if err != nil {
		return fmt.Errorf("encode block: %w", err)
	}
	if len(data) > maxBlock {
		return apierrors.NewRequestEntityTooLargeError(fmt.Sprintf("block has %d bytes, of at most %d",
			len(data), maxBlock))
	}
	return d.put(d.blockPath(block.Name), append(data, '\n'), true, place)
}

func (d *Directory) blockPath(name string) string {
	return filepath.Join(d.dir, blocksDir, name+blockSuffix)
}

// checkBlocksDir refuses to follow a link to blocks elsewhere, which another lock may guard. A
// directory that is not there holds none.
func (d *Directory) checkBlocksDir() error {
	path := filepath.Join(d.dir, blocksDir)
	info, err := os.Lstat(path)
	if err == nil && !info.IsDir() {
		err = errors.New("is not a directory")
	}
	if err != nil && !missing(err) {
		return invalid(fmt.Errorf("read directory %s: %w", path, pathless(err)), "make it a directory")
	}
	return nil
}

// Block returns a block.
func (d *Directory) Block(ctx context.Context, name string) (*v1alpha1.IPBlock, error) {
	if err := objects.CheckName(name); err != nil {
		return nil, fmt.Errorf("get block: %w", err)
	}
	if err := ctx.Err(); err != nil {
		return nil, &failure.Error{
			Reason: failure.TimedOut, Err: fmt.Errorf("get block %s: %w", name, context.Cause(ctx)),
		}
	}
	return d.block(name)
}

// block reads a block; not found also where its file was just removed.
func (d *Directory) block(name string) (*v1alpha1.IPBlock, error) {
	if err := d.checkBlocksDir(); err != nil {
		return nil, err
	}
	data, err := hostfile.Read(d.blockPath(name), maxBlock)
	if missing(err) {
		// Without the directory of manifests there is no saying.
		if _, err := os.Stat(d.dir); err != nil {
			return nil, invalid(fmt.Errorf("read directory: %w", err),
				"create the directory, or correct the path")
		}
		return nil, apierrors.NewNotFound(objects.BlockResource(), name)
	}
	block := new(v1alpha1.IPBlock)
	if err == nil {
		err = decodeBlock(data, name, block)
	}
	if err != nil {
		return nil, &failure.Error{
			Reason: failure.StateCorrupt, Err: fmt.Errorf("read block in %s: %w", d.blockPath(name), err),
			Fix: "repair the file; remove it only when no pod has an address of the block",
		}
	}
	return block, nil
}

// decodeBlock reads a block. It returns an error unless it is whole, and has that name.
func decodeBlock(data []byte, name string, block *v1alpha1.IPBlock) error {
	switch err := decodeObject(data, block); {
	case err != nil:
		return err
	case block.TypeMeta != objects.BlockType():
		return fmt.Errorf("is a %.80q", block.APIVersion+" "+block.Kind)
	case block.Name != name:
		return fmt.Errorf("is of the block %.80q", block.Name)
	case block.UID == "" || block.ResourceVersion == "":
		return errors.New("has no uid or no resourceVersion")
	}
	return nil
}

// Blocks reads the blocks. One that cannot be read fails it: its addresses are not free.
func (d *Directory) Blocks(
	ctx context.Context, opts metav1.ListOptions,
) ([]v1alpha1.IPBlock, error) {
	selector, err := blockSelector(&opts)
	if err != nil {
		return nil, err
	}
	names, err := d.blockNames()
	if err != nil {
		return nil, err
	}
	var blocks []v1alpha1.IPBlock
	for _, name := range names {
		if ctx.Err() != nil {
			return nil, &failure.Error{
				Reason: failure.TimedOut, Err: fmt.Errorf("read blocks in %s: %w", d.dir, context.Cause(ctx)),
			}
		}
		block, err := d.block(name)
		if apierrors.IsNotFound(err) {
			continue // removed since the directory was read
		}
		if err != nil {
			return nil, err
		}
		if selector.Matches(blockFields(block)) {
			blocks = append(blocks, *block)
		}
	}
	return blocks, nil
}

// blockNames lists the files that are blocks by their names; others, and hidden ones, are not
// looked at.
func (d *Directory) blockNames() ([]string, error) {
	if err := d.checkBlocksDir(); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(filepath.Join(d.dir, blocksDir))
	if missing(err) {
		_, err = os.Stat(d.dir)
	}
	if err != nil {
		return nil, invalid(fmt.Errorf("read directory: %w", err),
			"create the directory, or correct the path")
	}
	if len(entries) > maxBlocks {
		return nil, invalid(fmt.Errorf("%s has %d entries, of at most %d",
			blocksDir, len(entries), maxBlocks), "keep only blocks there")
	}
	var names []string
	for _, entry := range entries {
		name, ok := strings.CutSuffix(entry.Name(), blockSuffix)
		if ok && objects.CheckName(name) == nil {
			names = append(names, name)
		}
	}
	return names, nil
}

// blockFields returns the fields that blocks are selected by, as the CRD has them.
func blockFields(block *v1alpha1.IPBlock) fieldselector.Set {
	set := fieldselector.Set{
		"metadata.name": block.Name, "spec.space": block.Spec.Space, "spec.owner.nodeName": "",
		"spec.recall.by": "",
	}
	if owner := block.Spec.Owner; owner != nil {
		set["spec.owner.nodeName"] = owner.NodeName
	}
	if recall := block.Spec.Recall; recall != nil {
		set["spec.recall.by"] = recall.By
	}
	return set
}

// blockSelector parses a selector. It refuses what an API server would.
func blockSelector(opts *metav1.ListOptions) (fieldselector.Selector, error) {
	selector, err := fieldselector.ParseSelector(opts.FieldSelector)
	if err != nil {
		return nil, apierrors.NewBadRequest(err.Error())
	}
	known := blockFields(new(v1alpha1.IPBlock))
	for _, r := range selector.Requirements() {
		if !known.Has(r.Field) {
			return nil, apierrors.NewBadRequest(fmt.Sprintf("field label not supported: %.80q", r.Field))
		}
	}
	if opts.LabelSelector != "" {
		return nil, apierrors.NewBadRequest("blocks in a directory are not selected by labels")
	}
	return selector, nil
}

// UpdateBlock replaces the spec of one version of a block.
func (d *Directory) UpdateBlock(
	ctx context.Context, block *v1alpha1.IPBlock,
) (*v1alpha1.IPBlock, error) {
	if err := objects.CheckVersion(block); err != nil {
		return nil, fmt.Errorf("update block: %w", err)
	}
	updated := block.DeepCopy()
	err := d.changeBlock(ctx, "update block", block, func(current *v1alpha1.IPBlock) error {
		if err := immutable(current, block); err != nil {
			return err
		}
		updated.TypeMeta, updated.CreationTimestamp = current.TypeMeta, current.CreationTimestamp
		updated.Status = current.Status
		return d.putBlock(updated, d.rename)
	})
	if err != nil {
		return nil, err
	}
	return updated, nil
}

// changeBlock runs change, under the lock, on the block as it is stored, which has to be of the uid
// and, where one is given, the version of the caller's.
func (d *Directory) changeBlock(
	ctx context.Context, verb string, block *v1alpha1.IPBlock,
	change func(current *v1alpha1.IPBlock) error,
) error {
	if err := objects.CheckName(block.Name); err != nil {
		return fmt.Errorf("%s: %w", verb, err)
	}
	return d.locked(ctx, func() error {
		current, err := d.block(block.Name)
		if err != nil {
			return fmt.Errorf("%s %s: %w", verb, block.Name, err)
		}
		if current.UID != block.UID ||
			block.ResourceVersion != "" && current.ResourceVersion != block.ResourceVersion {
			return fmt.Errorf("%s: %w", verb, apierrors.NewConflict(objects.BlockResource(), block.Name,
				fmt.Errorf("it is version %s of %s and not %.80s of %.80s",
					current.ResourceVersion, current.UID, block.ResourceVersion, block.UID)))
		}
		return change(current)
	})
}

// immutable returns the error of a change that the CRD's rules refuse.
func immutable(current, block *v1alpha1.IPBlock) error {
	var problems field.ErrorList
	for name, values := range map[string][2]string{
		"space": {current.Spec.Space, block.Spec.Space}, "cidr": {current.Spec.CIDR, block.Spec.CIDR},
	} {
		if values[0] != values[1] {
			problems = append(problems,
				field.Invalid(field.NewPath("spec", name), values[1], name+" is immutable"))
		}
	}
	if len(problems) > 0 {
		kind := schema.GroupKind{Group: v1alpha1.GroupName, Kind: v1alpha1.Kind}
		return apierrors.NewInvalid(kind, block.Name, problems)
	}
	return nil
}

// UpdateBlockStatus sets the status of a block.
func (d *Directory) UpdateBlockStatus(ctx context.Context, block *v1alpha1.IPBlock) error {
	if err := objects.CheckUID("block", &block.ObjectMeta); err != nil {
		return fmt.Errorf("update status: %w", err)
	}
	whichever := &v1alpha1.IPBlock{ObjectMeta: metav1.ObjectMeta{Name: block.Name, UID: block.UID}}
	return d.changeBlock(ctx, "update status of block", whichever,
		func(current *v1alpha1.IPBlock) error {
			current.Status = block.Status
			return d.putBlock(current, d.rename)
		})
}

// DeleteBlock removes one version of a block.
func (d *Directory) DeleteBlock(ctx context.Context, block *v1alpha1.IPBlock) error {
	if err := objects.CheckVersion(block); err != nil {
		return fmt.Errorf("delete block: %w", err)
	}
	return d.changeBlock(ctx, "delete block", block, func(*v1alpha1.IPBlock) error {
		if err := unix.Unlink(d.blockPath(block.Name)); err != nil {
			return writeFailed(d.blockPath(block.Name), err)
		}
		return nil
	})
}
