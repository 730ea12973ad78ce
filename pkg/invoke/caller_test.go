package invoke_test

import (
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/braid-cni/braid/pkg/invoke"
)

// A binary has the environment of the process that is worked for, and the protocol's variables of
// this very call.
func TestBinariesHaveTheCallersEnvironment(t *testing.T) {
	t.Setenv("OF_THIS_PROCESS", "1")
	plugin := filepath.Join(t.TempDir(), "plugin")
	if err := os.WriteFile(plugin, []byte("#!/bin/sh\nenv\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	exec := &invoke.Exec{Log: slog.New(slog.DiscardHandler)}
	run := func(ctx context.Context) string {
		t.Helper()
		out, err := exec.ExecPlugin(ctx, plugin, nil,
			append(os.Environ(), "CNI_COMMAND=ADD", "CNI_IFNAME=net1"))
		if err != nil {
			t.Fatal(err)
		}
		return "\n" + string(out)
	}
	if out := run(t.Context()); !strings.Contains(out, "\nOF_THIS_PROCESS=1\n") {
		t.Errorf("its own environment: %s", out)
	}
	out := run(invoke.WithCaller(t.Context(), []string{
		"OF_THE_CALLER=1", "CNI_COMMAND=GC", "PATH=" + os.Getenv("PATH"), "CNI_NETNS_OVERRIDE=1",
	}))
	for _, has := range []string{
		"\nOF_THE_CALLER=1\n", "\nCNI_COMMAND=ADD\n", "\nCNI_IFNAME=net1\n", "\nCNI_NETNS_OVERRIDE=1\n",
		"\n" + invoke.CallerEnv + "=",
	} {
		if !strings.Contains(out, has) {
			t.Errorf("it lacks %q: %s", has, out)
		}
	}
	if strings.Contains(out, "OF_THIS_PROCESS") || strings.Contains(out, "CNI_COMMAND=GC") {
		t.Errorf("it has too much: %s", out)
	}
}
