package plugintest

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
)

// fuse is a context that ends when it has been looked at a number of times.
type fuse struct {
	context.Context
	left atomic.Int64
}

// Err is nil as often as the fuse has steps left: nl and sysctl ask before each change.
func (f *fuse) Err() error {
	if f.left.Add(-1) < 0 {
		return context.Canceled
	}
	return f.Context.Err()
}

// faults bounds the steps that an ADD can have.
const faults = 1000

// FailEachStep runs ADD with a context that ends before its first step, before its second and so
// on, until it succeeds: each request to the kernel looks at its context. After each failure state
// must be what it was before. It says how many steps failed.
func (p *Pod) FailEachStep(tb testing.TB, conf Conf, state func() string) int {
	tb.Helper()
	before := state()
	defer func() { p.Ctx = nil }()
	for step := range faults {
		f := &fuse{Context: tb.Context()}
		f.left.Store(int64(step))
		p.Ctx = f //nolint:fatcontext // not one around the other, but one after the other
		_, err := p.Add(conf)
		if err == nil {
			return step
		}
		if !errors.Is(err, context.Canceled) {
			tb.Fatalf("ADD fails for another reason after %d steps: %v", step, err)
		}
		if now := state(); now != before {
			tb.Fatalf("after a failure of step %d:\n%s\nwant\n%s", step, now, before)
		}
	}
	tb.Fatalf("ADD has more than %d steps", faults)
	return 0
}
