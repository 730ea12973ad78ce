package block_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	claimv1 "github.com/braid-cni/braid/pkg/api/ipamclaim/v1alpha1"
	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/hostfile"
	"github.com/braid-cni/braid/pkg/ipam/alloc"
	"github.com/braid-cni/braid/pkg/ipam/block"
	"github.com/braid-cni/braid/pkg/ipam/block/blocktest"
)

// The simulation runs nodes against one API, in schedules that a seed chooses. Each operation is a
// goroutine that stops before each change of local state, before and after each request, and where
// it waits; one runs at a time, and the schedule decides which goes on, and whether it fails there
// or is killed. BRAID_SIMULATION is the number of schedules, BRAID_SIMULATION_SEED the first of
// them.
//
// The operations are those of pkg/engine, which tends the node's blocks after each. Nobody tends
// them beside an operation, but for nodes that have a timer for it (braidctl ipam tend). A node may
// be cut off from the API for any reason and any time, lose its Node object, get another name, lose
// its state or a part of it beside operations that go on or are killed, be suspended (its boot
// clock stands still) or have its wall clock set. Container IDs are used again.
//
// What must hold: no address is in use by two sandboxes; a DEL that succeeded has left nothing in
// the API; when all is given back, nothing is left of it, and each address can be given that is not
// of a node without traffic and timer.
func TestSimulation(t *testing.T) {
	schedules, first := 100, uint64(1)
	if n, err := strconv.Atoi(os.Getenv("BRAID_SIMULATION")); err == nil {
		schedules = n
	}
	if n, err := strconv.ParseUint(os.Getenv("BRAID_SIMULATION_SEED"), 10, 64); err == nil {
		first = n
	}
	dir := stateDir(t)
	total := map[string]int{}
	// from now on two descriptors of the Go runtime are open, too
	if r, w, err := os.Pipe(); err == nil {
		_, _ = r.Close(), w.Close()
	}
	before := descriptors(t)
	for seed := first; seed < first+uint64(schedules); seed++ {
		s := newSim(filepath.Join(dir, fmt.Sprint(seed)), seed)
		err := s.run()
		for what, n := range s.count {
			total[what] += n
		}
		if err != nil {
			t.Fatalf("BRAID_SIMULATION_SEED=%d: %v\n%s",
				seed, err, strings.Join(s.trace[max(0, len(s.trace)-2000):], "\n"))
		}
		if err := os.RemoveAll(s.dir); err != nil {
			t.Fatal(err)
		}
	}
	t.Log(total)
	if after := descriptors(t); after > before {
		t.Errorf("%d descriptors are open, before it were %d", after, before)
	}
}

