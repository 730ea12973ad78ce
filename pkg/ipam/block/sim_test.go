package block_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
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

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	claimv1 "github.com/braid-cni/braid/pkg/api/ipamclaim/v1alpha1"
	"github.com/braid-cni/braid/pkg/ipam/alloc"
	"github.com/braid-cni/braid/pkg/ipam/block"
	"github.com/braid-cni/braid/pkg/ipam/block/blocktest"
)

// The simulation runs nodes against one API, in schedules that a seed says. Each operation is a goroutine that stops before each change of
// local state, before and after each request, and where it waits; one runs at a time, and the schedule says which goes on, and whether it
// fails there or is killed. BRAID_SIMULATION is the number of schedules, BRAID_SIMULATION_SEED the first of them.
//
// What must hold: no address is in use by two sandboxes, and when all is given back, nothing is left of it and each address can be given.
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
	descriptors(t) // from the first file on, two of the Go runtime are open, too
	before := descriptors(t)
	for seed := first; seed < first+uint64(schedules); seed++ {
		s := newSim(filepath.Join(dir, fmt.Sprint(seed)), seed)
		err := s.run()
		for what, n := range s.count {
			total[what] += n
		}
		if err != nil {
			t.Fatalf("BRAID_SIMULATION_SEED=%d: %v\n%s", seed, err, strings.Join(s.trace[max(0, len(s.trace)-2000):], "\n"))
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
	deletes bool // Node objects are deleted
	jumps   bool // clocks jump
	trace   []string
	failure error
	count   map[string]int
}

type simNode struct {
	*block.Manager
	boot int
	uid  int
	skew time.Duration
	// lost says since when the reaper sees that an object of the node is gone, or another, by the UID.
	lost    map[types.UID]time.Duration
	present bool
	// collecting: a GC is under way.
	collecting bool
}

// box is a sandbox.
type box struct {
	node   *simNode
	holder block.Holder
	wishes []block.Wish
	claim  *claimv1.IPAMClaim
	addrs  []netip.Addr
	busy   bool
	added  bool
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
		rnd: rand.New(rand.NewPCG(seed, 4)), dir: dir, api: blocktest.New(), parked: make(chan bool), live: map[string]*box{}, kept: map[string]types.UID{},
		clock: time.Hour, count: map[string]int{},
	}
	s.deletes, s.jumps = s.rnd.IntN(3) == 0, false
	s.jumps = !s.deletes && s.rnd.IntN(2) == 0
	s.api.Fault = s.fault
	for i := range 1 + s.rnd.IntN(4) {
		n := &simNode{lost: map[types.UID]time.Duration{}, present: true}
		n.Manager = &block.Manager{
			Objects: s.api, Dir: filepath.Join(dir, fmt.Sprint("n", i)), NodeName: fmt.Sprint("n", i), Log: slog.New(slog.NewTextHandler(simLog{s}, nil)),
			Now:  func() time.Time { return time.Unix(1e9, 0).Add(s.clock + n.skew) },
			Rand: s.rnd, Boot: func() (string, error) { return fmt.Sprint("boot-", n.boot), nil }, Patience: time.Second,
			Step:  func(change string) error { return s.park(change) },
			Sleep: func(_ context.Context, d time.Duration) error { s.clock += d; return s.park("sleep") },
		}
		s.api.AddNode(n.NodeName, types.UID(fmt.Sprint(n.NodeName, "-", n.uid)))
		s.nodes = append(s.nodes, n)
	}
	v4 := [][3]string{{"10.0.0.0/28"}, {"10.0.0.0/27"}, {"10.0.0.0/26"}, {"10.0.0.4/31"}, {"10.0.0.0/28", "10.0.0.5", "10.0.0.6"}, {"10.0.0.0/25", "10.0.0.14", "10.0.0.49"}}
	v6 := [][3]string{{"fd00::/124"}, {"fd00::/122"}, {"fd00::6/127"}}
	one := func(of [][3]string, space string) block.Wish {
		c := of[s.rnd.IntN(len(of))]
		var lo, hi netip.Addr
		if c[1] != "" {
			lo, hi = netip.MustParseAddr(c[1]), netip.MustParseAddr(c[2])
		}
		w, err := alloc.NewWindow(netip.MustParsePrefix(c[0]), lo, hi, nil, nil)
		if err != nil {
			panic(err)
		}
		return block.Wish{Space: space, Window: w}
	}
	a, b := block.SpaceOf("", ""), block.SpaceOf("other", "")
	s.windows = [][]block.Wish{{one(v4, a)}}
	for range s.rnd.IntN(3) {
		s.windows = append(s.windows, [][]block.Wish{
			{one(v4, a)}, {one(v6, a)}, {one(v4, a), one(v6, a)}, {one(v4, a), one(v4, a)}, {one(v4, b), one(v4, a)}, {one(v6, b)},
		}[s.rnd.IntN(6)])
	}
	if s.rnd.IntN(3) == 0 {
		c := &claimv1.IPAMClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "c", UID: "claim-1"}}
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
	s.trace = append(s.trace, fmt.Sprintf("%v ", s.clock.Round(time.Millisecond))+fmt.Sprintf(format, args...))
}

