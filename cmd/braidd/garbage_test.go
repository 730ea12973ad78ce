package main

import (
	"os"
	"os/exec"
	"runtime"
	"runtime/metrics"
	"strings"
	"testing"
	"time"
)

func TestGarbagePercent(t *testing.T) {
	for _, c := range []struct {
		name    string
		inUse   uint64
		percent int
	}{
		{"nothing", 0, mostPercent},
		{"little", 1 << 20, mostPercent},
		{"a few NADs", 6 << 20, 200},
		{"as much as the room", garbageRoom, 100},
		{"thousands of NADs", 24 << 20, 50},
		{"too much", 1 << 40, leastPercent},
	} {
		if got := garbagePercent(c.inUse); got != c.percent {
			t.Errorf("%s: %d %%, want %d", c.name, got, c.percent)
		}
	}
}

// TestGarbageRoom: the share follows what is in use, down and up. It is the whole process's, so the
// test has one of its own.
func TestGarbageRoom(t *testing.T) {
	if os.Getenv("BRAID_GARBAGE") == "" {
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestGarbageRoom$")
		cmd.Env = append(os.Environ(), "BRAID_GARBAGE=1", "GOGC=")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "PASS") {
			t.Errorf("%v: %s", err, out)
		}
		return
	}
	keepGarbageRoom()
	percent := func() uint64 {
		s := []metrics.Sample{{Name: "/gc/gogc:percent"}}
		metrics.Read(s)
		return s[0].Value.Uint64()
	}
	collect := func(want func(uint64) bool) {
		t.Helper()
		for until := time.Now().Add(10 * time.Second); !want(percent()); {
			if time.Now().After(until) {
				t.Fatalf("it stays %d %%", percent())
			}
			runtime.GC()
			time.Sleep(time.Millisecond)
		}
	}
	collect(func(p uint64) bool { return p > 200 })
	nads := make([]byte, 4*garbageRoom)
	collect(func(p uint64) bool { return p <= leastPercent })
	runtime.KeepAlive(nads)
	collect(func(p uint64) bool { return p > 200 })
}
