package manifests

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	claimv1 "github.com/braid-cni/braid/pkg/api/ipamclaim/v1alpha1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/kube/internal/objects"
	"github.com/braid-cni/braid/pkg/kube/internal/sourcetest"
)

func (d *backend) CreateNode(t *testing.T, name string) {
	node := metaManifest{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"}}
	node.Name, node.UID = name, types.UID("uid-of-"+name)
	d.put(t, "", name, "node", node)
}

func (d *backend) CreateClaim(t *testing.T, namespace, name string) {
	d.putClaim(t, namespace, name, "")
}

func (d *backend) ReplaceClaim(t *testing.T, namespace, name string) {
	d.putClaim(t, namespace, name, derivedUID("another", name))
}

func (d *backend) putClaim(t *testing.T, namespace, name string, uid types.UID) {
	d.put(t, namespace, name, "claim", map[string]any{
		"apiVersion": claimv1.GroupName + "/" + claimv1.Version, "kind": claimv1.Kind,
		"metadata": metav1.ObjectMeta{Namespace: namespace, Name: name, UID: uid},
		"spec": claimv1.IPAMClaimSpec{
			Network: "net", Interface: "net1", IPRequests: []string{"10.0.0.7/28"},
		},
	})
}

func (d *backend) DeleteClaim(t *testing.T, namespace, name string) {
	if err := os.Remove(d.path(namespace, name, "claim")); err != nil {
		t.Fatal(err)
	}
}

func TestObjects(t *testing.T) {
	src, dir := newDirectory(t, nil)
	back := &backend{dir: dir}
	sourcetest.RunBlocks(t, src)
	sourcetest.RunNodes(t, src, back.CreateNode)
	sourcetest.RunClaims(t, src, back)
	if left, err := filepath.Glob(filepath.Join(dir, ".*")); err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
	// What Braid writes is no manifest: these are the nodes' and claims' files.
	all, err := readDirectory(t.Context(), dir)
	if err != nil || len(all.objects) != 5 || len(all.broken) > 0 {
		t.Errorf("the directory has %+v, %v", all, err)
	}
}

func aBlock(name string) *v1alpha1.IPBlock {
	return &v1alpha1.IPBlock{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: v1alpha1.IPBlockSpec{
			Space: "s", CIDR: "10.0.0.0/28", Owner: &v1alpha1.Node{NodeName: "n", NodeUID: "u"},
		},
	}
}

// A file that is no whole block of its name is never "not found", and never a block: its addresses
// may be in use.
func TestBlockCorrupt(t *testing.T) {
	good, err := json.Marshal(&v1alpha1.IPBlock{
		TypeMeta:   objects.BlockType(),
		ObjectMeta: metav1.ObjectMeta{Name: "b", UID: "u", ResourceVersion: "1"},
		Spec:       aBlock("b").Spec,
	})
	if err != nil {
		t.Fatal(err)
	}
	file := func(content string) func(path string) error {
		return func(path string) error { return os.WriteFile(path, []byte(content), 0o600) }
	}
	for name, put := range map[string]func(path string) error{
		"empty":         file(""),
		"cut":           file(string(good[:len(good)/2])),
		"two":           file(string(good) + string(good)),
		"other name":    file(strings.Replace(string(good), `"b"`, `"c"`, 1)),
		"other kind":    file(strings.Replace(string(good), "IPBlock", "IPPool", 1)),
		"other version": file(strings.Replace(string(good), "v1alpha1", "v1", 1)),
		"unknown key":   file(strings.Replace(string(good), `"owner"`, `"ower"`, 1)),
		"wrong type":    file(strings.Replace(string(good), `"10.0.0.0/28"`, `10`, 1)),
		"no uid":        file(strings.Replace(string(good), `"uid":"u"`, `"uid":""`, 1)),
		"no version": file(strings.Replace(string(good), `"resourceVersion":"1"`,
			`"resourceVersion":""`, 1)),
		"too large": file(string(good) + strings.Repeat(" ", maxBlock)),
		"link":      func(path string) error { return os.Symlink("/dev/null", path) },
		"pipe":      func(path string) error { return unix.Mkfifo(path, 0o600) },
		"directory": func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		t.Run(name, func(t *testing.T) {
			src, dir := newDirectory(t, nil)
			other, err := src.CreateBlock(t.Context(), aBlock("other"))
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "ipblocks", "b.json")
			if err := put(path); err != nil {
				t.Fatal(err)
			}
			before, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			mine := other.DeepCopy()
			mine.Name = "b"
			_, got := src.Block(t.Context(), "b")
			_, list := src.Blocks(t.Context(), metav1.ListOptions{FieldSelector: "spec.space=another"})
			_, updated := src.UpdateBlock(t.Context(), mine)
			for call, err := range map[string]error{
				"Block": got, "Blocks": list, "UpdateBlock": updated,
				"UpdateBlockStatus": src.UpdateBlockStatus(t.Context(), mine),
				"DeleteBlock":       src.DeleteBlock(t.Context(), mine),
			} {
				if failure.ReasonOf(err) != failure.StateCorrupt || !strings.Contains(err.Error(), path) ||
					apierrors.IsNotFound(err) {
					t.Errorf("%s: got error %v of class %q", call, err, failure.ReasonOf(err))
				}
			}
			if _, err := src.CreateBlock(t.Context(), aBlock("b")); !apierrors.IsAlreadyExists(err) {
				t.Errorf("CreateBlock: got error %v, want already exists", err)
			}
			after, err := os.Lstat(path)
			if err != nil || !os.SameFile(before, after) || before.Size() != after.Size() {
				t.Errorf("the file is another: %v, %v", after, err)
			}
			if _, err := src.Block(t.Context(), "other"); err != nil {
				t.Errorf("another block: %v", err)
			}
		})
	}
}

