package loglevel_test

import (
	"log/slog"
	"testing"

	"github.com/braid-cni/braid/pkg/loglevel"
)

func TestNames(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct {
		name  string
		level slog.Level
	}{
		"debug": {"debug", slog.LevelDebug}, "trace": {"debug", slog.LevelDebug},
		"Info": {"info", slog.LevelInfo}, "verbose": {"info", slog.LevelInfo},
		"":        {"info", slog.LevelInfo},
		"WARNING": {"warn", slog.LevelWarn}, "panic": {"error", slog.LevelError},
		"error": {"error", slog.LevelError},
		"loud":  {"", slog.LevelInfo},
	} {
		name, err := loglevel.Name(text)
		if name != want.name || (err != nil) != (want.name == "") {
			t.Errorf("%q is %q, %v, want %q", text, name, err, want.name)
		}
		if level := loglevel.Level(text); level != want.level {
			t.Errorf("%q is of level %v, want %v", text, level, want.level)
		}
	}
}