func descriptors(t *testing.T) int {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

type sim struct {
	rnd   *rand.Rand
	dir   string
	api   *blocktest.Fake
	clock time.Duration
	nodes []*simNode
	// ops are those under way, current the one that runs now.
	ops     []*simOp
	current *simOp
	parked  chan bool // false: it has ended
	boxes   []*box
	live    map[string]*box
	kept    map[string]types.UID // of claims
	windows [][]block.Wish
	claims  []*claimv1.IPAMClaim
	serial  int
	calm    bool
	deletes bool     // Node objects are deleted
	renames bool     // nodes get other names
	jumps   bool     // wall clocks jump
	pauses  bool     // nodes are suspended
	gone    []string // container IDs that may be used again
	trace   []string
	failure error
	count   map[string]int
}

type simNode struct {
	*block.Manager
	id   int
	boot int
	uid  int
	name int
	// slept is how long the node was suspended, which its boot clock does not count; skew is how
	// far its wall clock was set.
	slept, skew time.Duration
	// lost is since when the reaper sees that a Node object of this machine is gone, or another.
	lost    map[incarnation]time.Duration
	present bool
	// tainted: the Node object says that the node is out of service, which the reaper takes for
	// lost.
	tainted bool
	// away is why each request of the node fails; nil if they do not.
	away error
	// timer: the blocks are tended without traffic. amnesia: the state was lost in this boot.
	timer, amnesia bool
	// unsure: a claim arrived after its block was given away. What is in use of it is not known
	// before the next boot.
	unsure bool
	// collecting: a GC is under way.
	collecting bool
}

// incarnation is a node as one Node object.
type incarnation struct {
	name string
	uid  types.UID
}

// box is a sandbox.
type box struct {
	node *simNode
	// on is the name of the node when the pod was bound to it.
	on     string
	holder block.Holder
	wishes []block.Wish
	claim  *claimv1.IPAMClaim
	addrs  []netip.Addr
	busy   bool
	added  bool
	// late: a request of it may take effect after all others; what it leaves then is for a GC.
	late bool
}

type simOp struct {
	node    *simNode
	name    string
	at      string
	resume  chan string
	started time.Duration
	box     *box
}

func newSim(dir string, seed uint64) *sim {
	s := &sim{
		rnd: rand.New(rand.NewPCG(seed, 4)), dir: dir, api: blocktest.New(), parked: make(chan bool),
		live: map[string]*box{}, kept: map[string]types.UID{},
		clock: time.Hour, count: map[string]int{},
	}
	s.deletes, s.renames = s.rnd.IntN(3) == 0, s.rnd.IntN(4) == 0
	switch s.rnd.IntN(3) { // not both: then nothing on the node would tell how much time has passed
	case 0:
		s.jumps = true
	case 1:
		s.pauses = true
	}
	s.api.Fault = s.fault
	for i := range 1 + s.rnd.IntN(4) {
		n := &simNode{
			id: i, lost: map[incarnation]time.Duration{}, present: true, timer: s.rnd.IntN(4) == 0,
		}
		n.Manager = &block.Manager{
			Store: s.api, Nodes: s.api, Dir: filepath.Join(dir, fmt.Sprint("n", i)),
			NodeName: fmt.Sprint("n", i), Log: slog.New(slog.NewTextHandler(simLog{s}, nil)),
			Now:  func() time.Time { return time.Unix(1e6, 0).Add(s.clock - n.slept) },
			Wall: func() time.Time { return time.Unix(1e9, 0).Add(s.clock + n.skew) },
			Rand: s.rnd, Boot: func() (string, error) {
				return fmt.Sprint("boot-", n.id, "-", n.boot), nil
			}, Patience: time.Second,
			Step: func(change string) error { return s.park(change) },
			Sleep: func(_ context.Context, d time.Duration) error {
				s.clock += d
				return s.park("sleep")
			}, Locking: s.locking,
		}
		s.api.AddNode(n.NodeName, n.object().uid)
		s.nodes = append(s.nodes, n)
	}
	type window struct{ subnet, first, last string }
	v4 := []window{
		{subnet: "10.0.0.0/28"},
		{subnet: "10.0.0.0/27"},
		{subnet: "10.0.0.0/26"},
		{subnet: "10.0.0.4/31"},
		{"10.0.0.0/28", "10.0.0.5", "10.0.0.6"},
		{"10.0.0.0/25", "10.0.0.14", "10.0.0.49"},
	}
	v6 := []window{{subnet: "fd00::/124"}, {subnet: "fd00::/122"}, {subnet: "fd00::6/127"}}
	one := func(of []window, space string) block.Wish {
		c := of[s.rnd.IntN(len(of))]
		var lo, hi netip.Addr
		if c.first != "" {
			lo, hi = netip.MustParseAddr(c.first), netip.MustParseAddr(c.last)
		}
		w, err := alloc.NewWindow(netip.MustParsePrefix(c.subnet), lo, hi, nil, nil)
		if err != nil {
			panic(err)
		}
		return block.Wish{Space: space, Window: w}
	}
	a, b := block.SpaceOf("", ""), block.SpaceOf("other", "")
	s.windows = [][]block.Wish{{one(v4, a)}}
	for range s.rnd.IntN(3) {
		s.windows = append(s.windows, [][]block.Wish{
			{one(v4, a)},
			{one(v6, a)},
			{one(v4, a), one(v6, a)},
			{one(v4, a), one(v4, a)},
			{one(v4, b), one(v4, a)},
			{one(v6, b)},
		}[s.rnd.IntN(6)])
	}
	if s.rnd.IntN(3) == 0 {
		c := &claimv1.IPAMClaim{
			ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c", UID: "claim-1"},
		}
		s.claims = append(s.claims, c)
		s.api.AddClaim(c)
	}
	return s
}

type simLog struct{ s *sim }

func (l simLog) Write(p []byte) (int, error) {
	l.s.note("    log %s", strings.TrimSpace(string(p)))
	return len(p), nil
}

func (s *sim) note(format string, args ...any) {
	s.trace = append(s.trace,
		fmt.Sprintf("%v ", s.clock.Round(time.Millisecond))+fmt.Sprintf(format, args...))
}

func (s *sim) fail(format string, args ...any) {
	if s.failure == nil {
		s.failure = fmt.Errorf(format, args...)
		s.note("FAILED %v", s.failure)
		for _, b := range s.api.All() {
			s.note("  %s owner %+v recall %+v status %+v: %+v", b.Name, b.Spec.Owner, b.Spec.Recall,
				b.Status, b.Spec.Allocations)
		}
		for _, n := range s.nodes {
			_ = filepath.WalkDir(n.Dir, func(path string, d os.DirEntry, err error) error {
				if err == nil && !d.IsDir() {
					data, _ := os.ReadFile(path)
					s.note("  %s: %q", strings.TrimPrefix(path, s.dir), data)
				}
				return nil
			})
		}
	}
}

// failures are the ways in which a request can fail that do not tell what is there.
func failures() []error {
	blocks := schema.GroupResource{Group: v1alpha1.GroupName, Resource: v1alpha1.Resource}
	return []error{
		errors.New("connection refused"), context.DeadlineExceeded,
		apierrors.NewForbidden(blocks, "", errors.New("no role")),
		apierrors.NewUnauthorized("token expired"),
		apierrors.NewTooManyRequests("overloaded", 1), apierrors.NewServiceUnavailable("etcd"),
		apierrors.NewInternalError(errors.New("panic")),
		apierrors.NewTimeoutError("slow", 1), apierrors.NewBadRequest("field label not supported"),
		apierrors.NewResourceExpired("too old"),
		&failure.Error{Reason: failure.APIUnavailable, Err: errors.New("not served")},
		&failure.Error{Reason: failure.TimedOut, Err: errors.New("late")},
	}
}

func (s *sim) anyFailure() error {
	all := failures()
	return all[s.rnd.IntN(len(all))]
}

func (s *sim) fault(when, verb string) error {
	if o := s.current; o != nil && o.node.away != nil && o.name != "reap" {
		if when != "before" {
			return o.node.away
		}
		if err := s.park("away " + verb); err != nil && !errors.Is(err, blocktest.ErrLate) {
			return err
		}
		return o.node.away
	}
	return s.park(when + " " + verb)
}

// park stops an operation until the schedule lets it go on.
func (s *sim) park(at string) error {
	o := s.current
	if o == nil {
		return nil
	}
	o.at = at
	s.parked <- true
	switch <-o.resume {
	case "die":
		runtime.Goexit()
	case "fail":
		return s.anyFailure()
	case "late":
		return blocktest.ErrLate
	}
	return nil
}

// locking lets others go on until the lock of a directory is free. Nobody takes it before the
// operation then does, as nobody else runs.
func (s *sim) locking(dir string) {
	for {
		fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return // it is met again
		}
		free, err := hostfile.TryLock(fd)
		_ = unix.Close(fd)
		if free || err != nil {
			return
		}
		s.clock += time.Millisecond
		_ = s.park("sleep") // it does not fail there
	}
}

