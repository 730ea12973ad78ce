package node

import (
	"os"

	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/engine"
	"github.com/braid-cni/braid/pkg/ipam/block"
	"github.com/braid-cni/braid/pkg/kube"
	"github.com/braid-cni/braid/pkg/kube/kubelet"
	"github.com/braid-cni/braid/pkg/kube/manifests"
	"github.com/braid-cni/braid/pkg/resolve"
	"github.com/braid-cni/braid/plugins/ipam/whereabouts"
)

// defaultManifests is the directory of Kubernetes' objects on a node without an API server.
const defaultManifests = "/etc/cni/net.d/braid.d/manifests"

// Source reads Kubernetes' objects, and writes what Braid writes of them.
type Source interface {
	resolve.Source
	engine.Reporter
	block.Store
	block.Nodes
	block.IPAMClaims
	kubelet.Allocations
}

// OpenSource returns the directory of manifests if one is configured, else the API server if there
// is a way to one, else the default directory. So a node without Kubernetes needs no configuration.
func OpenSource(node *conf.Node, version string) (Source, error) {
	inCluster := os.Getenv("KUBERNETES_SERVICE_HOST") != ""
	if node.Manifests == "" && (node.Kubeconfig != "" || inCluster) {
		return kube.NewAPI(kube.APIOptions{
			Kubeconfig: node.Kubeconfig, Version: version, NodeName: node.NodeName,
			Timeout: node.Timeouts.API,
		})
	}
	if node.Manifests == "" {
		return manifests.New(defaultManifests)
	}
	return manifests.New(node.Manifests)
}

// Only returns a source whatever a configuration of whereabouts says.
func Only(source Source) func(*whereabouts.Conf) (Source, error) {
	return func(*whereabouts.Conf) (Source, error) { return source, nil }
}
