package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/braid-cni/braid/pkg/nettest"
)

// nobody is a user who may do nothing.
const nobody = 65534

// The demo is what people type first: it works for root and, where the system lets users have
// namespaces, for others.
func TestDemo(t *testing.T) {
	t.Parallel()
	nettest.NeedsRoot(t)
	for who, user := range map[string]uint32{"root": 0, "user": nobody} {
		t.Run(who, func(t *testing.T) {
			t.Parallel()
			restricted, err := os.ReadFile("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
			if user != 0 && err == nil && string(restricted) != "0\n" {
				t.Skip("AppArmor keeps users of this machine from having namespaces")
			}
			cmd := exec.Command(checkout(t) + "/scripts/demo.sh")
			cmd.Env = append(os.Environ(), asPlugin+"=1", "GORACE=atexit_sleep_ms=0",
				"BRAID_DEMO="+filepath.Dir(cmd.Path))
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: user, Gid: user}}
			out, err := cmd.CombinedOutput()
			if err != nil {
				t.Fatalf("%v:\n%s", err, out)
			}
			for _, want := range []string{
				"net1", "21.0.111.1", "net2", "10.20.0.2", `"name": "default/gke-network-2"`,
				"nothing is left of them.",
			} {
				if !strings.Contains(string(out), want) {
					t.Errorf("there is no %q in\n%s", want, out)
				}
			}
		})
	}
}

// checkout is what the demo needs of a repository in which everything was built, with cnitool
// beside it, for everybody to read.
func checkout(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("/tmp", "braid-demo") //nolint:usetesting // that one may be closed
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) }) //nolint:errcheck // it is in /tmp
	for from, to := range map[string]string{
		"../../scripts/demo.sh": "scripts/demo.sh", cnitoolPath(t): "scripts/cnitool",
		os.Args[0]: "bin/braid",
	} {
		data, err := os.ReadFile(from)
		if err == nil {
			err = os.MkdirAll(filepath.Dir(filepath.Join(dir, to)), 0o755) //nolint:gosec // for everybody
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, to), data, 0o755) //nolint:gosec // for everybody
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // for everybody
		t.Fatal(err)
	}
	return dir
}
