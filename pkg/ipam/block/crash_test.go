package block_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/ipam/alloc"
	"github.com/braid-cni/braid/pkg/ipam/block"
	"github.com/braid-cni/braid/pkg/nettest"
)

// files are those of a node's state, whole.
func files(t *testing.T, m *block.Manager, dirs ...string) (names []string) {
	t.Helper()
	for _, dir := range dirs {
		err := filepath.WalkDir(filepath.Join(m.Dir, dir),
			func(path string, d os.DirEntry, err error) error {
				if err == nil && !d.IsDir() {
					names = append(names, path)
				}
				return nil
			})
		if err != nil {
			t.Fatal(err)
		}
	}
	return names
}

// nothingLeft has the nodes free what is idle, and looks.
func (c *cluster) nothingLeft(t *testing.T, nodes ...*block.Manager) {
	t.Helper()
	for range 4 {
		c.pass(time.Hour)
		for _, m := range nodes {
			if err := m.Tend(t.Context()); err != nil {
				t.Error(err)
			}
		}
	}
	blocks, err := c.api.Blocks(t.Context(), metav1.ListOptions{})
	if err != nil || len(blocks) > 0 {
		t.Errorf("blocks are left: %+v, %v", blocks, err)
	}
	for _, m := range nodes {
		if left := files(t, m, "held", "blocks"); len(left) > 0 {
			t.Errorf("%q is left", left)
		}
	}
}

// killed runs an operation that is killed before its change number n, and reports whether it came
// so far.
func killed(m *block.Manager, n int, do func()) (killed bool) {
	at := 0
	m.Step = func(string) error {
		if at++; at > n {
			killed = true
			runtime.Goexit()
		}
		return nil
	}
	done := make(chan bool)
	go func() {
		defer close(done)
		do()
	}()
	<-done
	m.Step = nil
	return killed
}

// Whatever an Add or a Del was doing when it was killed: the runtime's next Add or Del puts it
// right.
func TestKilledAtEachStep(t *testing.T) {
	for name, c := range map[string]struct {
		nodes  int
		warm   bool
		ranges []string
	}{
		"local":    {1, true, []string{"10.0.0.0/24"}},
		"claiming": {1, false, []string{"10.0.0.0/24"}},
		"last":     {1, true, []string{"10.0.0.4/31"}},
		"shared":   {4, false, []string{"10.0.0.0/28"}},
		"entry":    {4, true, []string{"10.0.0.0/28"}},
		"multi":    {1, true, []string{"10.0.0.0/24", "10.0.0.0/24", "fd00::/64"}},
		"mixed":    {4, false, []string{"fd00::/64", "10.0.0.0/28", "10.1.0.0/16"}},
	} {
		for _, what := range []string{
			"Add, Del", "Add, Add", "Add, GC", "Del, Del", "Del, GC", "Del, Add", "Reserve, Add",
			"Reserve, Del",
		} {
			t.Run(name+" "+what, func(t *testing.T) {
				steps := 0
				for more := true; more; steps++ {
					more = killedAt(t, c.nodes, c.warm, c.ranges, what, steps)
				}
				if steps < 3 && !strings.HasPrefix(what, "Reserve") { // it may have nothing to do
					t.Errorf("%d steps only", steps)
				}
			})
		}
	}
}

func killedAt(t *testing.T, nodes int, warm bool, ranges []string, what string, n int) bool {
	t.Helper()
	c := newCluster(t)
	var all []*block.Manager
	for i := range nodes {
		all = append(all, c.node(fmt.Sprint("n", i)))
	}
	m, other := all[0], all[len(all)-1]
	var wishes []block.Wish
	for _, cidr := range ranges {
		wishes = append(wishes, wish(t, cidr))
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("killed before change %d: %v", n, err)
		}
	}
	add := func(m *block.Manager, i int) []netip.Addr {
		t.Helper()
		addrs, err := m.Add(t.Context(), holder(i), wishes, nil)
		must(err)
		return addrs
	}
	if warm {
		add(m, 1)
		if ranges[0] != "10.0.0.4/31" {
			add(m, 2)
			must(m.Del(t.Context(), holder(2).ID))
		}
	}
	var dead bool
	first, second, _ := strings.Cut(what, ", ")
	switch first {
	case "Reserve":
		dead = killed(m, n, func() { _ = m.Reserve(context.WithoutCancel(t.Context()), wishes...) })
	case "Add":
		dead = killed(m, n, func() {
			_, _ = m.Add(context.WithoutCancel(t.Context()), holder(0), wishes, nil)
		})
	default:
		add(m, 0)
		dead = killed(m, n, func() { _ = m.Del(context.WithoutCancel(t.Context()), holder(0).ID) })
	}
	live := map[int][]netip.Addr{}
	if warm {
		live[1] = add(m, 1)
	}
	switch second {
	case "Del":
		must(m.Del(t.Context(), holder(0).ID))
	case "GC":
		must(m.GC(t.Context(), "net", []attachment.ID{holder(1).ID}))
	case "Add":
		live[0] = add(m, 0)
		must(m.Check(t.Context(), holder(0).ID, live[0]))
	}
	if ranges[0] != "10.0.0.4/31" {
		live[3] = add(other, 3)
		live[4] = add(m, 4)
	}
	var seen []netip.Addr
	for i, addrs := range live {
		for _, a := range addrs {
			if slices.Contains(seen, a) {
				t.Errorf("killed before change %d: %v, of %d, is given twice: %v", n, a, i, live)
			}
			seen = append(seen, a)
		}
	}
	for i := range 5 {
		for _, m := range all {
			must(m.Del(t.Context(), holder(i).ID))
		}
	}
	c.nothingLeft(t, all...)
	return dead
}

