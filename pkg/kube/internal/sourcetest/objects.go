package sourcetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	claimv1 "github.com/braid-cni/braid/pkg/api/ipamclaim/v1alpha1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/ipam/block"
)

// ClaimsBackend is what lies behind block.IPAMClaims.
type ClaimsBackend interface {
	// CreateClaim makes an IPAMClaim in a namespace, which is made with it; ReplaceClaim deletes it
	// and makes another of that name.
	CreateClaim(t *testing.T, namespace, name string)
	ReplaceClaim(t *testing.T, namespace, name string)
	DeleteClaim(t *testing.T, namespace, name string)
}

// RunBlocks tests a store of blocks. Each test has a space of its own.
func RunBlocks(t *testing.T, src block.Store) {
	for name, test := range map[string]func(*testing.T, block.Store, string){
		"Create":         testCreate,
		"CreateRace":     testCreateRace,
		"CreateAnew":     testCreateAnew,
		"RoundTrip":      testRoundTrip,
		"Update":         testUpdate,
		"UpdateRace":     testUpdateRace,
		"UpdateRefused":  testUpdateRefused,
		"Immutable":      testImmutable,
		"Status":         testBlockStatus,
		"Delete":         testDelete,
		"DeleteRefused":  testDeleteRefused,
		"Select":         testSelect,
		"SelectUnknown":  testSelectUnknown,
		"StaleList":      testStaleList,
		"BlockNotFound":  testBlockNotFound,
		"BadBlockNames":  testBadBlockNames,
		"WithoutVersion": testWithoutVersion,
		"CancelledBlock": testCancelledBlock,
	} {
		t.Run(name, func(t *testing.T) { test(t, src, "c-"+strings.ToLower(name)) })
	}
	// Last: among so many, each list takes long where it reads files.
	t.Run("Many", func(t *testing.T) { testMany(t, src, "c-many") })
}

// RunNodes tests what knows the nodes. There are none but those that create makes.
func RunNodes(t *testing.T, src block.Nodes, create func(t *testing.T, name string)) {
	t.Run("Nodes", func(t *testing.T) { testNodes(t, src, create) })
	t.Run("BadNodeNames", func(t *testing.T) {
		for _, name := range badNames() {
			_, err := src.Node(t.Context(), name)
			isBadRequest(t, name, map[string]error{"Node": err})
		}
	})
	t.Run("CancelledNode", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, node := src.Node(ctx, "node-1")
		_, count := src.NodeCount(ctx)
		isCancelled(t, map[string]error{"Node": node, "NodeCount": count})
	})
}

// RunClaims tests what knows the IPAMClaims. Each test has a namespace of its own.
func RunClaims(t *testing.T, src block.IPAMClaims, back ClaimsBackend) {
	t.Run("Claim", func(t *testing.T) { testClaim(t, src, back, "contract-claim") })
	t.Run("ClaimReplaced", func(t *testing.T) {
		testClaimReplaced(t, src, back, "contract-claimreplaced")
	})
	t.Run("BadClaimNames", func(t *testing.T) {
		for _, name := range badNames() {
			_, claim := src.IPAMClaim(t.Context(), "ns", name)
			_, namespace := src.IPAMClaim(t.Context(), name, "c")
			set := src.SetIPAMClaimIPs(t.Context(), claimOf("ns", name), nil)
			isBadRequest(t, name, map[string]error{
				"IPAMClaim": claim, "IPAMClaim's namespace": namespace, "SetIPAMClaimIPs": set,
			})
		}
	})
	t.Run("CancelledClaim", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, claim := src.IPAMClaim(ctx, "ns", "c")
		isCancelled(t, map[string]error{
			"IPAMClaim": claim, "SetIPAMClaimIPs": src.SetIPAMClaimIPs(ctx, claimOf("ns", "c"), nil),
		})
	})
}

// badNames are such as no object can have.
func badNames() []string {
	return []string{
		"", ".", "..", "../x", "a/b", "a_b", "A", "a\x00", "a?b", "a%2fb", strings.Repeat("a", 254),
	}
}

