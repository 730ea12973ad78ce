package engine

import (
	"context"
	"encoding/json"
	"sync"

	"golang.org/x/sync/errgroup"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/plan"
)

// podAnnotations is the capability by which containerd and CRI-O pass on a pod's annotations.
const podAnnotations = "io.kubernetes.cri.pod-annotations"

// lookups are those of one operation, which fetches each NAD once.
type lookups struct {
	engine *Engine
	cfg    *conf.Config

	mu   sync.Mutex
	nads map[lookup]func() (plan.Definition, error)
}

// lookup is what distinguishes one look-up of a NAD from another.
type lookup struct {
	namespace, name string
	onDisk          bool
}

func (e *Engine) lookups(cfg *conf.Config) *lookups {
	return &lookups{engine: e, cfg: cfg, nads: map[lookup]func() (plan.Definition, error){}}
}

// of gives the look-up for a request. Who calls it first does it, with ctx if it was the first to be given, and all others wait.
func (l *lookups) of(ctx context.Context, r plan.Request) func() (plan.Definition, error) {
	definition := sync.OnceValues(func() (plan.Definition, error) { return l.engine.definition(ctx, l.cfg, r) })
	if !r.IsNAD() {
		return definition
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	key := lookup{r.Namespace, r.Name, r.OnDisk}
	if l.nads[key] == nil {
		l.nads[key] = definition
	}
	return l.nads[key]
}

// definitions looks up every request, all at the same time.
func (l *lookups) definitions(ctx context.Context, requests []plan.Request) ([]plan.Definition, error) {
	found := make([]plan.Definition, len(requests))
	group, ctx := errgroup.WithContext(ctx)
	for i, r := range requests {
		definition := l.of(ctx, r)
		group.Go(func() (err error) {
			found[i], err = definition()
			return at(err, r.Ref)
		})
	}
	return found, group.Wait()
}

// ahead begins with the NADs of a pod whose annotations the runtime has passed on, while the API server is asked for the pod. What counts is how
// that answers: a NAD that the pod does not have after all was fetched for nothing. done ends what is not finished, and is to be called.
func (l *lookups) ahead(ctx context.Context, args [][2]string) (done func()) {
	ctx, cancel := context.WithCancel(ctx)
	var all sync.WaitGroup
	for _, r := range requestsByRuntime(l.cfg, args) {
		if r.IsNAD() {
			definition := l.of(ctx, r)
			all.Go(func() { definition() }) //nolint:errcheck // who needs it gets the error
		}
	}
	return func() {
		cancel()
		all.Wait()
	}
}

// requestsByRuntime are the requests of a pod with the annotations that the runtime has passed on; none if it has not, or if they cannot be read.
func requestsByRuntime(cfg *conf.Config, args [][2]string) []plan.Request {
	var pod metav1.ObjectMeta
	raw := cfg.RuntimeConfig[podAnnotations]
	if raw == nil || json.Unmarshal(raw, &pod.Annotations) != nil {
		return nil
	}
	var err error
	if pod.Namespace, pod.Name, err = podOf(args); err != nil || pod.Name == "" {
		return nil
	}
	requests, err := plan.Requests(cfg, &pod)
	if err != nil {
		return nil
	}
	return requests
}
