package soak_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"sync"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

// How many former and past sandboxes a slot remembers.
const (
	mostFormer = 1
	mostPast   = 2
)

// operate does one thing to a pod, as far as it can be done to what the pod is.
func (s *soak) operate(at *slot, rng *rand.Rand) {
	dice, b := rng.IntN(100), at.now
	switch {
	case dice < 14 && len(at.former) > 0:
		s.delFormer(at, rng.IntN(len(at.former)), rng)
	case dice < 20 && len(at.past) > 0:
		s.delPast(at, rng.IntN(len(at.past)), rng)
	case b == nil:
		s.destroy(at) // of the one before: no runtime uses a namespace twice
		s.create(at)
		s.add(s.begin(at, podName(at.index)), rng)
	case b.state == live && dice < 45 && at.made:
		s.check(b, rng)
	case b.state == live && dice < 50 && at.made:
		s.addAgain(b, rng)
	// no runtime tries one again that it lost
	case b.state == failed && dice < 40 && at.made && !b.orphan:
		s.add(b, rng)
	case dice > 85 && len(at.former) < mostFormer && !without("forget"):
		s.forget(at)
	default:
		s.del(b, s.pathFor(b, rng), rng)
	}
}

// begin makes a sandbox whose ADD is still to come.
func (s *soak) begin(at *slot, pod string) *sandbox {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sandboxes++
	at.now = &sandbox{
		id: sandboxName(s.sandboxes), pod: pod, path: at.path, port: 10000 + s.sandboxes%20000, slot: at,
		state: failed, fresh: true, plain: s.plain,
	}
	s.known[at.now.id] = at.now
	return at.now
}

// sandboxName is such that names are in the order of the sandboxes.
func sandboxName(i int) string { return fmt.Sprintf("sb%06d", i) }

// oneOf draws a fault: mostly none.
func oneOf(rng *rand.Rand, faults ...fault) fault {
	i := rng.IntN(3 * len(faults))
	if i >= len(faults) || without(map[fault]string{
		kill: "kill", term: "term", stop: "stop", nsGone: "nsgone",
	}[faults[i]]) {
		return none
	}
	return faults[i]
}

// excused reports whether an operation may have been refused for what was done to it.
func (s *soak) excused(f fault) bool { return f == nsGone || f == term || s.window() != "" }

// delExcused is that for a DEL, which needs neither a namespace nor room: it makes some.
func (s *soak) delExcused(f fault) bool {
	w := s.window()
	return f == term || strings.Contains(w, "read-only") || strings.HasPrefix(w, "manifests")
}

func (s *soak) add(b *sandbox, rng *rand.Rand) {
	f := oneOf(rng, kill, kill, kill, term, stop, nsGone)
	b.plain = s.plain
	defer func() { b.fresh = false }()
	o := s.call("ADD", b, b.slot.path, f, rng, nil)
	switch {
	case o.ok():
		b.state = live
		s.attached(b)
	case o.killed || b.orphan || s.excused(f) || strings.Contains(o.err.Msg, "no address is free"):
	// it was killed when all was done
	case strings.Contains(o.err.Msg, "was attached already") && !b.fresh:
	default:
		s.violated(b, "ADD is refused for no reason: %v", o)
	}
}

// attached looks at a sandbox whose ADD has succeeded, and notes its addresses.
func (s *soak) attached(b *sandbox) {
	sp, err := look(b.slot.path)
	s.must(err)
	if sp == nil || !b.slot.made { // it was deleted meanwhile
		return
	}
	b.inode, b.addrs = sp.inode, sp.addrs
	if len(b.addrs) != 5 { // two on net1
		s.violated(b, "addresses %q after ADD, want five", b.addrs)
	}
	s.whole(b)
	if said := s.status(b); !slices.Equal(said, b.addrs) {
		s.violated(b, "network-status has %q, the kernel %q", said, b.addrs)
	}
	s.mu.Lock()
	var twice []string
	for _, a := range b.addrs {
		_, ip, _ := strings.Cut(a, " ")
		if other := s.has[ip]; other != nil && other != b {
			twice = append(twice, fmt.Sprintf("%s is that of %s, too: %q\n  %s",
				ip, other.id, s.had[ip], other.told()))
		}
		s.has[ip] = b
		s.had[ip] = append(s.had[ip], "given to "+b.id)
	}
	s.mu.Unlock()
	for _, t := range twice {
		s.violated(b, "an address is given twice: %s", t)
	}
}

// status are the addresses of the pod's network-status.
func (s *soak) status(b *sandbox) (addrs []string) {
	data, err := os.ReadFile(s.path("manifests/default_" + b.pod + ".network-status.json"))
	s.must(err)
	var list []nadv1.NetworkStatus
	s.must(json.Unmarshal(data, &list))
	for _, n := range list {
		for _, ip := range n.IPs {
			addrs = append(addrs, n.Interface+" "+ip)
		}
	}
	slices.Sort(addrs)
	return addrs
}

// releases takes back what attached noted: from now on others may have the addresses.
func (s *soak) releases(b *sandbox, why string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range b.addrs {
		_, ip, _ := strings.Cut(a, " ")
		if s.has[ip] == b {
			delete(s.has, ip)
			s.had[ip] = append(s.had[ip], "left by "+b.id+" by "+why)
		}
	}
	b.addrs = nil
}

