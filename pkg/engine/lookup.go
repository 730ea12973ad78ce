package engine

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/plan"
)

// lookup is what distinguishes one look-up of a NAD from another.
type lookup struct {
	namespace, name string
	onDisk          bool
}

// definitions looks up every request, all at the same time, and each NAD once.
func (e *Engine) definitions(ctx context.Context, cfg *conf.Config, requests []plan.Request) ([]plan.Definition, error) {
	found := make([]plan.Definition, len(requests))
	nads := map[lookup]func() (plan.Definition, error){}
	group, ctx := errgroup.WithContext(ctx)
	for i, r := range requests {
		definition := sync.OnceValues(func() (plan.Definition, error) { return e.definition(ctx, cfg, r) })
		if key := (lookup{r.Namespace, r.Name, r.OnDisk}); r.IsNAD() && nads[key] == nil {
			nads[key] = definition
		} else if r.IsNAD() {
			definition = nads[key]
		}
		group.Go(func() (err error) {
			found[i], err = definition()
			return at(err, r.Ref)
		})
	}
	return found, group.Wait()
}