func (s *sim) fail(format string, args ...any) {
	if s.failure == nil {
		s.failure = fmt.Errorf(format, args...)
		s.note("FAILED %v", s.failure)
	}
}

var errAPI = errors.New("the API is away")

func (s *sim) fault(when, verb string) error { return s.park(when + " " + verb) }

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
		return errAPI
	case "late":
		return blocktest.ErrLate
	}
	return nil
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
	s.current = o
	o.resume <- how
	s.wait(o)
}

// step lets an operation that was chosen by chance go on, and perhaps fail or die.
func (s *sim) step() {
	o := s.ops[s.rnd.IntN(len(s.ops))]
	s.clock += time.Duration(s.rnd.IntN(20)) * time.Millisecond
	how := ""
	write := strings.HasSuffix(o.at, "create") || strings.HasSuffix(o.at, "update") || strings.HasSuffix(o.at, "delete")
	before, after := strings.HasPrefix(o.at, "before "), strings.HasPrefix(o.at, "after ")
	// A node that was deleted and cannot ask the API goes on as it is: that is as it should be, and may give what was freed.
	steady := s.calm || o.name == "reap"
	switch x := s.rnd.IntN(150); {
	case steady:
	case x < 2:
		how = "die"
	case x < 6 && (before || after) && len(o.node.lost) == 0:
		how = "fail"
	case x < 9 && before && write && len(o.node.lost) == 0:
		how = "late"
	}
	if o.at == "late create" || o.at == "late update" || o.at == "late delete" {
		how = []string{"die", "fail"}[s.rnd.IntN(2)]
	}
	s.goOn(o, how)
}

