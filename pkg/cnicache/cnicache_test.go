package cnicache_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/braid-cni/braid/pkg/cnicache"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	read := func(wanted func(string) bool) (got string) {
		t.Helper()
		entries, err := cnicache.Read(dir, wanted)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			got += fmt.Sprintf("%s %s %s %s\n", e.NetworkName, e.ContainerID, e.IfName, e.Config)
		}
		return got
	}
	if got := read(nil); got != "" {
		t.Errorf("a cache that is not there has %q", got)
	}
	if err := os.Mkdir(cnicache.Results(dir), 0o700); err != nil {
		t.Fatal(err)
	}
	whole := `{"kind": "cniCacheV1", "containerId": "c", "ifName": "eth0", "networkName": "n", ` +
		`"config": "e30="}`
	for name, content := range map[string]string{
		"n-c-eth0": whole, "n-d-eth0": strings.ReplaceAll(whole, `"c"`, `"d"`), "short": whole[:20],
		"old":  `{"cniVersion": "0.3.1"}`,
		"long": whole + strings.Repeat(" ", cnicache.MaxEntry),
	} {
		err := os.WriteFile(filepath.Join(cnicache.Results(dir), name), []byte(content), 0o600)
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("n-c-eth0", filepath.Join(cnicache.Results(dir), "link")); err != nil {
		t.Fatal(err)
	}
	if got, want := read(nil), "n c eth0 {}\nn d eth0 {}\n"; got != want {
		t.Errorf("it has\n%s, want\n%s", got, want)
	}
	if got, want := read(func(name string) bool {
		return strings.Contains(name, "-d-")
	}), "n d eth0 {}\n"; got != want {
		t.Errorf("wanted is\n%s, want\n%s", got, want)
	}
	if err := os.RemoveAll(cnicache.Results(dir)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(cnicache.Results(dir), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := cnicache.Read(dir, nil); err == nil {
		t.Error("a file is taken for the directory")
	}
}
