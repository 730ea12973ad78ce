package block_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/ipam/alloc"
	"github.com/braid-cni/braid/pkg/ipam/block"
	"github.com/braid-cni/braid/pkg/ipam/block/blocktest"
)

// cluster is one in memory. The state of its nodes is on disk.
type cluster struct {
	t     *testing.T
	api   *blocktest.Fake
	mu    sync.Mutex
	clock time.Time
	boots map[string]int
}

func newCluster(t *testing.T) *cluster {
	return &cluster{t: t, api: blocktest.New(), clock: time.Unix(1e9, 0), boots: map[string]int{}}
}

func (c *cluster) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.clock
}

func (c *cluster) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clock = c.clock.Add(d)
}

// node is a new node.
func (c *cluster) node(name string) *block.Manager {
	c.api.AddNode(name, "uid-of-"+"node")
	return &block.Manager{
		Store: c.api, Nodes: c.api, Dir: stateDir(c.t), NodeName: name,
		Log: slog.New(slog.NewTextHandler(testWriter{c.t}, nil)), Now: c.now, Wall: c.now,
		Boot:     func() (string, error) { return fmt.Sprintf("boot-%d", c.boots[name]), nil },
		Patience: time.Millisecond, Sleep: func(ctx context.Context, d time.Duration) error {
			c.pass(d)
			runtime.Gosched()
			return ctx.Err()
		},
	}
}

// stateDir is a directory on a tmpfs, as that of a node is, where the machine has one; on a disk
// these tests take three times as long.
func stateDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "braid-block-") //nolint:usetesting // in memory, as /run is
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

type testWriter struct{ t *testing.T }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

func holder(i int) block.Holder {
	return block.Holder{
		ID:  attachment.ID{Network: "net", ContainerID: fmt.Sprint("c", i), IfName: "net1"},
		Pod: fmt.Sprint("default/p", i),
	}
}