// isBadRequest fails the test unless all of the calls were refused for their input.
func isBadRequest(t *testing.T, name string, calls map[string]error) {
	t.Helper()
	for call, err := range calls {
		if !apierrors.IsBadRequest(err) {
			t.Errorf("%s of %.20q: got error %v, want bad request", call, name, err)
		}
	}
}

// isCancelled fails the test unless all of the calls ended with their context.
func isCancelled(t *testing.T, calls map[string]error) {
	t.Helper()
	for call, err := range calls {
		if !errors.Is(err, context.Canceled) || failure.ReasonOf(err) != failure.TimedOut {
			t.Errorf("%s: got error %v of class %q, want context canceled of class TimedOut",
				call, err, failure.ReasonOf(err))
		}
	}
}

// blockOf is block number i of a space, of a node.
func blockOf(space string, i int, node string) *v1alpha1.IPBlock {
	b := &v1alpha1.IPBlock{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-10-0-%d-%d-28", space, i/16, i%16*16)},
	}
	b.Spec = v1alpha1.IPBlockSpec{Space: space, CIDR: fmt.Sprintf("10.0.%d.%d/28", i/16, i%16*16)}
	if node != "" {
		b.Spec.Owner = &v1alpha1.Node{NodeName: node, NodeUID: "u-1", BootID: "b-1"}
	}
	return b
}

