package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"github.com/braid-cni/braid/pkg/install"
	"github.com/braid-cni/braid/pkg/install/own"
	"github.com/braid-cni/braid/pkg/install/platform"
)

// TestClientIsInstalled: with the socket the client is "braid", after the plugin that it becomes;
// without it, and in a version before there was a client, the plugin is; and an uninstall takes
// both.
func TestClientIsInstalled(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	full := "#!/bin/sh\n[ $CNI_COMMAND = VERSION ] && echo '{\"supportedVersions\": [\"1.1.0\"]}'\n"
	client := at("image/braid-client")
	must(t, os.MkdirAll(at("image"), 0o755))
	must(t, os.MkdirAll(at("bin"), 0o755))
	must(t, os.MkdirAll(at("conf"), 0o755))
	must(t, os.WriteFile(at("image/braid"), []byte(full), 0o755))
	build := exec.CommandContext(t.Context(), "go",
		"build", "-o", client, "github.com/braid-cni/braid/cmd/braid-client")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	i := &install.Installer{
		Store: &own.Store{Dir: at("state"), Self: "agent", Installation: "i"},
		Place: platform.Place{Conf: at("conf"), Bin: at("bin"), Private: at("private")},
	}
	must(t, i.Store.Claim(t.Context()))
	apply := func(serve bool) []string {
		t.Helper()
		var err error
		i.Binaries, err = binaries(at("image"), at("bin"), serve)
		must(t, err)
		out, _ := i.Apply(t.Context())
		return out.Changed
	}
	isClient := func() bool {
		t.Helper()
		have, err := os.ReadFile(at("bin/braid"))
		must(t, err)
		want, err := os.ReadFile(client)
		must(t, err)
		return string(have) == string(want)
	}
	if changed := apply(false); !slices.Equal(changed, []string{at("bin/braid")}) || isClient() {
		t.Errorf("without the socket: %q", changed)
	}
	if changed := apply(true); !slices.Equal(changed,
		[]string{at("bin/braid-full"), at("bin/braid")}) || !isClient() {
		t.Errorf("with the socket: %q", changed)
	}
	version := exec.CommandContext(t.Context(), at("bin/braid"))
	version.Env = []string{"CNI_COMMAND=VERSION", "PATH=" + os.Getenv("PATH")}
	if out, err := version.CombinedOutput(); err != nil {
		t.Errorf("VERSION of the client: %v: %s", err, out)
	}
	if changed := apply(true); len(changed) > 0 {
		t.Errorf("again: %q", changed)
	}
	if changed := apply(false); !slices.Equal(changed, []string{at("bin/braid")}) || isClient() {
		t.Errorf("back: %q", changed)
	}
	if drifts, err := i.Inspect(t.Context()); err != nil || len(drifts) > 0 {
		t.Errorf("after the way back: %v, %v", drifts, err)
	}
	apply(true)
	must(t, os.Remove(at("bin/braid-full")))
	if changed := apply(true); !slices.Equal(changed, []string{at("bin/braid-full")}) {
		t.Errorf("repaired: %q", changed)
	}
	_, err := i.Uninstall(t.Context(), install.Removal{Files: true})
	must(t, err)
	if left, err := os.ReadDir(at("bin")); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}