// start begins an operation and runs it to its first stop.
func (s *sim) start(n *simNode, b *box, name string, do func(ctx context.Context)) *simOp {
	o := &simOp{node: n, name: name, resume: make(chan string), started: s.clock, box: b}
	if b != nil {
		b.busy = true
	}
	s.ops = append(s.ops, o)
	s.note("%s", name)
	s.current = o
	go func() {
		defer func() { s.parked <- false }()
		do(context.Background())
	}()
	s.wait(o)
	return o
}

// wait is until the operation that runs stops or ends.
func (s *sim) wait(o *simOp) {
	alive := <-s.parked
	s.current = nil
	if !alive {
		s.ops = slices.DeleteFunc(s.ops, func(x *simOp) bool { return x == o })
		if o.box != nil {
			o.box.busy = false
		}
	}
}

func (s *sim) goOn(o *simOp, how string) {
	if how != "" || !strings.HasPrefix(o.at, "sleep") {
		s.note("  %s: %s %s", o.name, o.at, how)
	}
	s.count["steps"]++
	if how != "" {
		s.count[how]++
	}
	if how == "late" && o.box != nil {
		o.box.late = true
	}
	s.current = o
	o.resume <- how
	s.wait(o)
}

// step lets an operation that was chosen by chance go on, and perhaps fail or die.
func (s *sim) step() {
	o := s.ops[s.rnd.IntN(len(s.ops))]
	s.clock += time.Duration(s.rnd.IntN(20)) * time.Millisecond
	how := ""
	before, after := strings.HasPrefix(o.at, "before "), strings.HasPrefix(o.at, "after ")
	steady := s.calm || o.name == "reap"
	switch x := s.rnd.IntN(150); {
	case steady:
	case x < 2:
		how = "die"
	case x < 6 && (before || after):
		how = "fail"
	case x < 9 && writes(o.at):
		how = "late"
	}
	if o.at == "late create" || o.at == "late update" || o.at == "late delete" {
		how = []string{"die", "fail"}[s.rnd.IntN(2)]
	}
	s.goOn(o, how)
}

func (s *sim) add(b *box) {
	// an Add of a container that runs is not repeated: what is known of it no more it may get anew
	if b.node.amnesia {
		s.dead(b)
	}
	s.start(b.node, b, fmt.Sprintf("add %s on %s %v", b.holder.ContainerID, b.node.NodeName, b.wishes),
		func(ctx context.Context) {
			m := b.node.Manager
			addrs, err := m.Add(ctx, b.holder, b.wishes, b.claim)
			s.note("  add %s: %v %v", b.holder.ContainerID, addrs, err)
			if err != nil {
				s.count["add failed"]++
			} else {
				s.count["added"]++
				s.given(b, addrs)
			}
			s.upkeep(ctx, m)
			if err == nil && b.claim == nil && b.node.timer {
				s.ahead(ctx, m, b.wishes)
			}
		})
}

// ahead is what an agent does after an Add.
func (s *sim) ahead(ctx context.Context, m *block.Manager, wishes []block.Wish) {
	for _, w := range wishes {
		there, err := m.ReserveAhead(ctx, w)
		s.note("  reserve ahead on %s: %t, %v", m.NodeName, there, err)
		if there {
			s.count["reserved ahead"]++
		}
	}
}