func (s *sim) add(b *box) {
	s.start(b.node, b, fmt.Sprintf("add %s on %s %v", b.holder.ContainerID, b.node.NodeName, b.wishes), func(ctx context.Context) {
		addrs, err := b.node.Add(ctx, b.holder, b.wishes, b.claim)
		s.note("  add %s: %v %v", b.holder.ContainerID, addrs, err)
		if err != nil {
			s.count["add failed"]++
			return
		}
		s.count["added"]++
		s.given(b, addrs)
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
		if other := s.live[key]; other != nil && other != b {
			s.fail("%s is that of both %v and %v", key, other.holder, b.holder)
		}
		if uid, ok := s.kept[key]; ok && (b.claim == nil || b.claim.UID != uid) {
			s.fail("%s is kept by claim %s, and that of %v", key, uid, b.holder)
		}
		if !w.Window.Contains(a) || w.Asked.IsValid() && a != w.Asked || slices.ContainsFunc(addrs[:i], func(x netip.Addr) bool { return x == a && b.wishes[slices.Index(addrs, x)].Space == w.Space }) {
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
		err := b.node.Del(ctx, b.holder.Attachment())
		s.note("  del %s: %v", b.holder.ContainerID, err)
		if err == nil {
			s.boxes = slices.DeleteFunc(s.boxes, func(x *box) bool { return x == b })
		}
	})
}

func (s *sim) newBox() *box {
	s.serial++
	n := s.nodes[s.rnd.IntN(len(s.nodes))]
	for n.collecting {
		n = s.nodes[s.rnd.IntN(len(s.nodes))]
	}
	b := &box{node: n, wishes: slices.Clone(s.windows[s.rnd.IntN(len(s.windows))])}
	b.holder = block.Holder{Network: "net", ContainerID: fmt.Sprint("c", s.serial), IfName: "net1", Pod: fmt.Sprint("default/p", s.serial)}
	switch {
	case len(s.claims) > 0 && s.rnd.IntN(3) == 0:
		b.claim = s.claims[0]
		if slices.ContainsFunc(s.boxes, func(o *box) bool { return o.claim == b.claim }) {
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

func (s *sim) tend(n *simNode) {
	s.start(n, nil, "tend "+n.NodeName, func(ctx context.Context) {
		var err error
		switch s.rnd.IntN(3) {
		case 0:
			err = n.Tend(ctx)
		case 1:
			err = n.Answer(ctx)
		case 2:
			err = n.Inspect(ctx)
		}
		s.note("  tend %s: %v", n.NodeName, err)
	})
}

// collect is a GC. The runtime does not call it beside other operations.
func (s *sim) collect(n *simNode) {
	var valid []block.Attachment
	for _, b := range s.boxes {
		switch {
		case b.node != n:
		case b.busy:
			return
		case b.added:
			valid = append(valid, b.holder.Attachment())
		}
	}
	if n.collecting {
		return
	}
	n.collecting = true
	s.start(n, nil, "gc "+n.NodeName, func(ctx context.Context) {
		defer func() { n.collecting = false }()
		s.note("  gc %s: %v", n.NodeName, n.GC(ctx, "net", valid))
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

func (s *sim) setPresent(n *simNode, present bool) {
	s.note("object of %s: %v", n.NodeName, present)
	s.count["node object"]++
	if n.present {
		n.lost[n.objectUID()] = s.clock
	}
	n.present = present
	if present {
		n.uid++
		s.api.AddNode(n.NodeName, n.objectUID())
	} else {
		s.api.DeleteNode(n.NodeName)
	}
}

func (n *simNode) objectUID() types.UID { return types.UID(fmt.Sprint(n.NodeName, "-", n.uid)) }

// reap is what a controller does for a node that is gone, or another, for long: it frees what the node had, if none of its pods is left.
func (s *sim) reap(n *simNode) {
	gone := map[types.UID]bool{}
	for uid, since := range n.lost {
		gone[uid] = s.clock-since >= block.Grace
	}
	if !slices.Contains(slices.Collect(maps.Values(gone)), true) || slices.ContainsFunc(s.boxes, func(b *box) bool { return b.node == n }) {
		return
	}
	s.start(n, nil, "reap", func(ctx context.Context) {
		blocks, err := s.api.Blocks(ctx, metav1.ListOptions{})
		if err != nil {
			return
		}
		for i := range blocks {
			b := &blocks[i]
			stale := func(at *v1alpha1.Node) bool { return at != nil && at.NodeName == n.NodeName && gone[at.NodeUID] }
			before := len(b.Spec.Allocations)
			b.Spec.Allocations = slices.DeleteFunc(b.Spec.Allocations, func(e v1alpha1.Allocation) bool { return e.Claim == nil && stale(e.Node) })
			switch {
			case stale(b.Spec.Owner) || b.Spec.Owner == nil && before > 0 && len(b.Spec.Allocations) == 0:
				s.count["reaped"]++
				s.note("  reap %s: %v", b.Name, s.api.DeleteBlock(ctx, b))
			case before != len(b.Spec.Allocations):
				_, err := s.api.UpdateBlock(ctx, b)
				s.note("  reap entries of %s: %v", b.Name, err)
			}
		}
		if n.present {
			maps.DeleteFunc(n.lost, func(uid types.UID, _ time.Duration) bool { return gone[uid] })
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
		if len(s.boxes) < 40 && len(s.ops) < 6 && slices.ContainsFunc(s.nodes, func(n *simNode) bool { return !n.collecting }) {
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
	case x < 82:
		s.tend(n)
	case x < 84:
		s.collect(n)
	case x < 86:
		s.reboot(n)
	case x < 88:
		s.api.Arrive()
	case x < 89:
		s.api.Remember()
	case x < 92:
		if s.deletes {
			s.setPresent(n, !n.present)
		}
	case x < 94:
		s.reap(n)
	case x < 95:
		if s.jumps {
			s.api.Arrive()
			n.skew += time.Duration(s.rnd.IntN(7200)-3600) * time.Second
		}
	default:
		s.pass()
	}
}

// pass lets time go by: much only where nothing is under way.
func (s *sim) pass() {
	most := 20 * time.Minute
	for _, o := range s.ops {
		most = min(most, max(0, 2*time.Minute-(s.clock-o.started))/4)
	}
	if most > time.Minute {
		s.api.Arrive() // no request is under way for that long
	}
	if most > 0 {
		s.clock += time.Duration(s.rnd.Int64N(int64(most)))
	}
}

// finish ends what is under way.
func (s *sim) finish() {
	s.calm = true
	s.api.Arrive()
	for i := 0; len(s.ops) > 0 && s.failure == nil; i++ {
		s.step()
		if i == 100_000 {
			s.fail("it does not end: %v", s.ops[0].name)
			break
		}
	}
	for i := range s.nodes {
		if n := s.nodes[i]; !n.present {
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

// fill gives each address of a range, and then none.
func (s *sim) fill() {
	s.empty()
	s.api.Remember() // a list may be old, but not for ever
	s.each("gc", func(ctx context.Context, n *simNode) error { return n.GC(ctx, "net", nil) })
	s.count["filled"]++
	w := s.windows[0][0]
	size := int(w.Window.Size())
	blocks, err := s.api.Blocks(context.Background(), metav1.ListOptions{FieldSelector: "spec.space=" + w.Space})
	if err != nil {
		s.fail("%v", err)
	}
	for _, b := range blocks { // an Add that was killed may have taken one for the claim, too
		for _, e := range b.Spec.Allocations {
			if e.Claim != nil && w.Window.Contains(netip.MustParseAddr(e.Address)) {
				size--
			}
		}
	}
	for i := 0; i <= size && s.failure == nil; i++ {
		b := s.newBox()
		b.wishes, b.claim = []block.Wish{w}, nil
		err = nil
		for try := range 40 {
			s.await(s.start(b.node, nil, "fill "+b.holder.ContainerID, func(ctx context.Context) {
				var addrs []netip.Addr
				if addrs, err = b.node.Add(ctx, b.holder, b.wishes, nil); err == nil {
					s.given(b, addrs)
				}
			}))
			if !errors.Is(err, block.ErrLater) || s.failure != nil {
				break
			}
			s.note("fill %d, try %d: %v", i, try, err)
			s.each("answer", func(ctx context.Context, n *simNode) error { return n.Answer(ctx) })
		}
		if i < size && err != nil || i == size && !errors.Is(err, block.ErrFull) {
			s.fail("address %d of %d: %v", i, size, err)
		}
	}
}

// quiesce gives all back; nothing must be left.
func (s *sim) quiesce() {
	s.empty()
	s.api.Remember() // a list may be old, but not for ever
	s.each("gc", func(ctx context.Context, n *simNode) error { return n.GC(ctx, "net", nil) })
	if s.jumps { // what is in use of a block whose claim arrives after that is not known before the next boot
		for _, n := range s.nodes {
			s.reboot(n)
		}
	}
	for range 3 {
		s.clock += time.Hour
		s.api.Remember()
		s.each("tend", func(ctx context.Context, n *simNode) error { return n.Tend(ctx) })
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
			_ = filepath.WalkDir(filepath.Join(n.Dir, dir), func(path string, d os.DirEntry, err error) error {
				if err == nil && !d.IsDir() {
					data, _ := os.ReadFile(path)
					s.fail("%s is left: %s", path, data)
				}
				return nil
			})
		}
	}
}