// Whatever stands in the place of a file: no address is given twice, and what pods have can be
// given back.
func TestBadState(t *testing.T) {
	big := make([]byte, 10<<20)
	for name, spoil := range map[string]func(path string) error{
		"empty":     func(p string) error { return os.Truncate(p, 0) },
		"truncated": func(p string) error { return os.Truncate(p, 20) },
		"garbage":   func(p string) error { return os.WriteFile(p, []byte("\x00\xff{{"), 0o600) },
		"foreign": func(p string) error {
			return os.WriteFile(p, []byte("space x\ncidr 10.9.9.0/28\nstate owned\nend\n"), 0o600)
		},
		"two": func(p string) error { return appendTo(p, "{}") },
		"big": func(p string) error { return os.WriteFile(p, big, 0o600) },
		"symlink": func(p string) error {
			return replace(p, func() error { return os.Symlink("/etc/passwd", p) })
		},
		"dangling": func(p string) error {
			return replace(p, func() error { return os.Symlink("nowhere", p) })
		},
		"directory": func(p string) error {
			return replace(p, func() error { return os.MkdirAll(filepath.Join(p, "x"), 0o700) })
		},
		"removed": os.Remove,
	} {
		for _, what := range []string{
			"held", "blocks", "node", "blocks held", "blocks held node",
		} {
			t.Run(name+" "+what, func(t *testing.T) { badState(t, spoil, what) })
		}
	}
}

