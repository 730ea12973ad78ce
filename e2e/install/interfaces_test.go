//go:build untried

package install_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/yaml"

	"github.com/braid-cni/braid/e2e/lab"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

// clusterFile and blockFile are what an operator of GKE on VMware writes. The subnet is none of the
// lab's.
const (
	clusterFile = `multipleNetworkInterfaces: true
enableDataplaneV2: true
network:
  serviceCIDR: 10.96.0.0/20
  podCIDR: 10.244.0.0/16
  vCenter: {networkName: primary}
  additionalNodeInterfaces:
  - {networkName: gke-network-1, type: static, ipBlockFilePath: block.yaml}
`
	blockFile = `blocks:
- netmask: 255.255.255.0
  gateway: 10.30.0.254
  ips:
  - {ip: 10.30.0.1, hostname: node-1}
  - {ip: 10.30.0.2, hostname: node-2}
  - ip: 10.30.0.3
`
)

// TestU7FromClusterFileToPods: a cluster configuration is judged and rendered, the agents give the
// nodes' NICs their addresses, and pods of both nodes reach each other over them.
func TestU7FromClusterFileToPods(t *testing.T) {
	r := newRig(t)
	r.installed()
	dir := t.TempDir()
	cluster := filepath.Join(dir, "cluster.yaml")
	r.must(os.WriteFile(cluster, []byte(clusterFile), 0o600))
	r.must(os.WriteFile(filepath.Join(dir, "block.yaml"), []byte(blockFile), 0o600))
	_, err := r.cli("gke", "check", "--nodes", "2", cluster)
	r.must(err)
	r.interfaces(r.chartValues(cluster))
	t.Cleanup(func() { r.interfaces("[]") })
	r.eventually("both nodes have their addresses", func() error {
		out, err := r.cli("nodes", "--kubeconfig", r.admin())
		if err == nil && (!strings.Contains(out, "10.30.0.1/24") || !strings.Contains(out, "10.30.0.2/24")) {
			err = errors.New("not among them")
		}
		if err != nil {
			return fmt.Errorf("%w\n%s", err, out)
		}
		return nil
	})
	networks, err := r.cli("gke", "render", "--networks", "--master", "gke-network-1=eth1", cluster)
	r.must(err)
	r.must(r.Apply(r.ctx, strings.NewReplacer(`"ipvlan"`, `"macvlan"`, `"l2"`, `"bridge"`).Replace(networks)))
	ip := map[string]string{}
	for _, n := range r.Nodes() {
		name := "gke-" + n.Name
		pod := lab.Pod("default", name, map[string]string{nadv1.NetworksAnnotation: "gke-network-1"})
		pod.Spec.NodeName = n.Name
		if n.Name == "node-1" {
			pod.Spec.Containers[0].Command = []string{"/tool", "serve", "0.0.0.0:8080", "reached"}
		}
		_, err := r.Client().CoreV1().Pods("default").Create(r.ctx, pod, metav1.CreateOptions{})
		r.must(err)
		_, ip[n.Name], _ = strings.Cut(r.running(name).Annotations[nadv1.StatusAnnotation], `"10.30.0.`)
		ip[n.Name], _, _ = strings.Cut("10.30.0."+ip[n.Name], `"`)
	}
	r.eventually("the pods reach each other", func() error {
		out, err := r.Exec(r.ctx, "default", "gke-node-2", "/tool", "dial", ip["node-1"]+":8080", ip["node-2"])
		if err == nil && !strings.Contains(out, "reached") {
			err = fmt.Errorf("the answer is %q", out)
		}
		return err
	})
	r.gone("gke-node-1", "gke-node-2")
}

// chartValues are the interfaces of the values that are rendered, with the NIC of the lab's nodes,
// which have no PCI bus.
func (r *rig) chartValues(cluster string) string {
	r.t.Helper()
	out, err := r.cli("gke", "render", cluster)
	r.must(err)
	var values struct {
		NodeInterfaces []map[string]any `json:"nodeInterfaces"`
	}
	r.must(yaml.Unmarshal([]byte(out), &values))
	for _, i := range values.NodeInterfaces {
		i["match"] = map[string]any{"name": "eth1"}
	}
	text, err := yaml.Marshal(values.NodeInterfaces)
	r.must(err)
	text, err = yaml.YAMLToJSON(text)
	r.must(err)
	return string(text)
}

// interfaces writes what the chart makes of nodeInterfaces.
func (r *rig) interfaces(text string) {
	r.t.Helper()
	patch := fmt.Sprintf(`{"data": {"node-interfaces.json": %q}}`, text)
	_, err := r.Client().CoreV1().ConfigMaps(namespace).Patch(r.ctx, "braid-agent", types.MergePatchType, []byte(patch), metav1.PatchOptions{})
	r.must(err)
}

func (r *rig) admin() string {
	r.t.Helper()
	config, err := r.Kubeconfig(lab.UserAdmin)
	r.must(err)
	return config
}

// cli runs braidctl as a user does.
func (r *rig) cli(args ...string) (string, error) {
	r.t.Helper()
	cli, err := filepath.Abs(filepath.Join(root(), "bin/braidctl"))
	r.must(err)
	return r.Run(r.ctx, append([]string{cli}, args...)...)
}
