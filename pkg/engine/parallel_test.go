package engine_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/braid-cni/braid/pkg/engine"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/nettest"
)

const (
	sandboxes = 64
	// workers are at work on one sandbox, each with some operations.
	workers, operations = 8, 6
)

// TestSandboxesShareNothing: none of the ADDs ends before all of them are in the plugin.
func TestSandboxesShareNothing(t *testing.T) {
	n := newNode(t)
	n.timeout("60s")
	n.conf["delegates"] = []any{network("pods"), network("more")}
	var pods []*pod
	var spaces []*nettest.Namespace
	var requests []*engine.Request
	for i := range sandboxes {
		p := n.sandbox(fmt.Sprintf("id-%d", i))
		pods, spaces, requests = append(pods, p), append(spaces, p.Namespace), append(requests,
			n.request(p))
	}
	var arrived atomic.Int32
	all := make(chan struct{})
	n.plugin.on("ADD eth0", func(ctx context.Context, _ *call) error {
		if arrived.Add(1) == sandboxes {
			close(all)
		}
		select {
		case <-all:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	})
	atOnce(t, requests, func(req *engine.Request) error {
		_, err := n.engine.Add(t.Context(), req)
		return err
	})
	for _, p := range pods {
		same(t, "links of "+p.id, p.interfaces(), []string{"eth0", "net1"})
	}
	atOnce(t, requests, func(req *engine.Request) error { return n.engine.Check(t.Context(), req) })
	atOnce(t, requests, func(req *engine.Request) error { return n.engine.Del(t.Context(), req) })
	n.left(pods)
	same(t, "overlaps", n.plugin.overlaps, nil)
	nettest.NoThreadIn(t, spaces...)
}

// atOnce does something for all requests at the same time.
func atOnce(t *testing.T, requests []*engine.Request, do func(*engine.Request) error) {
	t.Helper()
	var wg sync.WaitGroup
	for _, req := range requests {
		wg.Go(func() {
			if err := do(req); err != nil {
				t.Errorf("%s: %v", req.ContainerID, err)
			}
		})
	}
	wg.Wait()
}

// TestOperationsOnOneSandboxAreSerialised: no two calls of the plugin for the same sandbox overlap,
// whatever is asked in what order.
func TestOperationsOnOneSandboxAreSerialised(t *testing.T) {
	n := newNode(t)
	n.nads("a")
	p := n.pod("p", "a")
	for _, name := range []string{
		"ADD eth0", "ADD net1", "CHECK eth0", "CHECK net1", "DEL net1", "DEL eth0",
	} {
		n.plugin.on(name, func(context.Context, *call) error {
			time.Sleep(time.Millisecond)
			return nil
		})
	}
	req := n.request(p)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for range operations {
				if err := n.anything(t.Context(), req); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	same(t, "overlaps", n.plugin.overlaps, nil)
	n.must(n.del(p))
	n.left([]*pod{p})
}

// anything does an operation by chance, and returns its error unless it follows from what others
// did.
func (n *node) anything(ctx context.Context, req *engine.Request) error {
	switch rand.IntN(3) {
	case 0:
		_, err := n.engine.Add(ctx, req)
		if failure.ReasonOf(err) == failure.InterfaceConflict {
			return nil // it is attached
		}
		return err
	case 1:
		err := n.engine.Check(ctx, req)
		if failure.ReasonOf(err) == failure.UnknownSandbox {
			return nil // it is not
		}
		return err
	}
	return n.engine.Del(ctx, req)
}
