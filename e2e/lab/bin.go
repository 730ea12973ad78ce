package lab

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/braid-cni/braid/pkg/hostfile"
)

var (
	apiBinaries  = []string{"etcd", "kube-apiserver"}
	nodeBinaries = []string{"kubectl", "kube-controller-manager", "kube-scheduler", "kubelet"}
)

// BinDir returns the directory with the binaries of scripts/lab.sh: $BRAID_LAB_BIN where that is
// set, else the one that the script names for the pins of this clone. It fails the test where the
// API server's binaries are missing, and says how to build them.
func BinDir(tb testing.TB) string {
	tb.Helper()
	dir, err := binDir(apiBinaries)
	if err != nil {
		tb.Fatal(err)
	}
	return dir
}

// binDir finds the directory with the binaries and checks that the wanted ones are in it, once
// nobody is building there.
func binDir(want []string) (string, error) {
	dir := os.Getenv("BRAID_LAB_BIN")
	if dir == "" {
		root, err := moduleRoot()
		if err != nil {
			return "", err
		}
		// The script is asked, not imitated: it alone knows how the cache is laid out.
		out, err := exec.Command(filepath.Join(root, "scripts", "lab.sh"), "dir").Output()
		if err != nil {
			return "", fmt.Errorf("ask scripts/lab.sh for its directory: %w", withStderr(err))
		}
		dir = strings.TrimSpace(string(out))
	}
	if err := awaitBuild(dir); err != nil {
		return "", err
	}
	for _, name := range want {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			return "", fmt.Errorf("find %s: %w; run scripts/lab.sh api (API server only), "+
				"scripts/lab.sh node (nodes with containerd) or scripts/lab.sh crio (with CRI-O)", name, err)
		}
	}
	return dir, nil
}

// awaitBuild waits for a scripts/lab.sh that is at work: it has the lock of the directory.
func awaitBuild(dir string) error {
	lock, err := os.Open(filepath.Join(dir, ".lock"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer lock.Close()   //nolint:errcheck // opened for reading
	fd := int(lock.Fd()) //nolint:gosec // a descriptor
	if err := hostfile.Lock(context.Background(), fd); err != nil {
		return fmt.Errorf("wait for scripts/lab.sh: %w", err)
	}
	return nil
}

// moduleRoot returns the directory of the go.mod that the test was started in: go test runs a test
// in its package's directory.
func moduleRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", fmt.Errorf("find module root: %w", err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("find module root: no go.mod in the working directory or above it")
		}
		dir = parent
	}
}

// Build compiles main packages of this module's build list, static and stripped as they are
// shipped, into dir, each named after the last element of its import path. Packages may be
// patterns. Go's build cache makes the second time cheap.
func Build(ctx context.Context, dir string, packages ...string) error {
	root, err := moduleRoot()
	if err != nil {
		return err
	}
	// The trailing separator makes go build take dir for a directory also where there is a single
	// package.
	args := append([]string{
		"build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w", "-o", dir + string(filepath.Separator),
	}, packages...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = root
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if _, err := cmd.Output(); err != nil {
		return fmt.Errorf("build %s: %w", strings.Join(packages, " "), withStderr(err))
	}
	return nil
}

// BuildPlugins compiles the reference CNI plugins named (bridge, host-local, ...), at the version
// that go.mod pins, into dir.
func BuildPlugins(ctx context.Context, dir string, names ...string) error {
	const module = "github.com/containernetworking/plugins/plugins/"
	kinds := map[string]string{
		"host-local": "ipam", "static": "ipam", "dhcp": "ipam",
		"portmap": "meta", "tuning": "meta", "sbr": "meta", "bandwidth": "meta", "firewall": "meta",
		"vrf": "meta",
	}
	packages := make([]string, len(names))
	for i, name := range names {
		kind, ok := kinds[name]
		if !ok {
			kind = "main"
		}
		packages[i] = module + kind + "/" + name
	}
	return Build(ctx, dir, packages...)
}

// withStderr adds what a command said to the bare exit status that os/exec reports.
func withStderr(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(string(exit.Stderr)))
	}
	return err
}