// upkeep is what pkg/engine does after each operation but STATUS.
func (s *sim) upkeep(ctx context.Context, m *block.Manager) {
	if err := m.Tend(ctx); err != nil {
		s.note("  tend %s: %v", m.NodeName, err)
	}
}

// check is a CHECK.
func (s *sim) check(b *box) {
	s.start(b.node, b, "check "+b.holder.ContainerID, func(ctx context.Context) {
		m := b.node.Manager
		s.note("  check %s: %v", b.holder.ContainerID, m.Check(ctx, b.holder.ID, b.addrs))
		s.upkeep(ctx, m)
	})
}

// again is a DEL that the runtime repeats: pkg/engine knows that the sandbox is gone.
func (s *sim) again(n *simNode) *simOp {
	return s.start(n, nil, "del again on "+n.NodeName, func(ctx context.Context) {
		s.upkeep(ctx, n.Manager)
	})
}

// reserve is what an agent does ahead of need, beside whatever else its node does.
func (s *sim) reserve(n *simNode) *simOp {
	wishes := s.windows[s.rnd.IntN(len(s.windows))]
	return s.start(n, nil, fmt.Sprintf("reserve on %s %v", n.NodeName, wishes),
		func(ctx context.Context) {
			err := n.Reserve(ctx, wishes...)
			s.note("  reserve on %s: %v", n.NodeName, err)
			if err == nil {
				s.count["reserved"]++
			}
		})
}

// tick is braidctl ipam tend.
func (s *sim) tick(n *simNode) *simOp {
	return s.start(n, nil, "timer of "+n.NodeName, func(ctx context.Context) {
		s.upkeep(ctx, n.Manager)
	})
}

// given looks at what an Add has given.
func (s *sim) given(b *box, addrs []netip.Addr) {
	if len(addrs) != len(b.wishes) {
		s.fail("%v for %v", addrs, b.wishes)
		return
	}
	if b.added && !slices.Equal(addrs, b.addrs) {
		s.fail("%v, which had %v, has %v", b.holder, b.addrs, addrs)
	}
	b.addrs, b.added = addrs, true
	for i, a := range addrs {
		w := b.wishes[i]
		key := w.Space + " " + a.String()
		other := s.live[key]
		if other != nil && other != b && (b.claim == nil || other.claim != b.claim) {
			s.fail("%s is that of both %v and %v", key, other.holder, b.holder)
		}
		if uid, ok := s.kept[key]; ok && (b.claim == nil || b.claim.UID != uid) {
			s.fail("%s is kept by claim %s, and that of %v", key, uid, b.holder)
		}
		if !w.Window.Contains(a) || w.Asked.IsValid() && a != w.Asked ||
			slices.ContainsFunc(addrs[:i], func(x netip.Addr) bool {
				return x == a && b.wishes[slices.Index(addrs, x)].Space == w.Space
			}) {
			s.fail("%v of %v for %v", a, addrs, w)
		}
		s.live[key] = b
		if b.claim != nil {
			s.kept[key] = b.claim.UID
		}
	}
}

func (s *sim) dead(b *box) {
	for key, other := range s.live {
		if other == b {
			delete(s.live, key)
		}
	}
	b.added = false
}

func (s *sim) del(b *box) {
	s.dead(b)
	s.start(b.node, b, "del "+b.holder.ContainerID, func(ctx context.Context) {
		m := b.node.Manager
		err := m.Del(ctx, b.holder.ID)
		s.note("  del %s: %v", b.holder.ContainerID, err)
		if err == nil {
			s.boxes = slices.DeleteFunc(s.boxes, func(x *box) bool { return x == b })
			if !b.late {
				s.gone = append(s.gone, b.holder.ContainerID)
				s.free(b)
			}
		}
		s.upkeep(ctx, m)
	})
}

// free looks for what the API holds in the name of a sandbox that a DEL has said to be gone.
func (s *sim) free(b *box) {
	for _, object := range s.api.All() {
		for _, e := range object.Spec.Allocations {
			if e.Node != nil && b.holder.ID == (attachment.ID{
				Network: e.Network, ContainerID: e.ContainerID, IfName: e.IfName,
			}) &&
				strings.HasPrefix(e.Node.BootID, fmt.Sprint("boot-", b.node.id, "-", b.node.boot)) {
				s.fail("del %s has succeeded, and %s holds %+v", b.holder.ContainerID, object.Name, e)
			}
		}
	}
}