func appendTo(path, text string) error {
	f, err := os.OpenFile(path, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(text)
	return err
}

func replace(path string, by func() error) error {
	if err := os.Remove(path); err != nil {
		return err
	}
	return by()
}

func badState(t *testing.T, spoil func(string) error, what string) {
	c := newCluster(t)
	m := c.node("n0")
	w := []block.Wish{wish(t, "10.0.0.0/25"), wish(t, "fd00::/64")}
	var seen []netip.Addr
	var added []int
	add := func(i int) {
		t.Helper()
		added = append(added, i)
		addrs, err := m.Add(t.Context(), holder(i), w, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range addrs {
			if slices.Contains(seen, a) {
				t.Errorf("%v is given twice", a)
			}
			seen = append(seen, a)
		}
	}
	for i := range 20 {
		add(i)
	}
	var dirs []string
	for _, dir := range []string{"held", "blocks", "node"} {
		if slices.Contains(strings.Fields(what), dir) {
			dirs = append(dirs, dir)
		}
	}
	for _, path := range files(t, m, dirs...) {
		if err := spoil(path); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 20 {
		add(100 + i)
	}
	c.pass(time.Hour)
	if err := m.Inspect(t.Context()); err != nil {
		t.Error(err)
	}
	for i := range 20 {
		add(200 + i)
	}
	for _, i := range added {
		if err := m.Del(t.Context(), holder(i).ID); err != nil {
			t.Errorf("del %d: %v", i, err)
		}
	}
	if err := m.GC(t.Context(), "net", nil); err != nil {
		t.Error(err)
	}
	// What is not known to be free is free after a reboot.
	c.boots["n0"]++
	if err := os.RemoveAll(m.Dir); err != nil {
		t.Fatal(err)
	}
	c.nothingLeft(t, m)
}

// A state directory that is removed while pods live leaves their addresses in use.
func TestStateRemoved(t *testing.T) {
	c := newCluster(t)
	m := c.node("n0")
	w := []block.Wish{wish(t, "10.0.0.0/26")}
	seen := map[netip.Addr]bool{}
	for i := range 48 {
		if i == 16 || i == 20 {
			if err := os.RemoveAll(m.Dir); err != nil {
				t.Fatal(err)
			}
		}
		addrs, err := m.Add(t.Context(), holder(i), w, nil)
		if err != nil {
			if i < 32 {
				t.Fatal(err)
			}
			break
		}
		if seen[addrs[0]] {
			t.Fatalf("%v is given twice", addrs)
		}
		seen[addrs[0]] = true
	}
}

// Two local states of one node, as of a Braid and a plugin called under its own name with other
// directories, do not both take up a block of before the reboot.
func TestTwoStates(t *testing.T) {
	c := newCluster(t)
	w := wish(t, "10.0.0.0/24")
	before := c.node("n0")
	if _, err := before.Add(t.Context(), holder(-1), []block.Wish{w}, nil); err != nil {
		t.Fatal(err)
	}
	c.boots["n0"]++
	one, other := c.node("n0"), c.node("n0")
	for _, m := range []*block.Manager{one, other} {
		if err := m.Inspect(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	seen := map[netip.Addr]bool{}
	for i := range 2 * block.Size {
		for j, m := range []*block.Manager{one, other} {
			addrs, err := m.Add(t.Context(), holder(2*i+j), []block.Wish{w}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if seen[addrs[0]] {
				t.Fatalf("address %v is given twice", addrs[0])
			}
			seen[addrs[0]] = true
		}
	}
}

// What a node has of shared blocks is free after a reboot, as none of its containers has survived.
func TestSharedAfterReboot(t *testing.T) {
	c := newCluster(t)
	w := wish(t, "10.0.0.0/28")
	c.node("n1")
	before := c.node("n0") // two nodes, one block: it is shared
	for i := range 14 {
		if _, err := before.Add(t.Context(), holder(i), []block.Wish{w}, nil); err != nil {
			t.Fatal(err)
		}
	}
	c.boots["n0"]++
	after := c.node("n0")
	if err := after.Inspect(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i := range 14 {
		if _, err := after.Add(t.Context(), holder(20+i), []block.Wish{w}, nil); err != nil {
			t.Fatal(err)
		}
	}
}

// A claim that was about to be made when the process was killed is not taken for one that other
// local state of the node has made since.
func TestClaimOfAnotherState(t *testing.T) {
	c := newCluster(t)
	w := wish(t, "10.0.0.0/28")
	one, other := c.node("n0"), c.node("n0")
	one.Step = func(change string) error {
		if change == "create block" {
			return errors.New("killed")
		}
		return nil
	}
	if _, err := one.Add(t.Context(), holder(0), []block.Wish{w}, nil); err == nil {
		t.Fatal("not killed")
	}
	one.Step = nil
	got, err := other.Add(t.Context(), holder(1), []block.Wish{w}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := range block.Size {
		addrs, err := one.Add(t.Context(), holder(2+i), []block.Wish{w}, nil)
		if err == nil && addrs[0] == got[0] {
			t.Fatalf("address %v is given twice", got[0])
		}
	}
}

// Blocks that were deleted or edited by hand: the node claims what it uses again, or stops using it
// and tells the pods.
func TestBlocksChangedByHand(t *testing.T) {
	c := newCluster(t)
	m := c.node("n0")
	var told []string
	m.Tell = func(_ context.Context, pod string, _ types.UID, reason, _ string) {
		told = append(told, pod+" "+reason)
	}
	w := []block.Wish{wish(t, "10.0.0.0/24")}
	if _, err := m.Add(t.Context(), holder(0), w, nil); err != nil {
		t.Fatal(err)
	}
	object := func() *v1alpha1.IPBlock {
		list, err := c.api.Blocks(t.Context(), metav1.ListOptions{})
		if err != nil || len(list) != 1 {
			t.Fatal(list, err)
		}
		return &list[0]
	}
	if err := c.api.DeleteBlock(t.Context(), object()); err != nil {
		t.Fatal(err)
	}
	if err := m.Inspect(t.Context()); err != nil || object().Spec.Owner.NodeName != "n0" {
		t.Fatal(err, object())
	}
	b := object()
	b.Spec.Owner.NodeName = "n9"
	b, err := c.api.UpdateBlock(t.Context(), b)
	if err != nil {
		t.Fatal(err)
	}
	err = m.Inspect(t.Context())
	if err != nil || !slices.Equal(told, []string{"default/p0 AddressLost"}) {
		t.Fatal(err, told)
	}
	if err := m.Inspect(t.Context()); err != nil || len(told) != 1 {
		t.Error(err, told)
	}
	if err := m.Check(t.Context(), holder(0).ID, nil); err == nil {
		t.Error("what was lost is held")
	}
	addrs, err := m.Add(t.Context(), holder(1), w, nil)
	if err != nil || netip.MustParsePrefix(b.Spec.CIDR).Contains(addrs[0]) {
		t.Error(addrs, err)
	}
	for i := range 2 {
		if err := m.Del(t.Context(), holder(i).ID); err != nil {
			t.Error(err)
		}
	}
	if err := c.api.DeleteBlock(t.Context(), b); err != nil {
		t.Error(err)
	}
	c.nothingLeft(t, m)
}

// An object that is no block of ours is nobody's to use, and no reason to fail.
func TestForeignObjects(t *testing.T) {
	c := newCluster(t)
	m := c.node("n0")
	for _, cidr := range []string{"10.0.0.0/27", "10.0.0.32/29", "10.0.0.64/28 ", "x"} {
		b := &v1alpha1.IPBlock{
			ObjectMeta: metav1.ObjectMeta{Name: "by-hand-" + fmt.Sprint(len(cidr), cidr[:1])},
		}
		b.Spec.Space, b.Spec.CIDR = block.SpaceOf("", ""), cidr
		if _, err := c.api.CreateBlock(t.Context(), b); err != nil {
			t.Fatal(err)
		}
	}
	w := []block.Wish{wish(t, "10.0.0.0/25")}
	for i := range 40 {
		if _, err := m.Add(t.Context(), holder(i), w, nil); err != nil {
			t.Fatal(i, err)
		}
	}
	if err := m.Inspect(t.Context()); err != nil {
		t.Error(err)
	}
}

// A node that gets another name keeps the blocks of its old one, in its new name, before a
// controller frees them. While it cannot, none of them is assigned.
func TestRenamedNode(t *testing.T) {
	c := newCluster(t)
	m, other := c.node("n0"), c.node("n2")
	w := wish(t, "10.0.0.0/24")
	addrs, err := m.Add(t.Context(), holder(0), []block.Wish{w}, nil)
	if err != nil {
		t.Fatal(err)
	}
	old := alloc.BlockOf(addrs[0], 28)
	c.api.DeleteNode("n0")
	c.api.AddNode("n1", "uid of n1")
	m.NodeName = "n1"
	c.api.Fault = func(string, string) error { return errors.New("away") }
	if got, err := m.Add(t.Context(), holder(1), []block.Wish{w}, nil); err == nil {
		t.Fatalf("got %v while nobody knows the node by its new name", got)
	}
	c.api.Fault = nil
	c.pass(time.Minute)
	after, err := m.Add(t.Context(), holder(1), []block.Wish{w}, nil)
	if err != nil {
		t.Fatal(err)
	}
	object, err := c.api.Block(t.Context(), block.NameOf(w.Space, old))
	if err != nil || object.Spec.Owner.NodeName != "n1" || object.Spec.Owner.NodeUID != "uid of n1" {
		t.Errorf("block %+v %v, want it to be n1's", object, err)
	}
	for i := 2; i <= 20; i++ {
		addrs, err := other.Add(t.Context(), holder(i), []block.Wish{w}, nil)
		if err != nil {
			break
		}
		if old.Contains(addrs[0]) || addrs[0] == after[0] {
			t.Fatalf("%v is given twice", addrs)
		}
	}
	for i := range 2 {
		if err := m.Del(t.Context(), holder(i).ID); err != nil {
			t.Error(err)
		}
	}
	for i := 2; i <= 20; i++ {
		if err := other.Del(t.Context(), holder(i).ID); err != nil {
			t.Error(err)
		}
	}
	c.nothingLeft(t, m, other)
}

// What the API holds in a container's name is given back also where the node's state was lost, its
// name has changed, or both.
func TestR28DelWithoutLocalState(t *testing.T) {
	for name, change := range map[string]struct{ lose, rename bool }{
		"state lost": {true, false}, "renamed": {false, true}, "both": {true, true},
	} {
		for _, how := range []string{"DEL", "GC"} {
			t.Run(name+" "+how, func(t *testing.T) {
				c := newCluster(t)
				m, other := c.node("n0"), c.node("n1")
				other.Boot = func() (string, error) { return "another boot", nil }
				w := []block.Wish{wish(t, "10.0.0.0/28")} // so few that they are shared
				for i := range 3 {
					if _, err := m.Add(t.Context(), holder(i), w, nil); err != nil {
						t.Fatal(err)
					}
				}
				// a container of the same ID elsewhere
				if _, err := other.Add(t.Context(), holder(0), w, nil); err != nil {
					t.Fatal(err)
				}
				if change.lose {
					if err := os.RemoveAll(m.Dir); err != nil {
						t.Fatal(err)
					}
				}
				if change.rename {
					m.NodeName = "n0-new"
					c.api.AddNode("n0-new", "uid of n0-new")
					c.api.DeleteNode("n0")
				}
				c.api.Fault = func(string, string) error { return errors.New("away") }
				if err := m.Del(t.Context(), holder(0).ID); err == nil {
					t.Error("a DEL says done while the API cannot be asked")
				}
				c.api.Fault = nil
				if how == "GC" {
					if err := m.GC(t.Context(), "net", []attachment.ID{holder(2).ID}); err != nil {
						t.Fatal(err)
					}
				}
				for i := 0; i < 2 && how == "DEL"; i++ {
					if err := m.Del(t.Context(), holder(i).ID); err != nil {
						t.Fatal(err)
					}
				}
				var left []string
				for _, object := range c.api.All() {
					for _, e := range object.Spec.Allocations {
						left = append(left, e.ContainerID+" on "+e.Node.NodeName)
					}
				}
				slices.Sort(left)
				if want := []string{"c0 on n1", "c2 on n0"}; !slices.Equal(left, want) {
					t.Errorf("the API holds addresses of %q, want %q", left, want)
				}
				before := c.api.Calls()
				if err := m.Del(t.Context(), holder(9).ID); err != nil || c.api.Calls() != before {
					t.Errorf("a DEL of what holds nothing: %v, %d requests", err, c.api.Calls()-before)
				}
			})
		}
	}
}

// How much of its blocks is in use a node writes when it looks at all of them, and only what has
// changed.
func TestStatusIsNotWrittenForEachPod(t *testing.T) {
	c := newCluster(t)
	m := c.node("n0")
	w := []block.Wish{wish(t, "10.0.0.0/24")}
	written := func() int { return c.api.Calls("status") }
	for i := range 3 {
		if _, err := m.Add(t.Context(), holder(i), w, nil); err != nil {
			t.Fatal(err)
		}
	}
	if n := written(); n != 0 {
		t.Errorf("written %d times by three Adds", n)
	}
	for range 2 {
		if err := m.Inspect(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	list, err := c.api.Blocks(t.Context(), metav1.ListOptions{})
	if err != nil || len(list) != 1 ||
		list[0].Status != (v1alpha1.IPBlockStatus{Used: 3, Free: block.Size - 3}) || written() != 1 {
		t.Errorf("blocks %+v %v, written %d times, want 3 in use, written once", list, err, written())
	}
}

// TestR31DelOnAFullDisk: what frees something needs no room.
func TestR31DelOnAFullDisk(t *testing.T) {
	for name, nodes := range map[string]int{"own block": 1, "shared block": 2} {
		t.Run(name, func(t *testing.T) {
			nettest.NeedsRoot(t)
			c := newCluster(t)
			m := c.node("n0")
			if nodes > 1 {
				c.node("n1")
			}
			if err := unix.Mount("tmpfs", m.Dir, "tmpfs", 0, "size=256k,mode=0700"); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unix.Unmount(m.Dir, unix.MNT_DETACH) })
			w := []block.Wish{wish(t, "10.0.0.0/28")}
			const pods = 14
			for i := range pods {
				if _, err := m.Add(t.Context(), holder(i), w, nil); err != nil {
					t.Fatal(err)
				}
			}
			fill, err := os.Create(filepath.Join(m.Dir, "fill"))
			for err == nil {
				_, err = fill.Write(make([]byte, 1<<10))
			}
			if !errors.Is(err, unix.ENOSPC) {
				t.Fatal(err)
			}
			_, err = m.Add(t.Context(), holder(pods), []block.Wish{wish(t, "10.0.1.0/28")}, nil)
			if !errors.Is(err, unix.ENOSPC) {
				t.Errorf("an Add on a full disk: %v", err)
			}
			for i := range pods - 1 {
				if err := m.Del(t.Context(), holder(i).ID); err != nil {
					t.Fatal(i, err)
				}
				// others use what is free again
				if _, err := fill.Write(make([]byte, 4<<10)); !errors.Is(err, unix.ENOSPC) && err != nil {
					t.Fatal(err)
				}
			}
			if err := m.GC(t.Context(), "net", nil); err != nil {
				t.Error(err)
			}
			fill.Close() //nolint:errcheck // it is full
			if err := os.Remove(fill.Name()); err != nil {
				t.Fatal(err)
			}
			c.nothingLeft(t, m)
			if _, err := m.Add(t.Context(), holder(0), w, nil); err != nil {
				t.Error(err)
			}
		})
	}
}
