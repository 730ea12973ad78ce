package manifests_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/braid-cni/braid/pkg/kube/manifests"
)

// A node without a cluster has its pods in files. What Braid publishes about one is beside them,
// and part of the pod when it is read again.
func ExampleDirectory() {
	dir, err := os.MkdirTemp("", "manifests")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a leftover in the directory for temporary files
	pod := "{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop}}"
	if err := os.WriteFile(filepath.Join(dir, "web.yaml"), []byte(pod), 0o600); err != nil {
		fmt.Println(err)
		return
	}
	source, err := manifests.New(dir)
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	web, err := source.Pod(ctx, "shop", "web")
	if err == nil {
		err = source.PublishStatus(ctx, web.Meta(), `[{"name": "pods"}]`)
	}
	if err == nil {
		web, err = source.Pod(ctx, "shop", "web")
	}
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(web.Annotations["k8s.v1.cni.cncf.io/network-status"])
	// Output: [{"name": "pods"}]
}