func (s *sim) newBox() *box {
	s.serial++
	n := s.nodes[s.rnd.IntN(len(s.nodes))]
	for n.collecting {
		n = s.nodes[s.rnd.IntN(len(s.nodes))]
	}
	b := &box{node: n, on: n.NodeName, wishes: slices.Clone(s.windows[s.rnd.IntN(len(s.windows))])}
	b.holder = block.Holder{
		ID:  attachment.ID{Network: "net", ContainerID: fmt.Sprint("c", s.serial), IfName: "net1"},
		Pod: fmt.Sprint("default/p", s.serial),
	}
	if len(s.gone) > 0 && s.rnd.IntN(10) == 0 {
		i := s.rnd.IntN(len(s.gone))
		b.holder.ContainerID = s.gone[i]
		s.gone = slices.Delete(s.gone, i, i+1)
	}
	switch {
	case len(s.claims) > 0 && s.rnd.IntN(3) == 0:
		b.claim = s.claims[0]
		users := 0
		for _, o := range s.boxes {
			if o.claim == b.claim {
				users++
			}
		}
		if users > 1 { // a migration is from one to another
			b.claim = nil
		}
	case s.rnd.IntN(5) == 0:
		i := s.rnd.IntN(len(b.wishes))
		all := slices.Collect(b.wishes[i].Window.Intervals())
		b.wishes[i].Asked = all[0].First
		for range s.rnd.IntN(8) {
			if next := b.wishes[i].Asked.Next(); b.wishes[i].Window.Contains(next) {
				b.wishes[i].Asked = next
			}
		}
	}
	s.boxes = append(s.boxes, b)
	return b
}

// idleBox is a sandbox that nobody works at.
func (s *sim) idleBox() *box {
	var idle []*box
	for _, b := range s.boxes {
		if !b.busy && !b.node.collecting {
			idle = append(idle, b)
		}
	}
	if len(idle) == 0 {
		return nil
	}
	return idle[s.rnd.IntN(len(idle))]
}

// collect is a GC. The runtime does not call it beside other operations.
func (s *sim) collect(n *simNode) {
	var valid []attachment.ID
	for _, b := range s.boxes {
		switch {
		case b.node != n:
		case b.busy:
			return
		case b.added:
			valid = append(valid, b.holder.ID)
		}
	}
	if n.collecting {
		return
	}
	n.collecting = true
	s.start(n, nil, "gc "+n.NodeName, func(ctx context.Context) {
		defer func() { n.collecting = false }()
		m := n.Manager
		s.note("  gc %s: %v", n.NodeName, m.GC(ctx, "net", valid))
		s.upkeep(ctx, m)
	})
}

func (s *sim) reboot(n *simNode) {
	s.count["reboot"]++
	for _, o := range slices.Clone(s.ops) {
		if o.node == n && o.name != "reap" {
			s.goOn(o, "die")
		}
	}
	s.note("reboot %s", n.NodeName)
	n.boot++
	n.amnesia, n.unsure = false, false
	if err := os.RemoveAll(n.Dir); err != nil {
		s.fail("%v", err)
	}
	s.boxes = slices.DeleteFunc(s.boxes, func(b *box) bool {
		if b.node == n {
			s.dead(b)
		}
		return b.node == n
	})
}

// busy: an operation of the node is under way.
func (s *sim) busy(n *simNode) bool {
	return slices.ContainsFunc(s.ops, func(o *simOp) bool { return o.node == n && o.name != "reap" })
}

// forget is the loss of the state directory, or of a part of it, while containers live. What is
// under way goes on, or is killed, and what that has sent may take effect later.
func (s *sim) forget(n *simNode) {
	killed := s.rnd.IntN(3) > 0
	for _, o := range slices.Clone(s.ops) {
		switch {
		case o.node != n || o.name == "reap":
		case killed:
			if writes(o.at) {
				s.goOn(o, "late")
			}
			if slices.Contains(s.ops, o) { // else it is cut off, and has ended
				s.goOn(o, "die")
			}
		case o.box != nil: // as in add; if it is an Add that is killed later, what it gets is for a GC
			s.dead(o.box)
			o.box.late = true
		}
	}
	parts := []string{".", ".", ".", "blocks", "held", "node"}
	part := parts[s.rnd.IntN(len(parts))]
	s.note("state of %s is lost: %s", n.NodeName, part)
	s.count["state lost"]++
	n.amnesia = true
	if err := os.RemoveAll(filepath.Join(n.Dir, part)); err != nil {
		s.fail("%v", err)
	}
}

// writes reports whether an operation that has stopped there is about to send a write.
func writes(at string) bool {
	return slices.Contains([]string{"before create", "before update", "before delete"}, at)
}

// rename changes the machine's name, and sometimes leaves the Node object of the old one for
// good.
func (s *sim) rename(n *simNode) {
	if s.busy(n) || !n.present || n.tainted {
		return
	}
	s.count["renamed"]++
	old := *n.Manager
	s.setPresent(n, false)
	n.name++
	old.NodeName = fmt.Sprint("n", n.id, "-", n.name)
	n.Manager = &old
	s.note("node n%d is %s", n.id, n.NodeName)
	s.setPresent(n, true)
}

// suspend stops a node for a while, which its boot clock does not count.
func (s *sim) suspend(n *simNode) {
	s.arrive() // the others go on: no request is under way for that long
	d := time.Duration(s.rnd.Int64N(int64(40 * time.Minute)))
	for _, o := range s.ops { // those of others would have come to their end
		if o.node != n {
			d = min(d, max(0, 2*time.Minute-(s.clock-o.started))/4)
		}
	}
	s.note("%s is suspended for %v", n.NodeName, d)
	s.count["suspended"]++
	s.clock += d
	n.slept += d
}

