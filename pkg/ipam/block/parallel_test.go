package block_test

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/ipam/block"
	"github.com/braid-cni/braid/pkg/ipam/block/blocktest"
)

// parallelDir says that this process is one of several that TestParallelProcesses has started.
const parallelDir = "BRAID_PARALLEL_DIR"

// parallelManager makes a manager; its blocks need no API if that is nil.
func parallelManager(dir string, api *blocktest.Fake) *block.Manager {
	return &block.Manager{
		Store: api, Nodes: api, Dir: filepath.Join(dir, "state"), NodeName: "n0",
		Log:  slog.New(slog.DiscardHandler),
		Boot: func() (string, error) { return "boot", nil },
	}
}

// churn assigns and frees addresses, and marks each as its own meanwhile.
func churn(dir string, m *block.Manager, w block.Wish, name string, rounds int) error {
	for i := range rounds {
		h := block.Holder{
			ID: attachment.ID{Network: "net", ContainerID: fmt.Sprint(name, "-", i), IfName: "net1"},
		}
		addrs, err := m.Add(context.Background(), h, []block.Wish{w}, nil)
		if err != nil {
			return err
		}
		mark := filepath.Join(dir, strings.ReplaceAll(addrs[0].String(), ":", "-"))
		f, err := os.OpenFile(mark, os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			return fmt.Errorf("given twice: %w", err)
		}
		if err := f.Close(); err != nil {
			return err
		}
		time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
		if err := os.Remove(mark); err != nil {
			return err
		}
		if err := m.Del(context.Background(), h.ID); err != nil {
			return err
		}
	}
	return nil
}

// Goroutines that share a Manager, and those that do not.
func TestParallel(t *testing.T) {
	for _, cidr := range []string{"10.0.0.0/25", "10.0.0.0/24", "fd00::/64"} {
		dir, api, w := stateDir(t), blocktest.New(), wish(t, cidr)
		api.AddNode("n0", "uid")
		one := parallelManager(dir, api)
		var all sync.WaitGroup
		for i := range 64 {
			m := one
			if i%2 == 0 {
				m = parallelManager(dir, api)
			}
			all.Go(func() {
				if err := churn(dir, m, w, fmt.Sprint("c", i), 10); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if left := files(t, one, "held"); len(left) > 0 {
			t.Errorf("%q is left", left)
		}
	}
}

// Processes share one directory, and the blocks that the first of them has claimed.
func TestParallelProcesses(t *testing.T) {
	const processes, each = 4, 16
	if dir := os.Getenv(parallelDir); dir != "" {
		var all sync.WaitGroup
		for i := range each {
			all.Go(func() {
				err := churn(dir, parallelManager(dir, nil), wish(t, "10.0.0.0/24"),
					fmt.Sprint("p", os.Getpid(), "-", i), 10)
				if err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		return
	}
	dir, api := stateDir(t), blocktest.New()
	api.AddNode("n0", "uid")
	m := parallelManager(dir, api)
	for i := range processes * each {
		_, err := m.Add(t.Context(), holder(i), []block.Wish{wish(t, "10.0.0.0/24")}, nil)
		if err != nil {
			t.Fatal(err)
		}
	}
	for i := range processes * each {
		if err := m.Del(t.Context(), holder(i).ID); err != nil {
			t.Fatal(err)
		}
	}
	var all sync.WaitGroup
	for range processes {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestParallelProcesses$")
		cmd.Env = append(os.Environ(), parallelDir+"="+dir)
		all.Go(func() {
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
		})
	}
	all.Wait()
	if left := files(t, m, "held"); len(left) > 0 {
		t.Errorf("%q is left", left)
	}
}

// filled is a node with n addresses in use.
func filled(b *testing.B, n int) (*block.Manager, block.Wish) {
	dir, err := os.MkdirTemp("/dev/shm", "braid-bench") //nolint:usetesting // in memory, as /run is
	if err != nil {
		dir = stateDir(b)
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	api := blocktest.New()
	api.AddNode("n0", "uid")
	m := parallelManager(dir, api)
	w := wish(b, "10.0.0.0/8")
	for i := range n {
		if _, err := m.Add(b.Context(), holder(i), []block.Wish{w}, nil); err != nil {
			b.Fatal(err)
		}
	}
	return m, w
}

func BenchmarkAddDel(b *testing.B) {
	for _, n := range []int{0, 1000, 60000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			m, w := filled(b, n)
			h := holder(-1)
			for b.Loop() {
				if _, err := m.Add(b.Context(), h, []block.Wish{w}, nil); err != nil {
					b.Fatal(err)
				}
				if err := m.Del(b.Context(), h.ID); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkParallelAdd is 64 Adds at once.
func BenchmarkParallelAdd(b *testing.B) {
	for _, n := range []int{0, 60000} {
		b.Run(strconv.Itoa(n), func(b *testing.B) {
			m, w := filled(b, n)
			round, start, adds := 0, time.Now(), 0
			for b.Loop() {
				round++
				var all sync.WaitGroup
				for i := range 64 {
					all.Go(func() {
						_, err := m.Add(b.Context(), block.Holder{
							ID: attachment.ID{Network: "n", ContainerID: fmt.Sprint(round, "-", i), IfName: "e"},
						}, []block.Wish{w}, nil)
						if err != nil {
							b.Error(err)
						}
					})
				}
				all.Wait()
				adds += 64
			}
			b.ReportMetric(float64(adds)/time.Since(start).Seconds(), "adds/s")
		})
	}
}
