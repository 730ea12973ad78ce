package install_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/install"
	"github.com/braid-cni/braid/pkg/nettest"
)

// mounted mounts a file system on a directory, in this test's mount namespace, with the files that
// the directory has.
func (h *host) mounted(dir, options string) {
	h.t.Helper()
	nettest.NeedsRoot(h.t)
	content := map[string][]byte{}
	for _, name := range names(h.t, dir) {
		raw, err := os.ReadFile(filepath.Join(dir, name))
		must(h.t, err)
		content[name] = raw
	}
	must(h.t, os.MkdirAll(dir, 0o755))
	must(h.t, unix.Mount("tmpfs", dir, "tmpfs", 0, options))
	h.t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	for name, raw := range content {
		must(h.t, os.WriteFile(filepath.Join(dir, name), raw, 0o755))
	}
}

// fill writes as much as goes, and returns what takes it away.
func (h *host) fill(dir string) (empty func()) {
	h.t.Helper()
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); err == nil {
		h.t.Fatalf("%s has room for a megabyte", dir)
	}
	return func() { must(h.t, os.Remove(ballast)) }
}

func (h *host) fails(words ...string) {
	h.t.Helper()
	_, err := h.Apply(h.t.Context())
	if failure.ReasonOf(err) != failure.StateFailed || failure.FixOf(err) == "" {
		h.t.Errorf("error is %v, want StateFailed and a fix", err)
	}
	for _, word := range words {
		if err == nil || !strings.Contains(err.Error(), word) {
			h.t.Errorf("error %v does not say %q", err, word)
		}
	}
}

// A disk that is full, whichever of them, costs nothing: the runtime has what it had, and when
// there is room it has all.
func TestFullDisk(t *testing.T) {
	for name, dir := range map[string]func(h *host) string{
		"configuration": func(h *host) string { return h.Place.Conf },
		"private":       func(h *host) string { return h.Place.Private },
		"binaries":      func(h *host) string { return h.Place.Bin },
		"state":         func(h *host) string { return h.Store.Dir },
	} {
		for _, installed := range []bool{false, true} {
			h := newHost(t, options{Move: true}, "10-flannel.conflist", flannel)
			want := "10-flannel.conflist"
			if installed {
				h.upgrade()
				want = "braid"
			}
			h.mounted(dir(h), "size=32k")
			if installed && dir(h) == h.Place.Conf { // what is there needs no room
				must(t, os.Remove(h.conf("00-braid.conflist")))
				want = "10-flannel.conflist"
			}
			empty := h.fill(dir(h))
			h.fails("no space", "make room")
			if first, err := h.works(); err != nil || first != want {
				t.Errorf("%s, installed %v: the runtime has %q, %v", name, installed, first, err)
			}
			empty()
			h.apply()
			h.has(h.Place.Conf, "00-braid.conflist")
			if first, err := h.works(); err != nil || first != "braid" {
				t.Errorf("%s, installed %v, with room: the runtime has %q, %v", name, installed, first, err)
			}
		}
	}
}

// upgrade installs everything, and then has larger files to install.
func (h *host) upgrade() {
	h.t.Helper()
	h.apply()
	much := strings.Repeat("2", 5000)
	h.write("10-flannel.conflist",
		strings.Replace(flannel, `"flannel"`, `"flannel","note":"`+much+`"`, 1))
	h.Binaries = newInstaller(options{Root: h.o.Root, Version: much}).Binaries
}

// A directory of binaries that cannot be written is fine where the node's image has these very
// files. Others are told of, and nothing is installed that needs them.
func TestReadOnlyBinaries(t *testing.T) {
	for version, baked := range map[string]bool{"": true, "older": false} {
		h := newHost(t, options{}, "10-flannel.conflist", flannel)
		h.mounted(h.Place.Bin, "size=32k")
		for _, name := range []string{"braid", "braid-full"} {
			must(t, os.WriteFile(filepath.Join(h.Place.Bin, name), []byte(name+version), 0o755))
		}
		must(t, unix.Mount("", h.Place.Bin, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
		if baked {
			h.apply()
			h.has(h.Place.Conf, "00-braid.conflist", "10-flannel.conflist")
			continue
		}
		_, err := h.Apply(t.Context())
		if failure.ReasonOf(err) != failure.FileInTheWay || failure.FixOf(err) == "" {
			t.Errorf("error is %v", err)
		}
		h.has(h.Place.Conf, "10-flannel.conflist")
	}
}

// A directory of configurations that is a link is what it leads to.
func TestLinkedDirectory(t *testing.T) {
	h := newHost(t, options{Move: true}, "10-flannel.conflist", flannel)
	must(t, os.Rename(h.Place.Conf, h.Place.Conf+".1"))
	must(t, os.Symlink(filepath.Base(h.Place.Conf)+".1", h.Place.Conf))
	h.apply()
	h.has(h.Place.Conf+".1", "00-braid.conflist")
	h.has(h.Place.Private, "10-flannel.conflist")
	if info, err := os.Lstat(h.Place.Conf); err != nil || info.Mode().Type() != os.ModeSymlink {
		t.Errorf("the link is %v, %v", info, err)
	}
	_, err := h.Uninstall(t.Context(), install.Removal{Files: true})
	must(t, err)
	h.has(h.Place.Conf+".1", "10-flannel.conflist")
}
