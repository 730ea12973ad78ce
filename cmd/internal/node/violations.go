package node

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/braid-cni/braid/pkg/engine"
	"github.com/braid-cni/braid/pkg/policy"
	"github.com/braid-cni/braid/pkg/tally"
)

// violations is an engine.Observer that counts on the node, for the agent, what the policy does not
// allow.
type violations struct {
	tally tally.File
	log   *slog.Logger
}

func tallyOf(stateDir string) tally.File {
	return tally.File{Path: filepath.Join(stateDir, "violations")}
}

func (violations) Operation(context.Context, engine.Operation)   {}
func (violations) Attachment(context.Context, engine.Attachment) {}

func (v violations) Violations(ctx context.Context, all []engine.Violation) {
	names := make([]string, len(all))
	for i, one := range all {
		names[i] = string(one.Effect) + " " + one.Key
	}
	if err := v.tally.Add(ctx, names...); err != nil {
		v.log.WarnContext(ctx, "what the policy does not allow is not counted", "error", err)
	}
}

// Violations returns the counts of what the policy did not allow since the node started. stateDir
// is that of the CNI plugin.
func Violations(stateDir string) map[engine.Violation]uint64 {
	counts := map[engine.Violation]uint64{}
	for name, count := range tallyOf(stateDir).Read() {
		effect, key, ok := strings.Cut(name, " ")
		if e := policy.Effect(effect); ok && (e == policy.Enforce || e == policy.Audit) {
			counts[engine.Violation{Key: key, Effect: e}] = count
		}
	}
	return counts
}