func mustCreate(t *testing.T, src block.Store, b *v1alpha1.IPBlock) *v1alpha1.IPBlock {
	t.Helper()
	created, err := src.CreateBlock(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	return created
}

func mustBlock(t *testing.T, src block.Store, name string) *v1alpha1.IPBlock {
	t.Helper()
	b, err := src.Block(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustList(t *testing.T, src block.Store, opts metav1.ListOptions) []string {
	t.Helper()
	list, err := src.Blocks(t.Context(), opts)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for i := range list {
		names = append(names, list[i].Name)
	}
	slices.Sort(names)
	return names
}

// same wants a block to be as another, each as it was given.
func same(t *testing.T, what string, got, want *v1alpha1.IPBlock) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// A block is stored as it was given, without a status, and only once.
func testCreate(t *testing.T, src block.Store, space string) {
	given := blockOf(space, 0, "node-1")
	before := given.DeepCopy()
	created := mustCreate(t, src, given)
	same(t, "the block that was given", given, before)
	if created.UID == "" || created.ResourceVersion == "" ||
		time.Since(created.CreationTimestamp.Time).Abs() > time.Minute {
		t.Errorf("created with metadata %+v", created.ObjectMeta)
	}
	diff := cmp.Diff(given.Spec, created.Spec)
	if diff != "" || created.Status != (v1alpha1.IPBlockStatus{}) {
		t.Errorf("created with status %v, spec (-want +got):\n%s", created.Status, diff)
	}
	same(t, "the block that is stored", mustBlock(t, src, given.Name), created)
	_, err := src.CreateBlock(t.Context(), blockOf(space, 0, "node-2"))
	if !apierrors.IsAlreadyExists(err) {
		t.Errorf("again: got error %v, want already exists", err)
	}
	same(t, "the block after another tried", mustBlock(t, src, given.Name), created)
}

// Many claim a block, and one has it.
func testCreateRace(t *testing.T, src block.Store, space string) {
	const blocks, nodes = 4, 24
	var all sync.WaitGroup
	var mu sync.Mutex
	winners := map[string]string{}
	for i := range blocks * nodes {
		b := blockOf(space, i%blocks, fmt.Sprintf("node-%d", i/blocks))
		all.Go(func() {
			_, err := src.CreateBlock(t.Context(), b)
			if apierrors.IsAlreadyExists(err) {
				return
			}
			if err != nil {
				t.Error(err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			if other := winners[b.Name]; other != "" {
				t.Errorf("both %s and %s have %s", other, b.Spec.Owner.NodeName, b.Name)
			}
			winners[b.Name] = b.Spec.Owner.NodeName
		})
	}
	all.Wait()
	if len(winners) != blocks {
		t.Errorf("%d blocks, want %d", len(winners), blocks)
	}
	for name, node := range winners {
		if got := mustBlock(t, src, name).Spec.Owner.NodeName; got != node {
			t.Errorf("%s is %s's, which %s was told to have", name, got, node)
		}
	}
}

// A block of the same name is another one.
func testCreateAnew(t *testing.T, src block.Store, space string) {
	first := mustCreate(t, src, blockOf(space, 0, "node-1"))
	if err := src.DeleteBlock(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	second := mustCreate(t, src, blockOf(space, 0, "node-1"))
	if second.UID == first.UID || second.ResourceVersion == first.ResourceVersion {
		t.Errorf("uid %s, version %s of both", first.UID, first.ResourceVersion)
	}
	mixed := first.DeepCopy()
	mixed.ResourceVersion = second.ResourceVersion
	for what, gone := range map[string]*v1alpha1.IPBlock{
		"the first": first, "the second with the first one's uid": mixed,
	} {
		_, err := src.UpdateBlock(t.Context(), gone)
		wantConflict(t, "update of "+what, err)
		wantConflict(t, "delete of "+what, src.DeleteBlock(t.Context(), gone))
	}
	wantConflict(t, "status of the first", src.UpdateBlockStatus(t.Context(), first))
	same(t, "the second", mustBlock(t, src, second.Name), second)
}

// fullBlock has every field set.
func fullBlock(space string) *v1alpha1.IPBlock {
	b := blockOf(space, 0, "")
	b.Spec.Recall = &v1alpha1.Recall{
		By: "node-2", At: metav1.NewTime(time.Unix(1_700_000_000, 0).Local()),
	}
	node := &v1alpha1.Node{NodeName: "node-1", NodeUID: "u-1", BootID: "b-1"}
	claim := &v1alpha1.Claim{Namespace: "ns", Name: "c", UID: "u-3"}
	b.Spec.Allocations = []v1alpha1.Allocation{
		{
			Address: "10.0.0.1", Network: "net", ContainerID: "0123", IfName: "net1", Pod: "ns/p",
			PodUID: "u-2", Node: node, Claim: claim,
		},
		{Address: "10.0.0.2", Claim: claim},
	}
	return b
}

// Whatever is in a block comes back, by each way of reading.
func testRoundTrip(t *testing.T, src block.Store, space string) {
	given := fullBlock(space)
	created := mustCreate(t, src, given)
	if diff := cmp.Diff(given.Spec, created.Spec); diff != "" {
		t.Errorf("created (-want +got):\n%s", diff)
	}
	same(t, "read", mustBlock(t, src, given.Name), created)
	list, err := src.Blocks(t.Context(), metav1.ListOptions{FieldSelector: "spec.space=" + space})
	if err != nil || len(list) != 1 {
		t.Fatalf("got %+v, %v, want one block", list, err)
	}
	same(t, "listed", &list[0], created)
}

// An update replaces the spec of the version that it was made from, and of no other.
func testUpdate(t *testing.T, src block.Store, space string) {
	created := mustCreate(t, src, blockOf(space, 0, "node-1"))
	given := created.DeepCopy()
	given.Spec = fullBlock(space).Spec // the owner goes, the rest comes
	updated, err := src.UpdateBlock(t.Context(), given)
	if err != nil {
		t.Fatal(err)
	}
	diff := cmp.Diff(given.Spec, updated.Spec)
	if diff != "" || updated.UID != created.UID || updated.ResourceVersion == created.ResourceVersion {
		t.Errorf("updated to %+v, spec (-want +got):\n%s", updated.ObjectMeta, diff)
	}
	same(t, "stored", mustBlock(t, src, given.Name), updated)
	late := created.DeepCopy()
	late.Spec.Owner.NodeName = "node-9"
	_, err = src.UpdateBlock(t.Context(), late)
	wantConflict(t, "stale update", err)
	same(t, "stored after a stale update", mustBlock(t, src, given.Name), updated)
	back := updated.DeepCopy()
	back.Spec = blockOf(space, 0, "node-3").Spec
	again, err := src.UpdateBlock(t.Context(), back)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(back.Spec, again.Spec); diff != "" {
		t.Errorf("updated again, spec (-want +got):\n%s", diff)
	}
}

// Of those who change the same version one succeeds.
func testUpdateRace(t *testing.T, src block.Store, space string) {
	created := mustCreate(t, src, blockOf(space, 0, "node-0"))
	var all sync.WaitGroup
	winners := make(chan string, 16)
	for i := range cap(winners) {
		mine := created.DeepCopy()
		mine.Spec.Owner.NodeName = fmt.Sprintf("node-%d", i+1)
		all.Go(func() {
			switch _, err := src.UpdateBlock(t.Context(), mine); {
			case err == nil:
				winners <- mine.Spec.Owner.NodeName
			case !apierrors.IsConflict(err):
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(winners) != 1 {
		t.Fatalf("%d updates succeeded, want 1", len(winners))
	}
	if got, want := mustBlock(t, src, created.Name).Spec.Owner.NodeName, <-winners; got != want {
		t.Errorf("the owner is %s, want %s", got, want)
	}
}

// A block that is gone is not made by an update.
func testUpdateRefused(t *testing.T, src block.Store, space string) {
	created := mustCreate(t, src, blockOf(space, 0, "node-1"))
	if err := src.DeleteBlock(t.Context(), created); err != nil {
		t.Fatal(err)
	}
	_, err := src.UpdateBlock(t.Context(), created)
	if !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
		t.Errorf("got error %v, want not found or conflict", err)
	}
	if err := src.UpdateBlockStatus(t.Context(), created); !apierrors.IsNotFound(err) {
		t.Errorf("status: got error %v, want not found", err)
	}
	if _, err := src.Block(t.Context(), created.Name); !apierrors.IsNotFound(err) {
		t.Errorf("got error %v, want not found", err)
	}
}

// A block keeps its space and its addresses.
func testImmutable(t *testing.T, src block.Store, space string) {
	created := mustCreate(t, src, blockOf(space, 0, "node-1"))
	for _, change := range []func(*v1alpha1.IPBlockSpec){
		func(s *v1alpha1.IPBlockSpec) {
			s.Space = "other"
		}, func(s *v1alpha1.IPBlockSpec) { s.CIDR = "10.0.0.0/29" },
	} {
		changed := created.DeepCopy()
		change(&changed.Spec)
		if _, err := src.UpdateBlock(t.Context(), changed); !apierrors.IsInvalid(err) {
			t.Errorf("%+v: got error %v, want invalid", changed.Spec, err)
		}
	}
	same(t, "stored", mustBlock(t, src, created.Name), created)
}

// The status is set whatever became of the spec, which stays; it makes a new version.
func testBlockStatus(t *testing.T, src block.Store, space string) {
	created := mustCreate(t, src, blockOf(space, 0, "node-1"))
	changed := created.DeepCopy()
	changed.Spec.Recall = &v1alpha1.Recall{
		By: "node-2", At: metav1.NewTime(time.Unix(1_700_000_000, 0).Local()),
	}
	updated, err := src.UpdateBlock(t.Context(), changed)
	if err != nil {
		t.Fatal(err)
	}
	created.Status = v1alpha1.IPBlockStatus{Used: 3, Free: 13}
	if err := src.UpdateBlockStatus(t.Context(), created); err != nil {
		t.Fatal(err)
	}
	got := mustBlock(t, src, created.Name)
	if diff := cmp.Diff(updated.Spec, got.Spec); diff != "" || got.Status != created.Status {
		t.Errorf("status %+v, spec (-want +got):\n%s", got.Status, diff)
	}
	_, err = src.UpdateBlock(t.Context(), updated)
	wantConflict(t, "update of the version before the status", err)
	got.Spec.Recall, got.Status = nil, v1alpha1.IPBlockStatus{Used: 9}
	if _, err := src.UpdateBlock(t.Context(), got); err != nil {
		t.Fatal(err)
	}
	if got = mustBlock(t, src, created.Name); got.Status != created.Status || got.Spec.Recall != nil {
		t.Errorf("after an update: status %+v, spec %+v", got.Status, got.Spec)
	}
}

// A block that is deleted is gone at once, and others are not.
func testDelete(t *testing.T, src block.Store, space string) {
	created := mustCreate(t, src, blockOf(space, 0, "node-1"))
	other := mustCreate(t, src, blockOf(space, 1, "node-1"))
	if err := src.DeleteBlock(t.Context(), created); err != nil {
		t.Fatal(err)
	}
	if _, err := src.Block(t.Context(), created.Name); !apierrors.IsNotFound(err) {
		t.Errorf("got error %v, want not found", err)
	}
	if err := src.DeleteBlock(t.Context(), created); !apierrors.IsNotFound(err) {
		t.Errorf("again: got error %v, want not found", err)
	}
	same(t, "another block", mustBlock(t, src, other.Name), other)
}

// Only the version that the caller knows is deleted: another may have an owner by now.
func testDeleteRefused(t *testing.T, src block.Store, space string) {
	created := mustCreate(t, src, blockOf(space, 0, "node-1"))
	changed := created.DeepCopy()
	changed.Spec.Owner.NodeName = "node-2"
	updated, err := src.UpdateBlock(t.Context(), changed)
	if err != nil {
		t.Fatal(err)
	}
	wantConflict(t, "delete of the version before", src.DeleteBlock(t.Context(), created))
	same(t, "stored", mustBlock(t, src, created.Name), updated)
}

// Fields select blocks, whether the list may be late or not.
func testSelect(t *testing.T, src block.Store, space string) {
	var names []string
	for i, node := range []string{"node-1", "node-1", "node-2", ""} {
		b := blockOf(space, i, node)
		if i == 1 {
			b.Spec.Recall = &v1alpha1.Recall{By: "node-3", At: metav1.Now()}
		}
		names = append(names, mustCreate(t, src, b).Name)
	}
	mustCreate(t, src, blockOf(space+"-other", 0, "node-1"))
	for selector, want := range map[string][]string{
		"":                             names,
		",spec.owner.nodeName=node-1":  {names[0], names[1]},
		",spec.owner.nodeName!=node-1": {names[2], names[3]},
		",spec.owner.nodeName=":        {names[3]},
		",spec.recall.by=node-3":       {names[1]},
		",spec.recall.by!=":            {names[1]},
		",spec.owner.nodeName=node-1,spec.recall.by=":         {names[0]},
		",spec.owner.nodeName=node-9":                         nil,
		",metadata.name=" + names[2]:                          {names[2]},
		",spec.owner.nodeName=node-2,spec.recall.by=node-3":   nil,
		",spec.owner.nodeName!=node-1,spec.recall.by!=node-3": {names[2], names[3]},
	} {
		for _, version := range []string{"", "0"} {
			if version == "0" {
				eventually(t, src, space, names)
			}
			got := mustList(t, src, metav1.ListOptions{
				FieldSelector: "spec.space=" + space + selector, ResourceVersion: version,
			})
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%q with resourceVersion %q (-want +got):\n%s", selector, version, diff)
			}
		}
	}
}

// eventually waits until the stale list of a space is these blocks.
func eventually(t *testing.T, src block.Store, space string, want []string) {
	t.Helper()
	want = slices.Sorted(slices.Values(want))
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		got := mustList(t, src, metav1.ListOptions{
			FieldSelector: "spec.space=" + space, ResourceVersion: "0",
		})
		if slices.Equal(got, want) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("stale list has %d blocks for good: %.500v, want %d", len(got), got, len(want))
		}
	}
}

// A selector that cannot be heeded is an error, and not a list of all.
func testSelectUnknown(t *testing.T, src block.Store, _ string) {
	for _, selector := range []string{
		"spec.cidr=10.0.0.0/28", "spec.space", "a=b=c,", "status.used=1",
	} {
		list, err := src.Blocks(t.Context(), metav1.ListOptions{FieldSelector: selector})
		if !apierrors.IsBadRequest(err) {
			t.Errorf("%q: got %d blocks, error %v, want bad request", selector, len(list), err)
		}
	}
}

// More blocks than one answer holds.
func testMany(t *testing.T, src block.Store, space string) {
	const n = 1203
	var all sync.WaitGroup
	next := make(chan int)
	for range 16 {
		all.Go(func() {
			for i := range next {
				_, err := src.CreateBlock(t.Context(), blockOf(space, i, fmt.Sprintf("node-%d", i%7)))
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	var names []string
	for i := range n {
		names = append(names, blockOf(space, i, "").Name)
		next <- i
	}
	close(next)
	all.Wait()
	slices.Sort(names)
	got := mustList(t, src, metav1.ListOptions{FieldSelector: "spec.space=" + space})
	if diff := cmp.Diff(names, got); diff != "" {
		t.Errorf("%d blocks (-want +got):\n%.2000s", len(got), diff)
	}
	got = mustList(t, src, metav1.ListOptions{
		FieldSelector: "spec.owner.nodeName=node-3,spec.space=" + space,
	})
	if len(got) != n/7+1 {
		t.Errorf("node-3 has %d blocks, want %d", len(got), n/7+1)
	}
	eventually(t, src, space, names)
}

// A list of resourceVersion 0 may be late; any other has all that was answered before.
func testStaleList(t *testing.T, src block.Store, space string) {
	for i := range 20 {
		name := mustCreate(t, src, blockOf(space, i, "node-1")).Name
		got := mustList(t, src, metav1.ListOptions{FieldSelector: "spec.space=" + space})
		if !slices.Contains(got, name) {
			t.Fatalf("a list does not have %s, which was created before", name)
		}
	}
	var names []string
	for i := range 20 {
		names = append(names, blockOf(space, i, "").Name)
	}
	eventually(t, src, space, names)
	for _, name := range names {
		if err := src.DeleteBlock(t.Context(), mustBlock(t, src, name)); err != nil {
			t.Fatal(err)
		}
		got := mustList(t, src, metav1.ListOptions{FieldSelector: "spec.space=" + space})
		if slices.Contains(got, name) {
			t.Fatalf("a list has %s, which was deleted before", name)
		}
	}
	eventually(t, src, space, nil)
}

// What is not there is so for each call; a list without blocks is no error.
func testBlockNotFound(t *testing.T, src block.Store, space string) {
	absent := blockOf(space, 0, "node-1")
	absent.UID, absent.ResourceVersion = "u-1", "12"
	if _, err := src.Block(t.Context(), absent.Name); !apierrors.IsNotFound(err) {
		t.Errorf("get: got error %v, want not found", err)
	}
	if err := src.DeleteBlock(t.Context(), absent); !apierrors.IsNotFound(err) {
		t.Errorf("delete: got error %v, want not found", err)
	}
	if err := src.UpdateBlockStatus(t.Context(), absent); !apierrors.IsNotFound(err) {
		t.Errorf("status: got error %v, want not found", err)
	}
	got := mustList(t, src, metav1.ListOptions{FieldSelector: "spec.space=" + space})
	if len(got) > 0 {
		t.Errorf("list: got %v", got)
	}
}

// A name that is none never becomes a path.
func testBadBlockNames(t *testing.T, src block.Store, space string) {
	for _, name := range badNames() {
		b := blockOf(space, 0, "node-1")
		b.Name, b.UID, b.ResourceVersion = name, "u", "1"
		_, created := src.CreateBlock(t.Context(), b)
		_, got := src.Block(t.Context(), name)
		_, updated := src.UpdateBlock(t.Context(), b)
		isBadRequest(t, name, map[string]error{
			"CreateBlock": created, "Block": got, "UpdateBlock": updated,
			"UpdateBlockStatus": src.UpdateBlockStatus(t.Context(), b),
			"DeleteBlock":       src.DeleteBlock(t.Context(), b),
		})
	}
}

func claimOf(namespace, name string) *claimv1.IPAMClaim {
	return &claimv1.IPAMClaim{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: "u"},
	}
}

// What would change any version of a block is refused.
func testWithoutVersion(t *testing.T, src block.Store, space string) {
	created := mustCreate(t, src, blockOf(space, 0, "node-1"))
	for _, strip := range []func(*metav1.ObjectMeta){
		func(m *metav1.ObjectMeta) { m.UID = "" }, func(m *metav1.ObjectMeta) { m.ResourceVersion = "" },
	} {
		b := created.DeepCopy()
		strip(&b.ObjectMeta)
		b.Spec.Owner.NodeName = "node-2"
		if _, err := src.UpdateBlock(t.Context(), b); !apierrors.IsBadRequest(err) {
			t.Errorf("update: got error %v, want bad request", err)
		}
		if err := src.DeleteBlock(t.Context(), b); !apierrors.IsBadRequest(err) {
			t.Errorf("delete: got error %v, want bad request", err)
		}
	}
	b := created.DeepCopy()
	b.UID = ""
	if err := src.UpdateBlockStatus(t.Context(), b); !apierrors.IsBadRequest(err) {
		t.Errorf("status: got error %v, want bad request", err)
	}
	same(t, "stored", mustBlock(t, src, created.Name), created)
}

// A call whose context has ended changes nothing, and says so.
func testCancelledBlock(t *testing.T, src block.Store, space string) {
	created := mustCreate(t, src, blockOf(space, 0, "node-1"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, made := src.CreateBlock(ctx, blockOf(space, 1, "node-1"))
	_, got := src.Block(ctx, created.Name)
	_, list := src.Blocks(ctx, metav1.ListOptions{})
	_, updated := src.UpdateBlock(ctx, created)
	isCancelled(t, map[string]error{
		"CreateBlock": made, "Block": got, "Blocks": list, "UpdateBlock": updated,
		"UpdateBlockStatus": src.UpdateBlockStatus(ctx, created),
		"DeleteBlock":       src.DeleteBlock(ctx, created),
	})
	stored := mustList(t, src, metav1.ListOptions{FieldSelector: "spec.space=" + space})
	if len(stored) != 1 {
		t.Errorf("blocks are %v", stored)
	}
	same(t, "stored", mustBlock(t, src, created.Name), created)
}

// A node has the same uid each time, and no two have one. They are counted.
func testNodes(t *testing.T, src block.Nodes, create func(*testing.T, string)) {
	uids := map[string]bool{}
	for i := 1; i <= 3; i++ {
		name := fmt.Sprintf("node-%d.example.com", i)
		create(t, name)
		node, err := src.Node(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		again, err := src.Node(t.Context(), name)
		if err != nil {
			t.Fatal(err)
		}
		if node.Name != name || node.Namespace != "" || node.UID == "" || uids[string(node.UID)] ||
			again.UID != node.UID {
			t.Errorf("node %s is %+v, and then %+v", name, node, again)
		}
		uids[string(node.UID)] = true
		if count, err := src.NodeCount(t.Context()); err != nil || count != i {
			t.Errorf("%d nodes, %v, want %d", count, err, i)
		}
	}
}

func mustClaim(t *testing.T, src block.IPAMClaims, namespace, name string) *claimv1.IPAMClaim {
	t.Helper()
	claim, err := src.IPAMClaim(t.Context(), namespace, name)
	if err != nil {
		t.Fatal(err)
	}
	return claim
}

// A claim keeps the addresses that were published, and others do not get them.
func testClaim(t *testing.T, src block.IPAMClaims, back ClaimsBackend, ns string) {
	if _, err := src.IPAMClaim(t.Context(), ns, "c"); !apierrors.IsNotFound(err) {
		t.Errorf("got error %v, want not found", err)
	}
	back.CreateClaim(t, ns, "c")
	back.CreateClaim(t, ns, "other")
	claim := mustClaim(t, src, ns, "c")
	got := []string{
		claim.Namespace, claim.Name, claim.Spec.Network, claim.Spec.Interface,
		fmt.Sprint(claim.Spec.IPRequests, claim.Status.IPs),
	}
	if diff := cmp.Diff([]string{ns, "c", "net", "net1", "[10.0.0.7/28] []"}, got); diff != "" {
		t.Errorf("claim (-want +got):\n%s", diff)
	}
	if claim.UID == "" {
		t.Error("the claim has no uid")
	}
	testClaimAddresses(t, src, claim)
	if other := mustClaim(t, src, ns, "other"); len(other.Status.IPs) > 0 || other.UID == claim.UID {
		t.Errorf("the other claim is %+v", other)
	}
	err := src.SetIPAMClaimIPs(t.Context(),
		&claimv1.IPAMClaim{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "c"}}, nil)
	if !apierrors.IsBadRequest(err) {
		t.Errorf("without uid: got error %v, want bad request", err)
	}
	testClaimDeleted(t, src, back, claim)
}

// testClaimAddresses publishes addresses of a claim, each time twice.
func testClaimAddresses(t *testing.T, src block.IPAMClaims, claim *claimv1.IPAMClaim) {
	t.Helper()
	for _, ips := range [][]string{{"10.0.0.7/28"}, {"10.0.0.7/28", "fd00::7/64"}, {}} {
		claim.Status.OwnerPod = fmt.Sprintf("pod-%d", len(ips))
		for range 2 {
			if err := src.SetIPAMClaimIPs(t.Context(), claim, ips); err != nil {
				t.Fatal(err)
			}
		}
		got := mustClaim(t, src, claim.Namespace, claim.Name)
		if !slices.Equal(got.Status.IPs, ips) || got.Status.OwnerPod != claim.Status.OwnerPod ||
			got.UID != claim.UID || got.Spec.Network != "net" {
			t.Errorf("claim is %+v, want addresses %v", got, ips)
		}
	}
}

// Addresses of a claim that is gone are not published.
func testClaimDeleted(
	t *testing.T, src block.IPAMClaims, back ClaimsBackend, claim *claimv1.IPAMClaim,
) {
	t.Helper()
	ns := claim.Namespace
	back.DeleteClaim(t, ns, "c")
	err := src.SetIPAMClaimIPs(t.Context(), claim, []string{"10.0.0.7/28"})
	if !apierrors.IsNotFound(err) {
		t.Errorf("deleted: got error %v, want not found", err)
	}
	if _, err := src.IPAMClaim(t.Context(), ns, "c"); !apierrors.IsNotFound(err) {
		t.Errorf("deleted: got error %v, want not found", err)
	}
}

// A claim of the same name is another one, without the addresses of the first.
func testClaimReplaced(t *testing.T, src block.IPAMClaims, back ClaimsBackend, ns string) {
	back.CreateClaim(t, ns, "c")
	old := mustClaim(t, src, ns, "c")
	if err := src.SetIPAMClaimIPs(t.Context(), old, []string{"10.0.0.7/28"}); err != nil {
		t.Fatal(err)
	}
	back.ReplaceClaim(t, ns, "c")
	replaced := mustClaim(t, src, ns, "c")
	if replaced.UID == old.UID || len(replaced.Status.IPs) > 0 {
		t.Errorf("the new claim is %+v", replaced)
	}
	err := src.SetIPAMClaimIPs(t.Context(), old, []string{"10.0.0.8/28"})
	wantConflict(t, "addresses of the old claim", err)
	if got := mustClaim(t, src, ns, "c"); len(got.Status.IPs) > 0 {
		t.Errorf("the new claim has addresses %v after a conflict", got.Status.IPs)
	}
}