func (s *sim) cut(n *simNode) {
	if n.away != nil {
		n.away = nil
	} else {
		n.away = s.anyFailure()
		s.count["cut off"]++
	}
	s.note("%s is cut off: %v", n.NodeName, n.away)
}

// outage is what happens to the addresses of a node that has lost both its object and the API for
// long, or goes on though it was declared out of service, and whose blocks another node gets.
func (s *sim) outage(n *simNode) {
	s.count["outage"]++
	for _, o := range slices.Clone(s.ops) {
		if o.node == n && o.name != "reap" {
			s.goOn(o, "die")
		}
	}
	if s.rnd.IntN(2) == 0 {
		s.setTainted(n, true)
	} else {
		s.setPresent(n, false)
		if n.away == nil {
			s.cut(n)
		}
	}
	s.boxes = slices.DeleteFunc(s.boxes, func(b *box) bool { // the pods are gone with the node
		if b.node == n {
			s.dead(b)
		}
		return b.node == n
	})
	for range 2 + s.rnd.IntN(3) {
		s.pass()
		if n.away == nil && n.tainted {
			s.await(s.again(n))
		}
	}
	s.reap(n)
}

func (s *sim) setPresent(n *simNode, present bool) {
	s.note("object of %s: %v", n.NodeName, present)
	s.count["node object"]++
	if n.present {
		n.lost[n.object()] = s.clock
	}
	n.present = present
	if present {
		n.uid++
		s.api.AddNode(n.NodeName, n.object().uid)
	} else {
		s.api.DeleteNode(n.NodeName)
	}
}

// setTainted says of a node that it is out of service, though it may go on, or takes that back.
func (s *sim) setTainted(n *simNode, tainted bool) {
	s.note("%s is out of service: %v", n.NodeName, tainted)
	s.count["out of service"]++
	n.tainted = tainted
	s.api.SetOutOfService(n.NodeName, tainted)
	if tainted {
		n.lost[n.object()] = s.clock
	} else {
		delete(n.lost, n.object())
	}
}

func (n *simNode) object() incarnation {
	return incarnation{n.NodeName, types.UID(fmt.Sprint(n.NodeName, "-", n.uid))}
}

// reap is what a controller does for a node that is gone, or another, for long: it frees what the
// node had, if none of its pods is left.
func (s *sim) reap(n *simNode) {
	gone := map[incarnation]bool{}
	for in, since := range n.lost {
		if s.clock-since >= block.Grace && !slices.ContainsFunc(s.boxes, func(b *box) bool {
			return b.node == n && b.on == in.name
		}) {
			gone[in] = true
		}
	}
	if len(gone) == 0 {
		return
	}
	s.start(n, nil, "reap", func(ctx context.Context) {
		blocks, err := s.api.Blocks(ctx, metav1.ListOptions{})
		if err != nil {
			return
		}
		for i := range blocks {
			b := &blocks[i]
			stale := func(at *v1alpha1.Node) bool {
				return at != nil && gone[incarnation{at.NodeName, at.NodeUID}]
			}
			before := slices.Clone(b.Spec.Allocations)
			for i, e := range b.Spec.Allocations {
				if stale(e.Node) {
					b.Spec.Allocations[i] = v1alpha1.Allocation{Address: e.Address, Claim: e.Claim}
				}
			}
			b.Spec.Allocations = slices.DeleteFunc(b.Spec.Allocations, func(e v1alpha1.Allocation) bool {
				return e.Claim == nil && e.Node == nil
			})
			switch {
			case stale(b.Spec.Owner) ||
				b.Spec.Owner == nil && len(before) > 0 && len(b.Spec.Allocations) == 0:
				s.count["reaped"]++
				s.note("  reap %s: %v", b.Name, s.api.DeleteBlock(ctx, b))
			case !slices.Equal(before, b.Spec.Allocations):
				_, err := s.api.UpdateBlock(ctx, b)
				s.note("  reap entries of %s: %v", b.Name, err)
			}
		}
	})
}

func (s *sim) run() error {
	for range 40 + s.rnd.IntN(160) {
		s.act()
		for range s.rnd.IntN(12) {
			if len(s.ops) > 0 {
				s.step()
			}
		}
		if s.failure != nil {
			return s.failure
		}
	}
	s.finish()
	if s.rnd.IntN(2) == 0 {
		s.fill()
	}
	s.quiesce()
	return s.failure
}

