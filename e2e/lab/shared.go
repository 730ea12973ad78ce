package lab

import (
	"fmt"
	"os"
	"sync"
	"testing"
)

// Lab is what this package starts: an *API or a *Cluster.
type Lab interface {
	Stop() error
	Logs() string
}

// Shared is a lab for all tests of a package, started by the first that asks and stopped by
// TestMain:
//
//	var api = lab.NewShared(lab.NewAPI)
//
//	func TestMain(m *testing.M) { os.Exit(api.Main(m)) }
//
//	func TestX(t *testing.T) { a := api.Get(t); ... }
type Shared[T Lab] struct {
	once  sync.Once
	start func() (T, error)
	lab   T
	err   error
}

// NewShared returns a lab that start will start.
func NewShared[T Lab](start func() (T, error)) *Shared[T] {
	return &Shared[T]{start: start}
}

// Get returns the running lab, and has the ends of its logs printed if the test fails.
func (s *Shared[T]) Get(tb testing.TB) T {
	tb.Helper()
	s.once.Do(func() { s.lab, s.err = s.start() })
	if s.err != nil {
		tb.Fatalf("start lab: %v", s.err)
	}
	tb.Cleanup(func() {
		if tb.Failed() {
			tb.Logf("the lab's logs end:\n%s", s.lab.Logs())
		}
	})
	return s.lab
}

// Stop stops the lab if it was started. It cannot be started again.
func (s *Shared[T]) Stop() error {
	started := true
	s.once.Do(func() { started = false })
	if started && s.err == nil {
		return s.lab.Stop()
	}
	return nil
}

// Main runs the tests of a package and stops the lab after them. It returns the exit status for
// TestMain. A panic in a test ends the process without coming here; the kernel then takes the lab
// down.
func (s *Shared[T]) Main(m *testing.M) int {
	status := m.Run()
	if err := s.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "stop lab:", err)
		return max(status, 1)
	}
	return status
}

// stopFor stops the lab of a single test.
func stopFor[T Lab](tb testing.TB, s *Shared[T]) {
	tb.Helper()
	if err := s.Stop(); err != nil {
		tb.Errorf("stop lab: %v", err)
	}
}
