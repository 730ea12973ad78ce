package netns_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/braid-cni/braid/pkg/netns"
	"github.com/braid-cni/braid/pkg/nettest"
)

func identity(t *testing.T, path string) string {
	t.Helper()
	id, err := netns.Identity(path)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// Each namespace has an identity of its own, by whatever path it is reached. Inodes are used again,
// so they alone would not do.
func TestIdentity(t *testing.T) {
	a := nettest.New(t)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(a.Path, link); err != nil {
		t.Fatal(err)
	}
	if identity(t, a.Path) != identity(t, link) {
		t.Error("one namespace has two identities")
	}
	seen, inodes := map[string]bool{}, map[string]bool{}
	for range 20 {
		b := nettest.New(t)
		id := identity(t, b.Path)
		if id == "" || seen[id] {
			t.Errorf("identity %q, which is not its own", id)
		}
		seen[id], inodes[id[:strings.LastIndex(id, ":")]] = true, true
		b.Unmount()
	}
	t.Logf("%d namespaces, %d inodes", len(seen), len(inodes))
}

func TestIdentityOfNothing(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		"", dir, file, file + "/below", filepath.Join(dir, "none"), "/dev/null", "/proc/self/ns/mnt",
		"/proc/999999999/ns/net",
	} {
		if id := identity(t, path); id != "" {
			t.Errorf("%q: identity %q", path, id)
		}
	}
}