// act does something at one of the nodes.
func (s *sim) act() {
	n := s.nodes[s.rnd.IntN(len(s.nodes))]
	switch x := s.rnd.IntN(100); {
	case x < 40:
		if len(s.boxes) < 40 && len(s.ops) < 6 && slices.ContainsFunc(s.nodes, func(n *simNode) bool {
			return !n.collecting
		}) {
			s.add(s.newBox())
		}
	case x < 65:
		if b := s.idleBox(); b != nil {
			s.del(b)
		}
	case x < 72: // the runtime tries again, or did not see the answer
		if b := s.idleBox(); b != nil {
			s.add(b)
		}
	case x < 76:
		if b := s.idleBox(); b != nil {
			s.check(b)
		}
	case x < 78:
		s.again(n)
	case x < 80:
		s.reserve(n)
	case x < 81:
		if n.timer {
			s.tick(n)
		}
	case x < 83:
		s.collect(n)
	case x < 84:
		s.reboot(n)
	case x < 86:
		s.arrive()
	case x < 87:
		s.api.Remember()
	default:
		s.happen(n, x)
	}
}

// happen is what befalls nodes.
func (s *sim) happen(n *simNode, x int) {
	switch {
	case x < 88:
		if s.deletes && n.present && !n.tainted {
			s.outage(n)
		}
	case x < 89:
		switch {
		case s.deletes && n.present && s.rnd.IntN(3) == 0:
			s.setTainted(n, !n.tainted)
		case s.deletes && !n.tainted:
			s.setPresent(n, !n.present)
		}
	case x < 91:
		s.reap(n)
	case x < 92:
		switch {
		case s.jumps:
			n.skew += time.Duration(s.rnd.IntN(7200)-3600) * time.Second
		case s.pauses:
			s.suspend(n)
		}
	case x < 93:
		if s.renames {
			s.rename(n)
		}
	case x < 94:
		if s.rnd.IntN(4) == 0 {
			s.forget(n)
		}
	case x < 96:
		s.cut(n)
	default:
		s.pass()
	}
}

// arrive makes requests that are on their way take effect.
func (s *sim) arrive() {
	there := map[string]bool{}
	for _, b := range s.api.All() {
		there[b.Name] = true
	}
	s.api.Arrive()
	for _, b := range s.api.All() {
		file := strings.ReplaceAll(b.Spec.CIDR, "/", "-")
		for _, n := range s.nodes {
			if !there[b.Name] && b.Spec.Owner != nil && b.Spec.Owner.NodeName == n.NodeName {
				known, _ := filepath.Glob(filepath.Join(n.Dir, "blocks", b.Spec.Space, "*", file))
				n.unsure = n.unsure || len(known) == 0
			}
		}
	}
}

// pass lets time go by: much only where nothing is under way.
func (s *sim) pass() {
	most := 20 * time.Minute
	for _, o := range s.ops {
		most = min(most, max(0, 2*time.Minute-(s.clock-o.started))/4)
	}
	if most > time.Minute {
		s.arrive() // no request is under way for that long
	}
	if most > 0 {
		s.clock += time.Duration(s.rnd.Int64N(int64(most)))
	}
}

// finish ends what is under way.
func (s *sim) finish() {
	s.calm = true
	for _, n := range s.nodes {
		n.away = nil
	}
	s.arrive()
	for i := 0; len(s.ops) > 0 && s.failure == nil; i++ {
		s.step()
		if i == 100_000 {
			s.fail("it does not end: %v", s.ops[0].name)
			break
		}
	}
	for _, n := range s.nodes {
		if n.tainted {
			s.setTainted(n, false)
		}
		if !n.present {
			s.setPresent(n, true)
		}
	}
}

// await runs an operation to its end, beside nothing else.
func (s *sim) await(o *simOp) {
	for i := 0; slices.Contains(s.ops, o) && s.failure == nil; i++ {
		s.goOn(o, "")
		if i == 20_000 {
			s.fail("%s does not end", o.name)
		}
	}
}

func (s *sim) empty() {
	for try := 0; len(s.boxes) > 0 && s.failure == nil; try++ {
		s.del(s.boxes[0])
		s.finish()
		if try == 200 {
			s.fail("%v cannot be given back", s.boxes[0].holder)
		}
	}
}

// each runs something at each node, to its end.
func (s *sim) each(what string, do func(context.Context, *simNode) error) {
	for _, n := range s.nodes {
		s.await(s.start(n, nil, what+" "+n.NodeName, func(ctx context.Context) {
			if err := do(ctx, n); err != nil {
				s.fail("%s of %s: %v", what, n.NodeName, err)
			}
		}))
	}
}

