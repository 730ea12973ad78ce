package hotplug_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/braid-cni/braid/pkg/agent/hotplug"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

// node notes what pods are brought to. The time is that of the test's bubble.
type node struct {
	*hotplug.Controller

	t  *testing.T
	mu sync.Mutex
	// fails and strange are pods that cannot be updated, and that are not Braid's.
	fails, strange map[types.UID]bool
	begun          time.Time
	updates        []string
	// gate, if set, is closed to let updates go on.
	gate chan struct{}
}

// run has a test run with a controller on a node.
func run(t *testing.T, test func(t *testing.T, n *node)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := &node{t: t, fails: map[types.UID]bool{}, strange: map[types.UID]bool{}, begun: time.Now()}
		n.Controller = &hotplug.Controller{Update: n.update, Log: slog.New(slog.DiscardHandler)}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			n.Run(ctx)
		}()
		test(t, n)
		cancel()
		<-ended
	})
}

func (n *node) update(_ context.Context, pod *metav1.ObjectMeta) (bool, error) {
	n.mu.Lock()
	n.updates = append(n.updates,
		time.Since(n.begun).String()+" "+string(pod.UID)+" "+pod.Annotations[nadv1.NetworksAnnotation])
	fails, strange, gate := n.fails[pod.UID], n.strange[pod.UID], n.gate
	n.mu.Unlock()
	if gate != nil {
		<-gate
	}
	if fails {
		return false, errors.New("told to fail")
	}
	return !strange, nil
}

// changes says that a pod asks for networks.
func (n *node) changes(uid, networks string) {
	n.Changed(&metav1.ObjectMeta{
		UID: types.UID(uid), Annotations: map[string]string{nadv1.NetworksAnnotation: networks},
	})
}

// after fails the test unless these are the updates after that time.
func (n *node) after(wait time.Duration, want ...string) {
	n.t.Helper()
	time.Sleep(wait)
	synctest.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	slices.Sort(n.updates)
	if !slices.Equal(n.updates, want) {
		n.t.Errorf("after %v: updates %q, want %q", time.Since(n.begun), n.updates, want)
	}
	n.updates = nil
}

// A pod is updated once for each annotation, and one that is not Braid's whenever it changes.
func TestOncePerAnnotation(t *testing.T) {
	t.Parallel()
	run(t, func(_ *testing.T, n *node) {
		n.strange["multus"] = true
		n.changes("p", "a")
		n.changes("multus", "a")
		n.after(0, "0s multus a", "0s p a")
		n.changes("p", "a") // its status changed
		n.changes("multus", "a")
		n.after(0, "0s multus a")
		n.changes("p", "a,b")
		n.changes("q", "")
		n.after(time.Hour, "0s p a,b", "0s q ")
		n.Gone(&metav1.ObjectMeta{UID: "p"})
		n.changes("p", "a,b")
		n.after(0, "1h0m0s p a,b")
	})
}

// What fails is tried again with back-off, and at once when the annotation changes.
func TestBackOff(t *testing.T) {
	t.Parallel()
	run(t, func(_ *testing.T, n *node) {
		n.fails["p"] = true
		n.changes("p", "a")
		n.after(time.Minute, "0s p a", "10s p a", "30s p a")
		n.changes("p", "a") // its events may have changed it; that is no reason to hurry
		n.after(9*time.Minute, "1m10s p a", "2m30s p a", "5m10s p a")
		n.fails["p"] = false
		n.changes("p", "b")
		n.after(time.Hour, "10m0s p b")
	})
}

// A change during an update is not lost, and does not begin a second one beside it.
func TestChangeDuringUpdate(t *testing.T) {
	t.Parallel()
	run(t, func(_ *testing.T, n *node) {
		n.gate = make(chan struct{})
		n.changes("p", "a")
		n.after(time.Second, "0s p a")
		n.changes("p", "b")
		n.after(time.Second)
		close(n.gate)
		n.after(0, "2s p b")
	})
}

// Pods that hang keep four hands busy, and the others wait.
func TestAtOnce(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, n *node) {
		n.gate = make(chan struct{})
		for _, uid := range []string{"1", "2", "3", "4", "5"} {
			n.changes(uid, "a")
		}
		synctest.Wait()
		n.mu.Lock()
		if len(n.updates) != 4 {
			t.Errorf("%d updates at once", len(n.updates))
		}
		n.updates = nil
		n.mu.Unlock()
		close(n.gate)
		synctest.Wait()
		if len(n.updates) != 1 {
			t.Errorf("%d updates after that, want the fifth", len(n.updates))
		}
	})
}

// The pod of a sandbox that is on its way down is left alone.
func TestDeleted(t *testing.T) {
	t.Parallel()
	run(t, func(_ *testing.T, n *node) {
		n.fails["p"] = true
		n.changes("p", "a")
		n.after(0, "0s p a")
		now := metav1.Now()
		n.Changed(&metav1.ObjectMeta{UID: "p", DeletionTimestamp: &now})
		n.after(time.Hour)
	})
}
