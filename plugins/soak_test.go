package plugins_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/plugin/plugintest"
)

const (
	soakCycles  = 1000
	soakWorkers = 16
)

// TestSoak attaches and detaches pods in one process, many at a time: what the process holds is
// back where it was.
func TestSoak(t *testing.T) {
	n := plugintest.New(t, ours())
	n.Host.Veth("nic0", nettest.New(t), "wire")
	pods := make([]*plugintest.Pod, soakWorkers)
	spaces := make([]*nettest.Namespace, 0, soakWorkers)
	for i := range pods {
		pods[i] = n.Pod(fmt.Sprintf("c%d", i))
		spaces = append(spaces, pods[i].Namespace)
	}
	chain := func(i int) []conf {
		return []conf{
			{"type": "macvlan", "master": "nic0", "ipam": conf{
				"type": "host-local", "dataDir": filepath.Join(n.Dir, "leases"),
				"ranges": list{list{conf{"subnet": "10.1.0.0/16"}}, list{conf{"subnet": "fd00::/64"}}},
			}},
			{"type": "sbr"},
			{"type": "tuning", "dataDir": filepath.Join(n.Dir, "tuning"), "mtu": 1400 - i},
		}
	}
	cycle := func(worker, i int) error {
		p := pods[worker]
		p.Prev = nil
		s := &side{pod: p, chain: chain(i % 8)}
		if _, err := add(s); err != nil {
			return err
		}
		_, err := after("DEL")(s)
		return err
	}
	run := func(cycles int) {
		var wg sync.WaitGroup
		for worker := range soakWorkers {
			wg.Go(func() {
				for i := range cycles / soakWorkers {
					if err := cycle(worker, i); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
	}
	run(2 * soakWorkers) // what is made once is made
	before, held := state(t, pods[0], everything), holds(t)
	run(soakCycles)
	deadline := time.Now().Add(10 * time.Second)
	for now := holds(t); now.goroutines > held.goroutines && time.Now().
		Before(deadline); now = holds(t) {
		time.Sleep(50 * time.Millisecond)
	}
	// The Go runtime keeps threads for later, as many as worked at once.
	now := holds(t)
	if now.goroutines > held.goroutines || now.descriptors > held.descriptors ||
		now.threads > held.threads+soakWorkers || now.megabytes > held.megabytes+8 {
		t.Errorf("the process holds %+v, before %+v", now, held)
	}
	nettest.NoThreadIn(t, spaces...)
	for _, line := range state(t, pods[0], everything) {
		if !contains(before, line) && !isLastReserved(line) {
			t.Errorf("left: %s", line)
		}
	}
}

func contains(lines []string, line string) bool {
	for _, l := range lines {
		if l == line {
			return true
		}
	}
	return false
}

// isLastReserved reports whether the line is of a file that says where the next allocation begins.
func isLastReserved(line string) bool {
	match, _ := filepath.Match("file DIR/leases/net/last_reserved_ip.* *", line)
	return match
}

// holdings are what a process may leak.
type holdings struct{ goroutines, descriptors, threads, megabytes int }

func holds(t *testing.T) holdings {
	t.Helper()
	runtime.GC()
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	count := func(dir string) int {
		entries, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	return holdings{
		goroutines: runtime.NumGoroutine(), descriptors: count("/proc/self/fd"),
		threads: count("/proc/self/task"), megabytes: int(memory.HeapAlloc >> 20),
	}
}