func wish(t testing.TB, cidr string) block.Wish {
	t.Helper()
	w, err := alloc.NewWindow(netip.MustParsePrefix(cidr), netip.Addr{}, netip.Addr{}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	return block.Wish{Space: block.SpaceOf("", ""), Window: w}
}

// Every address of the range is given once, whatever the number of nodes, and given again when it
// is given back.
func TestAllAddressesAreGiven(t *testing.T) {
	for _, cidr := range []string{
		"10.0.0.0/24", "10.0.0.0/28", "10.0.0.4/31", "10.0.0.77/32", "fd00::/120", "fd00::8/127",
	} {
		for _, nodes := range []int{1, 8, 50} {
			t.Run(fmt.Sprint(cidr, " ", nodes), func(t *testing.T) {
				c := newCluster(t)
				var managers []*block.Manager
				for i := range nodes {
					managers = append(managers, c.node(fmt.Sprint("n", i)))
				}
				w := wish(t, cidr)
				for round := range 2 {
					where := map[int]*block.Manager{}
					seen := map[netip.Addr]int{}
					for i := range int(w.Window.Size()) {
						m := managers[(i*7+round)%nodes]
						addrs, err := add(t, managers, m, holder(i), w)
						if err != nil {
							t.Fatalf("address %d: %v", i, err)
						}
						if j, ok := seen[addrs[0]]; ok || !w.Window.Contains(addrs[0]) {
							t.Fatalf("address %v given to %d and %d", addrs[0], j, i)
						}
						seen[addrs[0]], where[i] = i, m
					}
					if _, err := add(t, managers, managers[0], holder(-1), w); !errors.Is(err, block.ErrFull) {
						t.Fatalf("error is %v", err)
					}
					for i, m := range where {
						if err := m.Del(t.Context(), holder(i).ID); err != nil {
							t.Fatal(err)
						}
					}
				}
			})
		}
	}
}

// What has white space is none of CNI's or Kubernetes' names.
func TestWhiteSpace(t *testing.T) {
	m := newCluster(t).node("n0")
	for what, h := range map[string]block.Holder{
		"network":      {ID: attachment.ID{Network: "a b", ContainerID: "c", IfName: "e"}},
		"container ID": {ID: attachment.ID{Network: "n", ContainerID: "c\n", IfName: "e"}},
		"interface":    {ID: attachment.ID{Network: "n", ContainerID: "c", IfName: "\te"}},
		"pod":          {ID: attachment.ID{Network: "n", ContainerID: "c", IfName: "e"}, Pod: "d/p q"},
	} {
		_, err := m.Add(t.Context(), h, []block.Wish{wish(t, "10.0.0.0/24")}, nil)
		if err == nil || !strings.HasPrefix(err.Error(), what+" ") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// add is an ADD that the runtime repeats, while the other nodes answer recalls.
func add(
	t *testing.T, all []*block.Manager, m *block.Manager, h block.Holder, w block.Wish,
) ([]netip.Addr, error) {
	for {
		addrs, err := m.Add(t.Context(), h, []block.Wish{w}, nil)
		if !errors.Is(err, block.ErrLater) {
			return addrs, err
		}
		for _, m := range all {
			if err := m.Answer(context.WithoutCancel(t.Context())); err != nil {
				return nil, err
			}
		}
	}
}

// The state that nodes have is read by name and content: neither may change.
func TestStateStays(t *testing.T) {
	c := newCluster(t)
	m := c.node("n0")
	h := holder(0)
	h.ContainerID, h.Pod = "c", "default/p"
	if _, err := m.Add(t.Context(), h, []block.Wish{wish(t, "10.0.0.0/24")}, nil); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"held/63889839ab2375c26da670d3e65b24dd": "holder net c net1  default/p\n" +
			"got 10.0.0.1\nlocal 10.0.0.1 default\nend\n",
		"blocks/default/open/10.0.0.0-28": "\nused 10.0.0.1 net c net1  default/p\n",
	} {
		data, err := os.ReadFile(filepath.Join(m.Dir, name))
		if err != nil || !strings.Contains(string(data), want) {
			t.Errorf("%s: %s, %v", name, data, err)
		}
	}
}

// olderState puts what an older Braid wrote into a node's directory, and the objects of its blocks
// into the cluster.
func olderState(t *testing.T, c *cluster, m *block.Manager) {
	t.Helper()
	data, err := os.ReadFile("testdata/older.json")
	if err != nil {
		t.Fatal(err)
	}
	var older struct {
		Files   map[string]string
		Objects []v1alpha1.IPBlock
	}
	if err := json.Unmarshal(data, &older); err != nil {
		t.Fatal(err)
	}
	var uids []string
	for _, object := range older.Objects {
		made, err := c.api.CreateBlock(t.Context(), &object)
		if err != nil {
			t.Fatal(err)
		}
		uids = append(uids, "uid "+string(object.UID)+"\n", "uid "+string(made.UID)+"\n")
	}
	for name, text := range older.Files {
		path := filepath.Join(m.Dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		text = strings.NewReplacer(uids...).Replace(text)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A node whose state an older Braid wrote: 20 pods, one of them with an address of a shared block
// too, and two of them under the node's former name; a claim that was killed; and a range that is
// full. Each pod keeps its addresses, nobody else gets them, and they are given back without the
// API, but for those of shared blocks.
func TestStateOfAnOlderBraid(t *testing.T) {
	c := newCluster(t)
	c.pass(time.Minute)
	m, other := c.node("n2"), c.node("n1")
	olderState(t, c, m)
	has := map[int][]netip.Addr{0: addrs("10.0.0.1", "fd00::1"), 20: addrs("10.0.0.21", "fd00::2")}
	for i := 1; i < 20; i++ {
		has[i] = addrs(fmt.Sprint("10.0.0.", i+1))
	}
	delete(has, 18) // it was given back
	c.api.Fault = func(string, string) error { return errors.New("away") }
	for i, want := range has {
		if err := m.Check(t.Context(), holder(i).ID, want); err != nil && len(want) == 1 {
			t.Errorf("pod %d: %v", i, err)
		}
	}
	if err := m.Del(t.Context(), holder(7).ID); err != nil {
		t.Errorf("without the API: %v", err)
	}
	delete(has, 7)
	c.api.Fault = nil
	w, shared := wish(t, "10.0.0.0/24"), wish(t, "fd00::/124")
	for i, want := range has {
		wishes := []block.Wish{w, shared}[:len(want)]
		got, err := m.Add(t.Context(), holder(i), wishes, nil)
		if err != nil || !slices.Equal(got, want) || m.Check(t.Context(), holder(i).ID, want) != nil {
			t.Errorf("pod %d has %v, %v, want %v", i, got, err, want)
		}
	}
	for i := 30; i < 44; i++ {
		for j, m := range []*block.Manager{m, other} {
			got, err := m.Add(t.Context(), holder(2*i+j), []block.Wish{w, shared}[:1+i/40], nil)
			if err != nil {
				t.Fatal(err)
			}
			for k, before := range has {
				if slices.ContainsFunc(got, func(a netip.Addr) bool { return slices.Contains(before, a) }) {
					t.Fatalf("%v is given to %d, and is that of %d: %v", got, 2*i+j, k, before)
				}
			}
			has[2*i+j] = got
		}
	}
	for i := range has {
		for _, err := range []error{
			m.Del(t.Context(), holder(i).ID), other.Del(t.Context(), holder(i).ID),
		} {
			if err != nil {
				t.Errorf("pod %d: %v", i, err)
			}
		}
	}
	if err := other.Del(t.Context(), holder(100).ID); err != nil { // it had state, which is not here
		t.Error(err)
	}
	c.nothingLeft(t, m, other)
}

func addrs(texts ...string) (list []netip.Addr) {
	for _, text := range texts {
		list = append(list, netip.MustParseAddr(text))
	}
	return list
}

// An Add with two wishes, the first for the last address of a block, holds these two
// addresses and no other, and frees both.
func TestTwoWishesAtTheEndOfABlock(t *testing.T) {
	c := newCluster(t)
	m := c.node("n0")
	w := wish(t, "10.0.0.0/24")
	for i := range block.Size - 2 { // the first block lacks .0
		if _, err := m.Add(t.Context(), holder(i), []block.Wish{w}, nil); err != nil {
			t.Fatal(err)
		}
	}
	uses := func() (n int) {
		known, err := m.InUse(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, used := range known {
			n += len(used)
		}
		return n
	}
	addrs, err := m.Add(t.Context(), holder(-1), []block.Wish{w, w}, nil)
	if err != nil || addrs[0] == addrs[1] {
		t.Fatal(addrs, err)
	}
	if n := uses(); n != block.Size {
		t.Errorf("%d addresses are in use, want %d", n, block.Size)
	}
	if err := m.Del(t.Context(), holder(-1).ID); err != nil {
		t.Fatal(err)
	}
	if n := uses(); n != block.Size-2 {
		t.Errorf("%d addresses are in use after the Del, want %d", n, block.Size-2)
	}
}
