package warm

import (
	"context"
	"io"
	"log/slog"
	"os"
	"sync"

	"github.com/braid-cni/braid/pkg/strictjson"
)

// stderrKey is the context's key of a call's stderr.
type stderrKey struct{}

// withStderr has what is logged in a call be written to w, which the client prints.
func withStderr(ctx context.Context, w io.Writer) context.Context {
	return context.WithValue(ctx, stderrKey{}, &locked{w: w})
}

// locked is for several goroutines.
type locked struct {
	mu sync.Mutex
	w  io.Writer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}

// perCall is a log that each call has of its own; of what belongs to none it is the agent's stderr.
type perCall struct {
	level slog.Level
	// with are what With and WithGroup have added.
	with []func(slog.Handler) slog.Handler
}

// Enabled implements slog.Handler.
func (p *perCall) Enabled(_ context.Context, level slog.Level) bool { return level >= p.level }

// Handle implements slog.Handler.
func (p *perCall) Handle(ctx context.Context, r slog.Record) error {
	var w io.Writer = os.Stderr
	if own, ok := ctx.Value(stderrKey{}).(*locked); ok {
		w = own
	}
	var h slog.Handler = slog.NewTextHandler(strictjson.PrintableWriter(w),
		&slog.HandlerOptions{Level: p.level})
	for _, with := range p.with {
		h = with(h)
	}
	return h.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (p *perCall) WithAttrs(attrs []slog.Attr) slog.Handler {
	return p.plus(func(h slog.Handler) slog.Handler { return h.WithAttrs(attrs) })
}

// WithGroup implements slog.Handler.
func (p *perCall) WithGroup(name string) slog.Handler {
	return p.plus(func(h slog.Handler) slog.Handler { return h.WithGroup(name) })
}

func (p *perCall) plus(with func(slog.Handler) slog.Handler) slog.Handler {
	return &perCall{p.level, append(p.with[:len(p.with):len(p.with)], with)}
}
