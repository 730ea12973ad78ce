// Package lead elects one of several processes, by client-go's leader election on a Lease. It is
// apart from package kube because the API types that come with it are megabytes, which a process
// for every pod does not carry.
package lead

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/uuid"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"

	"github.com/braid-cni/braid/pkg/kube"
)

// A leader that is heard of no more is replaced after leaseFor; one that cannot renew its lease
// stops after renewFor.
const (
	leaseFor   = 15 * time.Second
	renewFor   = 10 * time.Second
	retryAfter = 2 * time.Second
)

// ErrLost means that another may lead now.
var ErrLost = errors.New("the lease is lost")

// Election is one of all processes that name the same Lease.
type Election struct {
	API *kube.API
	// Namespace and Name are those of the Lease.
	Namespace, Name string
	Log             *slog.Logger
}

// Run waits until this process leads and then does the work, whose context is done when it leads no
// more. It returns after the work has: nil when ctx is done, and then the lease is given back;
// ErrLost if it could not be renewed. Another may begin its work before this one has ended.
func (e *Election) Run(ctx context.Context, work func(context.Context)) error {
	var working sync.Mutex
	over := false
	elector, err := e.elector(func(ctx context.Context) {
		working.Lock()
		defer working.Unlock()
		if !over {
			work(ctx)
		}
	})
	if err != nil {
		return fmt.Errorf("lease %s/%s: %w", e.Namespace, e.Name, err)
	}
	elector.Run(ctx)
	working.Lock()
	defer working.Unlock()
	over = true
	if ctx.Err() == nil {
		return fmt.Errorf("lease %s/%s: %w", e.Namespace, e.Name, ErrLost)
	}
	return nil
}

// elector takes part in the election by a Lease. It releases the Lease when it ends.
func (e *Election) elector(work func(context.Context)) (*leaderelection.LeaderElector, error) {
	config, err := e.API.RESTConfig()
	if err != nil {
		return nil, err
	}
	config.Timeout = renewFor / 2
	client, err := coordinationv1.NewForConfig(config)
	if err != nil {
		return nil, err
	}
	host, err := os.Hostname()
	if err != nil {
		return nil, fmt.Errorf("read hostname: %w", err)
	}
	identity := host + "_" + string(uuid.NewUUID())
	return leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: &resourcelock.LeaseLock{
			LeaseMeta: metav1.ObjectMeta{Namespace: e.Namespace, Name: e.Name}, Client: client,
			LockConfig: resourcelock.ResourceLockConfig{Identity: identity},
		},
		LeaseDuration: leaseFor, RenewDeadline: renewFor, RetryPeriod: retryAfter, ReleaseOnCancel: true,
		Name: e.Name,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: work,
			OnStoppedLeading: func() {},
			OnNewLeader: func(leader string) {
				e.Log.Info("there is a leader", "leader", leader, "me", identity)
			},
		},
	})
}
