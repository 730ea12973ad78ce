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
func (r *rig) mounted(dir, options string) {
	r.t.Helper()
	nettest.NeedsRoot(r.t)
	content := map[string][]byte{}
	for _, name := range names(r.t, dir) {
		raw, err := os.ReadFile(filepath.Join(dir, name))
		must(r.t, err)
		content[name] = raw
	}
	must(r.t, os.MkdirAll(dir, 0o755))
	must(r.t, unix.Mount("tmpfs", dir, "tmpfs", 0, options))
	r.t.Cleanup(func() { unix.Unmount(dir, unix.MNT_DETACH) })
	for name, raw := range content {
		must(r.t, os.WriteFile(filepath.Join(dir, name), raw, 0o755))
	}
}

// fill writes as much as goes, and returns what takes it away.
func (r *rig) fill(dir string) (empty func()) {
	r.t.Helper()
	ballast := filepath.Join(dir, "ballast")
	if err := os.WriteFile(ballast, make([]byte, 1<<20), 0o600); err == nil {
		r.t.Fatalf("%s has room for a megabyte", dir)
	}
	return func() { must(r.t, os.Remove(ballast)) }
}

func (r *rig) fails(words ...string) {
	r.t.Helper()
	_, err := r.Apply(r.t.Context())
	if failure.ReasonOf(err) != failure.StateFailed || failure.FixOf(err) == "" {
		r.t.Errorf("error is %v, want StateFailed and a fix", err)
	}
	for _, word := range words {
		if err == nil || !strings.Contains(err.Error(), word) {
			r.t.Errorf("error %v does not say %q", err, word)
		}
	}
}

// A disk that is full, whichever of them, costs nothing: the runtime has what it had, and when
// there is room it has all.
func TestFullDisk(t *testing.T) {
	for name, dir := range map[string]func(r *rig) string{
		"configuration": func(r *rig) string { return r.Place.Conf },
		"private":       func(r *rig) string { return r.Place.Private },
		"binaries":      func(r *rig) string { return r.Place.Bin },
		"state":         func(r *rig) string { return r.Store.Dir },
	} {
		for _, installed := range []bool{false, true} {
			r := newRig(t, options{Move: true}, "10-flannel.conflist", flannel)
			want := "10-flannel.conflist"
			if installed {
				r.upgrade()
				want = "braid"
			}
			r.mounted(dir(r), "size=32k")
			if installed && dir(r) == r.Place.Conf { // what is there needs no room
				must(t, os.Remove(r.conf("00-braid.conflist")))
				want = "10-flannel.conflist"
			}
			empty := r.fill(dir(r))
			r.fails("no space", "make room")
			if first, err := r.works(); err != nil || first != want {
				t.Errorf("%s, installed %v: the runtime has %q, %v", name, installed, first, err)
			}
			empty()
			r.apply()
			r.has(r.Place.Conf, "00-braid.conflist")
			if first, err := r.works(); err != nil || first != "braid" {
				t.Errorf("%s, installed %v, with room: the runtime has %q, %v", name, installed, first, err)
			}
		}
	}
}

// upgrade installs everything, and then has larger files to install.
func (r *rig) upgrade() {
	r.t.Helper()
	r.apply()
	much := strings.Repeat("2", 5000)
	r.write("10-flannel.conflist",
		strings.Replace(flannel, `"flannel"`, `"flannel","note":"`+much+`"`, 1))
	r.Binaries = newInstaller(options{Root: r.o.Root, Version: much}).Binaries
}

// A directory of binaries that cannot be written is fine where the node's image has these very
// files. Others are told of, and nothing is installed that needs them.
func TestReadOnlyBinaries(t *testing.T) {
	for version, baked := range map[string]bool{"": true, "older": false} {
		r := newRig(t, options{}, "10-flannel.conflist", flannel)
		r.mounted(r.Place.Bin, "size=32k")
		for _, name := range []string{"braid", "braid-full"} {
			must(t, os.WriteFile(filepath.Join(r.Place.Bin, name), []byte(name+version), 0o755))
		}
		must(t, unix.Mount("", r.Place.Bin, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""))
		if baked {
			r.apply()
			r.has(r.Place.Conf, "00-braid.conflist", "10-flannel.conflist")
			continue
		}
		_, err := r.Apply(t.Context())
		if failure.ReasonOf(err) != failure.FileInTheWay || failure.FixOf(err) == "" {
			t.Errorf("error is %v", err)
		}
		r.has(r.Place.Conf, "10-flannel.conflist")
	}
}

// A directory of configurations that is a link is what it leads to.
func TestLinkedDirectory(t *testing.T) {
	r := newRig(t, options{Move: true}, "10-flannel.conflist", flannel)
	must(t, os.Rename(r.Place.Conf, r.Place.Conf+".1"))
	must(t, os.Symlink(filepath.Base(r.Place.Conf)+".1", r.Place.Conf))
	r.apply()
	r.has(r.Place.Conf+".1", "00-braid.conflist")
	r.has(r.Place.Private, "10-flannel.conflist")
	if info, err := os.Lstat(r.Place.Conf); err != nil || info.Mode().Type() != os.ModeSymlink {
		t.Errorf("the link is %v, %v", info, err)
	}
	_, err := r.Uninstall(t.Context(), install.Removal{Files: true})
	must(t, err)
	r.has(r.Place.Conf+".1", "10-flannel.conflist")
}