// pathFor is the CNI_NETNS of a DEL: the namespace is there or gone, and the runtime passes its
// path or nothing.
func (s *soak) pathFor(b *sandbox, rng *rand.Rand) string {
	dice := rng.IntN(100)
	switch {
	case dice < 60:
	case dice < 85:
		s.destroy(b.slot)
	// without a path and a record nobody finds a namespace that lives
	case without("nopath"), b.orphan:
		s.destroy(b.slot)
		return ""
	default:
		return ""
	}
	return b.slot.path
}

// del is a DEL of the slot's sandbox.
func (s *soak) del(b *sandbox, path string, rng *rand.Rand) {
	at, wait := b.slot, func() {}
	if rng.IntN(10) == 0 && !without("twice") {
		// The runtime gave the first one up, and it goes on.
		b.note("two DELs at the same time")
		again := rand.New(rand.NewPCG(rng.Uint64(), 0)) //nolint:gosec // reproducible
		var wg sync.WaitGroup
		wg.Go(func() { s.call("DEL", b, path, oneOf(again, kill, stop), again, nil) })
		wait = wg.Wait
	}
	if s.remove(b, path, oneOf(rng, kill, kill, kill, term, stop, nsGone), rng, wait) {
		at.now = nil
	}
}

// remove is a DEL; it reports whether it succeeded, and then nothing may be left. wait is for what
// runs at the same time.
func (s *soak) remove(b *sandbox, path string, f fault, rng *rand.Rand, wait func()) bool {
	if b.state == live {
		b.state = leaving
	}
	s.releases(b, "DEL")
	o := s.call("DEL", b, path, f, rng, nil)
	wait()
	switch {
	case o.ok():
		s.over(b)
		return true
	case !o.killed && !s.delExcused(f):
		s.violated(b, "DEL is refused: %v", o)
	}
	return false
}

// over is for a sandbox that a DEL or GC has removed.
func (s *soak) over(b *sandbox) {
	b.state = over
	s.mu.Lock()
	delete(s.known, b.id)
	s.mu.Unlock()
	b.slot.past = append(b.slot.past, b)[max(0, len(b.slot.past)+1-mostPast):]
	s.nothingOf(b)
}

// delFormer is a DEL of a sandbox whose namespace is gone. The path may be another's by now.
func (s *soak) delFormer(at *slot, i int, rng *rand.Rand) {
	b := at.former[i]
	path := b.path
	if b.pathless || rng.IntN(3) == 0 {
		path = ""
	}
	if s.remove(b, path, oneOf(rng, kill, stop), rng, func() {}) {
		at.former = slices.Delete(at.former, i, i+1)
	}
	s.stillWhole(at, b)
}

// delPast repeats the DEL of a sandbox that is over. If that does not succeed, Braid may have begun
// to look for what it does not know to be gone, and another DEL has to come.
func (s *soak) delPast(at *slot, i int, rng *rand.Rand) {
	b := at.past[i]
	path := b.path
	if b.pathless || rng.IntN(3) == 0 {
		path = ""
	}
	f := oneOf(rng, kill, stop)
	o := s.call("DEL", b, path, f, rng, nil)
	if !o.ok() && !o.killed && !s.delExcused(f) {
		s.violated(b, "a repeated DEL is refused: %v", o)
	}
	if !o.ok() {
		b.state = leaving
		at.past = slices.Delete(at.past, i, i+1)
		at.former = append(at.former, b)
		s.mu.Lock()
		s.known[b.id] = b
		s.mu.Unlock()
	}
	s.stillWhole(at, b)
}

// stillWhole looks at the slot's sandbox after an operation on another that had its path.
func (s *soak) stillWhole(at *slot, other *sandbox) {
	if at.now != nil && at.now.state == live {
		at.now.note("DEL of %s, which had the path before", other.id)
		s.whole(at.now)
	}
}

// forget ends the namespace of a sandbox, as a node does that loses its runtime, and leaves the
// slot to another. Its addresses are nobody's from then on: Braid may remove it before its DEL if
// an operation on it was killed.
func (s *soak) forget(at *slot) {
	s.releases(at.now, "end of the namespace")
	at.now.note("forgotten, its namespace is gone")
	s.destroy(at)
	at.former = append(at.former, at.now)
	at.now = nil
}

func (s *soak) check(b *sandbox, rng *rand.Rand) {
	f := oneOf(rng, kill, stop)
	o := s.call("CHECK", b, b.slot.path, f, rng, nil)
	if !o.ok() && !o.killed && !b.orphan && !s.excused(f) {
		s.violated(b, "CHECK fails: %v", o)
	}
	s.whole(b)
}

// addAgain repeats an ADD, which changes nothing.
func (s *soak) addAgain(b *sandbox, rng *rand.Rand) {
	if o := s.call("ADD", b, b.slot.path, oneOf(rng, kill, stop), rng, nil); o.ok() {
		s.violated(b, "a second ADD succeeded")
	}
	s.whole(b)
}