// What is not a block by its name is left alone.
func TestBlockStrangers(t *testing.T) {
	src, dir := newDirectory(t, nil)
	if _, err := src.CreateBlock(t.Context(), aBlock("b")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{".b.json.swp", ".hidden.json", "b.json~", "README", "B.json"} {
		writeFile(t, filepath.Join(dir, "ipblocks", name), "rubbish")
	}
	if list, err := src.Blocks(t.Context(), metav1.ListOptions{}); err != nil || len(list) != 1 {
		t.Errorf("got %d blocks, %v", len(list), err)
	}
}

// Without its directory a block is not found; without the directory of manifests, or with something
// else in its place, nothing is known.
func TestBlocksDirectory(t *testing.T) {
	src, dir := newDirectory(t, nil)
	if list, err := src.Blocks(t.Context(), metav1.ListOptions{}); err != nil || len(list) > 0 {
		t.Errorf("got %d blocks, %v", len(list), err)
	}
	if _, err := src.Block(t.Context(), "b"); !apierrors.IsNotFound(err) {
		t.Errorf("got error %v, want not found", err)
	}
	elsewhere := t.TempDir()
	for name, put := range map[string]func(path string) error{
		"link": func(path string) error { return os.Symlink(elsewhere, path) },
		"file": func(path string) error { return os.WriteFile(path, nil, 0o600) },
		"gone": func(string) error { return os.RemoveAll(dir) },
	} {
		t.Run(name, func(t *testing.T) {
			src, dir = newDirectory(t, nil)
			if err := put(filepath.Join(dir, "ipblocks")); err != nil {
				t.Fatal(err)
			}
			_, created := src.CreateBlock(t.Context(), aBlock("b"))
			_, got := src.Block(t.Context(), "b")
			_, list := src.Blocks(t.Context(), metav1.ListOptions{})
			_, node := src.Node(t.Context(), "n1")
			if name == "gone" && failure.ReasonOf(node) != failure.InvalidConfig {
				t.Errorf("Node: got error %v", node)
			}
			for call, err := range map[string]error{"CreateBlock": created, "Block": got, "Blocks": list} {
				if failure.ReasonOf(err) != failure.InvalidConfig || apierrors.IsNotFound(err) ||
					!strings.Contains(err.Error(), dir) {
					t.Errorf("%s: got error %v of class %q", call, err, failure.ReasonOf(err))
				}
			}
		})
	}
	if left, err := os.ReadDir(elsewhere); err != nil || len(left) > 0 {
		t.Errorf("behind the link: %v, %v", left, err)
	}
}

// A writer that was killed between link and unlink leaves the temporary file as a second name of
// its block.
func TestBlockKilled(t *testing.T) {
	src, dir := newDirectory(t, nil)
	first, err := src.CreateBlock(t.Context(), aBlock("first"))
	if err != nil {
		t.Fatal(err)
	}
	err = os.Link(filepath.Join(dir, "ipblocks", "first.json"), filepath.Join(dir, temporaryFile))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := src.CreateBlock(t.Context(), aBlock("second")); err != nil {
		t.Fatal(err)
	}
	if got, err := src.Block(t.Context(), "first"); err != nil || got.UID != first.UID {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := os.Stat(filepath.Join(dir, temporaryFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("temporary file: %v", err)
	}
}

// An update whose last step fails leaves the block and no temporary file.
func TestBlockUpdateFails(t *testing.T) {
	src, dir := newDirectory(t, nil)
	created, err := src.CreateBlock(t.Context(), aBlock("b"))
	if err != nil {
		t.Fatal(err)
	}
	src.rename = func(string, string) error { return unix.EIO }
	changed := created.DeepCopy()
	changed.Spec.Owner = nil
	_, err = src.UpdateBlock(t.Context(), changed)
	if failure.ReasonOf(err) != failure.APIUnavailable || !errors.Is(err, unix.EIO) {
		t.Errorf("got error %v", err)
	}
	got, err := src.Block(t.Context(), "b")
	if err != nil || got.ResourceVersion != created.ResourceVersion || got.Spec.Owner == nil {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := os.Stat(filepath.Join(dir, temporaryFile)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("temporary file: %v", err)
	}
	if err := src.DeleteBlock(t.Context(), created); err != nil {
		t.Error(err)
	}
}

func TestBlockTooLarge(t *testing.T) {
	src, _ := newDirectory(t, nil)
	b := aBlock("b")
	b.Spec.Owner.NodeName = strings.Repeat("n", maxBlock)
	if _, err := src.CreateBlock(t.Context(), b); !apierrors.IsRequestEntityTooLargeError(err) {
		t.Errorf("got error %v, want too large", err)
	}
	if _, err := src.Block(t.Context(), "b"); !apierrors.IsNotFound(err) {
		t.Errorf("got error %v, want not found", err)
	}
	// The fullest block fits.
	full, node := aBlock("full"), &v1alpha1.Node{
		NodeName: strings.Repeat("n", 253), NodeUID: "0123456789abcdef0123456789abcdef0123",
		BootID: "0123456789abcdef0123456789abcdef0123",
	}
	for i := range 16 {
		full.Spec.Allocations = append(full.Spec.Allocations, v1alpha1.Allocation{
			Address: fmt.Sprintf("fd00::%d", i), Network: strings.Repeat("n", 253),
			ContainerID: strings.Repeat("0", 64), IfName: "net1",
			Pod: strings.Repeat("p", 317), PodUID: node.NodeUID, Node: node,
			Claim: &v1alpha1.Claim{
				Namespace: strings.Repeat("n", 63), Name: strings.Repeat("c", 253), UID: node.NodeUID,
			},
		})
	}
	if _, err := src.CreateBlock(t.Context(), full); err != nil {
		t.Error(err)
	}
}

func TestBlockLocked(t *testing.T) {
	src, dir := newDirectory(t, nil)
	lock(t, dir)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := src.CreateBlock(ctx, aBlock("b"))
	if failure.ReasonOf(err) != failure.TimedOut || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got error %v, want deadline exceeded of class TimedOut", err)
	}
	if _, err := src.Block(t.Context(), "b"); !apierrors.IsNotFound(err) {
		t.Errorf("got error %v, want not found", err)
	}
}

// A node needs no manifest. With one that cannot be read, it may be another than the one that
// follows from its name.
func TestNode(t *testing.T) {
	src, dir := newDirectory(t, map[string]string{
		"pod.yaml": "{apiVersion: v1, kind: Pod, metadata: {name: n1}}",
		"n2.yaml": "{apiVersion: v1, kind: Node, metadata: {name: n2}, spec: {podCIDR: 10.0.0.0/24}, " +
			"status: {}}",
	})
	derived, err := src.Node(t.Context(), "n1")
	if err != nil || derived.Name != "n1" || derived.UID == "" {
		t.Fatalf("got %+v, %v", derived, err)
	}
	if pod, err := src.Pod(t.Context(), "default", "n1"); err != nil || pod.UID == derived.UID {
		t.Errorf("pod and node of the same name are %+v and %+v, %v", pod, derived, err)
	}
	written, err := src.Node(t.Context(), "n2")
	if err != nil || written.UID == "" || written.UID == derived.UID || written.Namespace != "" {
		t.Errorf("got %+v, %v", written, err)
	}
	if count, err := src.NodeCount(t.Context()); err != nil || count != 1 {
		t.Errorf("%d nodes, %v", count, err)
	}
	writeFile(t, filepath.Join(dir, "broken.yaml"), "a: [")
	_, err = src.Node(t.Context(), "n1")
	if failure.ReasonOf(err) != failure.InvalidConfig ||
		!strings.Contains(err.Error(), "broken.yaml") || apierrors.IsNotFound(err) {
		t.Errorf("got error %v of class %q", err, failure.ReasonOf(err))
	}
	if got, err := src.Node(t.Context(), "n2"); err != nil || got.UID != written.UID {
		t.Errorf("got %+v, %v", got, err)
	}
}

// A status that cannot be read is not an empty one.
func TestClaimCorrupt(t *testing.T) {
	src, dir := newDirectory(t, nil)
	(&backend{dir: dir}).CreateClaim(t, "ns", "c")
	path := filepath.Join(dir, "ns_c.ipam-claim.json")
	for _, content := range []string{"", "{", `{"uid": "x", "other": 1}`, "[]"} {
		writeFile(t, path, content)
		_, err := src.IPAMClaim(t.Context(), "ns", "c")
		if failure.ReasonOf(err) != failure.APIUnavailable || !strings.Contains(err.Error(), path) {
			t.Errorf("%q: got error %v of class %q", content, err, failure.ReasonOf(err))
		}
	}
}
