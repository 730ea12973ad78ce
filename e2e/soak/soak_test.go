package soak_test

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/braid-cni/braid/pkg/nettest"
)

const (
	// slots are how many pods the node has at most.
	slots = 16
	// eventEach is after how many operations something happens to the whole node.
	eventEach = 25
	// The short form is the same each time, as far as it can be. Operations end after shortFor even
	// if there are more to come, and those of a long one after longFor.
	shortOps, shortSeed = 250, 2
	shortFor, longFor   = 12 * time.Second, 18 * time.Minute
	// progressEach is after how many it is said how far the run is.
	progressEach = 1000
	// mostViolations are enough.
	mostViolations = 5
)

// soak is a run.
type soak struct {
	*node
	seed uint64
	ops  int64
	next atomic.Int64
	done atomic.Int64
	// until is when there are no more.
	until time.Time
	// gate is held for reading by operations, and for writing by what happens to the whole node.
	gate sync.RWMutex
	// slots are changed under their locks, or under the gate's for writing.
	slots []*slot

	mu sync.Mutex
	// has are the live sandboxes by their addresses, and had what became of each address.
	has map[string]*sandbox
	had map[string][]string
	// known are the sandboxes that are not over.
	known map[string]*sandbox
	stats map[string]int
	// times are how long operations take, by their commands.
	times      map[string]time.Duration
	disk       string // what is wrong with the file systems
	heal       func()
	violations int
	sandboxes  int
	// lossy: since the last boot, Braid's state was lost.
	lossy bool
	// booted is the last sandbox of before a boot.
	booted string
	// plain: the networks are without their auxiliary plugins now.
	plain bool
}

// without reports whether the run is without something that can happen, so that one finds out what
// matters.
func without(what string) bool {
	return slices.Contains(strings.Split(os.Getenv("BRAID_SOAK_WITHOUT"), ","), what)
}

func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(cmp.Or(os.Getenv(name), fmt.Sprint(otherwise)), 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

func TestSoak(t *testing.T) {
	nettest.NeedsRoot(t)
	seed := number(t, "BRAID_SOAK_SEED", shortSeed)
	s := &soak{
		node: newNode(t, slots, seed), seed: seed,
		ops: int64(number(t, "BRAID_SOAK_OPS", shortOps)), has: map[string]*sandbox{},
		had:   map[string][]string{},
		known: map[string]*sandbox{}, stats: map[string]int{}, times: map[string]time.Duration{},
	}
	t.Logf("BRAID_SOAK_SEED=%d BRAID_SOAK_OPS=%d", s.seed, s.ops)
	for i := range slots {
		s.slots = append(s.slots,
			&slot{index: i, path: filepath.Join(netnsDir, fmt.Sprintf("ns-%02d", i))})
	}
	start := time.Now()
	s.until = start.Add(longFor)
	if os.Getenv("BRAID_SOAK_OPS") == "" {
		s.until = start.Add(shortFor)
	}
	var wg sync.WaitGroup
	defer s.keepLog()
	for range number(t, "BRAID_SOAK_WORKERS", 6) {
		wg.Go(s.work)
	}
	wg.Wait()
	took := time.Since(start)
	if s.violations == 0 {
		s.end()
	}
	t.Logf("%d operations in %v, %d sandboxes, all removed in %v\n%s",
		s.done.Load(), took.Round(time.Second), s.sandboxes,
		(time.Since(start) - took).Round(time.Second), s.table())
}

// keepLog copies what Braid has logged to where it is wanted.
func (s *soak) keepLog() {
	to := os.Getenv("BRAID_SOAK_LOG")
	if to == "" {
		return
	}
	data, err := os.ReadFile(s.path("braid.log"))
	if err == nil {
		err = os.WriteFile(to, data, 0o600)
	}
	if err != nil {
		s.t.Error(err)
	}
}

// work does one operation after the other. Which one, and on which pod, follows from the seed and
// the operation's number.
func (s *soak) work() {
	for {
		i := s.next.Add(1)
		if i > s.ops || s.enough() || time.Now().After(s.until) {
			return
		}
		s.step(i)
		s.done.Add(1)
		if i%progressEach == 0 {
			s.t.Logf("%d operations", i)
		}
	}
}

// step lets go of its locks also where it ends the test.
func (s *soak) step(i int64) {
	rng := rand.New(rand.NewPCG(s.seed, uint64(i))) //nolint:gosec // reproducible
	if i%eventEach == 0 {
		s.gate.Lock()
		defer s.gate.Unlock()
		s.event(rng)
		return
	}
	at := s.slots[rng.IntN(len(s.slots))]
	s.gate.RLock()
	defer s.gate.RUnlock()
	at.mu.Lock()
	defer at.mu.Unlock()
	s.operate(at, rng)
}

func (s *soak) enough() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.violations >= mostViolations || s.t.Failed() && s.violations == 0
}

// violated reports what must not be, with all that happened to the sandbox, and what Braid logged
// about it.
func (s *soak) violated(b *sandbox, format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.violations++
	what := fmt.Sprintf(format, args...)
	if b != nil && b.reported {
		return
	}
	if b != nil {
		b.reported = true
		what += "\n  " + b.told() + s.logged(b.id)
	}
	s.t.Errorf("seed %d, about operation %d: %s", s.seed, s.next.Load(), what)
}

// logged are the last lines of the log about a sandbox.
func (s *soak) logged(id string) string {
	data, _ := os.ReadFile(s.path("braid.log"))
	var lines []string
	for line := range strings.Lines(string(data)) {
		if strings.Contains(line, id) {
			lines = append(lines, fmt.Sprintf("\n    log: %.500s", strings.TrimSpace(line)))
		}
	}
	return strings.Join(lines[max(0, len(lines)-30):], "")
}

func (s *soak) count(what string, o outcome) {
	s.mu.Lock()
	defer s.mu.Unlock()
	result := "ok"
	switch {
	case o.killed:
		result = "killed"
	case o.err != nil:
		result = "refused"
	}
	s.stats[what+": "+result]++
}

// table is how often each operation ended in which way.
func (s *soak) table() string {
	var b strings.Builder
	for _, k := range slices.Sorted(maps.Keys(s.stats)) {
		fmt.Fprintf(&b, "  %6d  %s\n", s.stats[k], k)
	}
	return b.String()
}

// window is what is wrong with the file systems now.
func (s *soak) window() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.disk
}