// fill assigns each address of a range, and then none. Some nodes have no traffic meanwhile; what
// they own of wide ranges is theirs.
func (s *sim) fill() {
	s.empty()
	s.api.Remember() // a list may be old, but not for ever
	s.each("gc", func(ctx context.Context, n *simNode) error { return n.GC(ctx, "net", nil) })
	for _, n := range s.nodes {
		if n.amnesia || n.unsure {
			s.reboot(n) // what was in use is known again
		}
	}
	for range 2 { // time for two operations after a boot
		s.clock += time.Minute
		s.each("del again", func(ctx context.Context, n *simNode) error { return n.Tend(ctx) })
	}
	if s.renames || s.deletes { // what is in the name of a node that is gone is free after a while
		s.clock += block.Grace
		for _, n := range s.nodes {
			s.reap(n)
			s.finish()
		}
	}
	s.count["filled"]++
	var active []*simNode
	quiet := map[string]bool{}
	for i, n := range s.nodes {
		switch {
		case i == 0 || s.rnd.IntN(3) > 0:
			active = append(active, n)
		case !n.timer:
			s.count["quiet"]++
			quiet[n.NodeName] = true
		}
	}
	w := s.windows[0][0]
	size := int(w.Window.Size())
	for _, b := range s.api.All() {
		if b.Spec.Space != w.Space {
			continue
		}
		p := netip.MustParsePrefix(b.Spec.CIDR)
		if b.Spec.Owner != nil && quiet[b.Spec.Owner.NodeName] && s.wide(b.Spec.Space, p) {
			for range w.Window.In(p) {
				size--
			}
		}
		// an Add that was killed may have taken one for the claim, too
		for _, e := range b.Spec.Allocations {
			if e.Claim != nil && w.Window.Contains(netip.MustParseAddr(e.Address)) {
				size--
			}
		}
	}
	for i := 0; i <= size && s.failure == nil; i++ {
		s.fillOne(i, size, w, active, quiet)
	}
}

// wide: a range of at least four blocks has the block, or there were times with one node.
func (s *sim) wide(space string, p netip.Prefix) bool {
	if s.deletes || s.renames || len(s.nodes) == 1 {
		return true
	}
	return slices.ContainsFunc(s.windows, func(wishes []block.Wish) bool {
		return slices.ContainsFunc(wishes, func(w block.Wish) bool {
			return w.Space == space && w.Window.Prefix().Overlaps(p) && w.Window.BlockCount(p.Bits()) >= 4
		})
	})
}

func (s *sim) fillOne(i, size int, w block.Wish, active []*simNode, quiet map[string]bool) {
	b := s.newBox()
	b.wishes, b.claim, b.node = []block.Wish{w}, nil, active[s.rnd.IntN(len(active))]
	b.on = b.node.NodeName
	if s.rnd.IntN(4) == 0 {
		s.await(s.reserve(active[s.rnd.IntN(len(active))]))
	}
	var err error
	for try := range 100 {
		s.await(s.start(b.node, nil, "fill "+b.holder.ContainerID, func(ctx context.Context) {
			var addrs []netip.Addr
			if addrs, err = b.node.Add(ctx, b.holder, b.wishes, nil); err == nil {
				s.given(b, addrs)
			}
			s.upkeep(ctx, b.node.Manager)
		}))
		if !errors.Is(err, block.ErrLater) || s.failure != nil ||
			i == size && errors.Is(err, block.ErrFull) && len(quiet) > 0 {
			break
		}
		s.note("fill %d, try %d: %v", i, try, err)
		s.api.Remember()
		s.clock += time.Duration(5+s.rnd.IntN(40)) * time.Second
		for _, n := range s.nodes {
			s.reap(n)
			s.finish()
			switch {
			case slices.Contains(active, n) && s.rnd.IntN(3) > 0:
				s.await(s.again(n))
			case n.timer:
				s.await(s.tick(n))
			}
		}
	}
	if i < size && err != nil || i == size && !errors.Is(err, block.ErrFull) {
		s.fail("address %d of %d: %v", i, size, err)
	}
}

// quiesce frees all. Nothing must be left.
func (s *sim) quiesce() {
	s.empty()
	s.api.Remember() // a list may be old, but not for ever
	s.each("gc", func(ctx context.Context, n *simNode) error { return n.GC(ctx, "net", nil) })
	for _, n := range s.nodes {
		// what is in use of a block whose claim arrives after that is not known before the next boot
		if n.amnesia || n.unsure || s.pauses {
			s.reboot(n)
		}
	}
	for range 5 { // the first only begins, after a boot
		s.clock += time.Hour
		s.api.Remember()
		s.each("del again", func(ctx context.Context, n *simNode) error { return n.Tend(ctx) })
		for _, n := range s.nodes {
			s.reap(n)
			s.finish()
		}
	}
	if s.failure != nil {
		return
	}
	blocks, err := s.api.Blocks(context.Background(), metav1.ListOptions{})
	if err != nil {
		s.fail("%v", err)
	}
	for _, b := range blocks {
		for _, e := range b.Spec.Allocations {
			if e.Claim == nil || e.ContainerID != "" {
				s.fail("%s is left: %+v", b.Name, e)
			}
		}
		if b.Spec.Owner != nil || len(b.Spec.Allocations) == 0 {
			s.fail("%s is left: %+v %+v", b.Name, b.Spec, b.Spec.Owner)
		}
	}
	for _, n := range s.nodes {
		for _, dir := range []string{"held", "blocks"} {
			_ = filepath.WalkDir(filepath.Join(n.Dir, dir),
				func(path string, d os.DirEntry, err error) error {
					if err == nil && !d.IsDir() {
						data, _ := os.ReadFile(path)
						s.fail("%s is left: %s", path, data)
					}
					return nil
				})
		}
	}
}
