// Package churn_test has many processes at work on one API server, kills them, takes the API server
// away, and looks whether an address was ever given twice or is lost; and has Braid take a cluster
// over from the reference's whereabouts. It starts an API server and no node. `make e2e` runs it:
// it needs root.
//
// The tests run in a network namespace of their own: the process moves into it before they begin.
package churn_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/e2e/lab"
	"github.com/braid-cni/braid/pkg/kube"
)

// moved says that the process is in a network namespace of its own.
const moved = "BRAID_CHURN_MOVED"

func TestMain(m *testing.M) {
	switch {
	case os.Getenv("BRAID_E2E") != "1":
		fmt.Println("churn: no test is run: BRAID_E2E is not 1; make e2e sets it")
	case os.Getenv(asWorker) != "":
		work()
	case os.Getenv(moved) == "":
		fmt.Fprintln(os.Stderr, "churn:", move())
		os.Exit(1)
	default:
		os.Exit(m.Run())
	}
}

// move starts the program again in a network namespace whose loopback link is up.
func move() error {
	runtime.LockOSThread() // the thread that calls exec is the one that is left
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	err := netlink.LinkSetUp(&netlink.Device{LinkAttrs: netlink.LinkAttrs{Name: "lo", Index: 1}})
	if err != nil {
		return fmt.Errorf("lo: %w", err)
	}
	return unix.Exec("/proc/self/exe", os.Args, append(os.Environ(), moved+"=1"))
}

// newAPI is an API server that has Braid's CRDs and so many nodes.
func newAPI(t *testing.T, nodes int) *lab.API {
	t.Helper()
	api := lab.StartAPI(t)
	files, err := filepath.Glob("../../conf/crd/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("no CRDs: %v", err)
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err == nil {
			err = api.Apply(t.Context(), string(data))
		}
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
	for i := range nodes {
		node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: nodeName(i)}}
		_, err := api.Client().CoreV1().Nodes().Create(t.Context(), node, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
	}
	return api
}

func kubeconfig(t *testing.T, api *lab.API) string {
	t.Helper()
	path, err := api.Kubeconfig(lab.UserAdmin)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// objects are those of the API server, for Braid's own packages.
func objects(t *testing.T, api *lab.API) *kube.API {
	t.Helper()
	a, err := kube.NewAPI(kube.APIOptions{Kubeconfig: kubeconfig(t, api), Version: "churn"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(a.Close)
	return a
}

func nodeName(i int) string { return fmt.Sprintf("node-%d", i) }
