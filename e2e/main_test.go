// Package e2e_test runs pods through a real kubelet and a real runtime on a node that has Braid as
// README.md says. `make e2e` runs it: it needs root, and the binaries of scripts/lab.sh and
// scripts/build.sh.
//
// All tests share one node, one after the other, each with a Kubernetes namespace of its own. After
// each its pods are deleted, and nothing of them may be left on the node: see leftovers.
package e2e_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/e2e/lab"
)

const (
	// account is Braid's on the node, by its names in conf/rbac.
	accountNamespace, accountName = "kube-system", "braid"

	account = "system:serviceaccount:" + accountNamespace + ":" + accountName

	logFile    = "/var/log/braid.log"
	kubeconfig = "/etc/cni/net.d/braid.d/braid.kubeconfig"
	stateDir   = "/run/braid"
)

// shared is the cluster of all tests.
var shared = lab.NewShared(start)

// engine is the runtime of the node: containerd, unless the environment says otherwise.
var engine = lab.Runtime(os.Getenv("BRAID_E2E_RUNTIME"))

func TestMain(m *testing.M) {
	if os.Getenv("BRAID_E2E") != "1" {
		fmt.Println("e2e: no test is run: BRAID_E2E is not 1; make e2e sets it")
		os.Exit(0)
	}
	os.Exit(shared.Main(m))
}

// clean is what is on the node when there is no pod. Set by start.
var clean []string

// start makes a cluster whose only node has Braid, and lets it run a first pod: that makes the
// bridge of the default network and the packet filter's tables and common chains, which stay.
func start() (*lab.Cluster, error) {
	cluster, err := lab.NewCluster(lab.Options{Runtime: engine})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if err := prepare(ctx, cluster); err != nil {
		return nil, errors.Join(fmt.Errorf("install Braid: %w\n%s", err, cluster.Logs()), cluster.Stop())
	}
	return cluster, nil
}

func prepare(ctx context.Context, cluster *lab.Cluster) error {
	node := cluster.Nodes()[0]
	if err := install(ctx, node); err != nil {
		return err
	}
	if err := node.WaitReady(ctx); err != nil {
		return err
	}
	pods := cluster.Client().CoreV1().Pods("default")
	first := lab.Pod("default", "first", nil)
	first.Spec.Containers[0].Ports = []corev1.ContainerPort{{ContainerPort: 80, HostPort: 8079}}
	if _, err := pods.Create(ctx, first, metav1.CreateOptions{}); err != nil {
		return err
	}
	if _, err := cluster.WaitPodRunning(ctx, "default", "first"); err != nil {
		return err
	}
	if err := pods.Delete(ctx, "first", metav1.DeleteOptions{}); err != nil {
		return err
	}
	if err := cluster.WaitPodGone(ctx, "default", "first"); err != nil {
		return err
	}
	var err error
	clean, err = leftovers(ctx, node)
	return err
}

// install does what README.md says under "Install", and writes the default network and a
// second interface for more networks.
func install(ctx context.Context, node *lab.Node) error {
	for _, dir := range []string{"crd", "rbac"} {
		_, err := node.Cluster.Kubectl(ctx, "apply", "-f", filepath.Join(root(), "conf", dir))
		if err != nil {
			return err
		}
	}
	if err := installPlugins(node); err != nil {
		return err
	}
	if err := installKubeconfig(ctx, node, accountName, kubeconfig); err != nil {
		return err
	}
	_, err := node.Run(ctx, "ip", "link", "add", "eth2", "up", "type", "veth", "peer", "name", "wire")
	if err != nil {
		return err
	}
	if _, err := node.Run(ctx, "ip", "link", "set", "wire", "up"); err != nil {
		return err
	}
	err = node.WriteFile("/etc/cni/net.d/10-pods.conflist", []byte(defaultNetwork), 0o644)
	if err != nil {
		return err
	}
	config, err := documentedConfig()
	if err != nil {
		return err
	}
	return node.WriteFile("/etc/cni/net.d/00-braid.conflist", []byte(config), 0o600)
}

const defaultNetwork = `{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [
    {"type": "bridge", "bridge": "cni0", "isDefaultGateway": true, "ipMasq": true, "hairpinMode": true,
     "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/16"}]]}},
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}`

// documentedConfig is the configuration of README.md, with this node's default network in place of
// flannel.
func documentedConfig() (string, error) {
	readme, err := os.ReadFile(filepath.Join(root(), "README.md"))
	if err != nil {
		return "", err
	}
	block := regexp.MustCompile("(?s)00-braid\\.conflist`:\n\n *```json\n(.*?)\n *```").
		FindSubmatch(readme)
	if block == nil || !strings.Contains(string(block[1]), "10-flannel.conflist") {
		return "", errors.New("README.md shows no 00-braid.conflist with 10-flannel.conflist, which " +
			"the tests install")
	}
	return strings.Replace(string(block[1]), "10-flannel", "10-pods", 1), nil
}

// installPlugins copies braid, and the scripts of testdata, which the tests use as plugins. There
// are no others: those that Braid has built in run in-process or not at all.
func installPlugins(node *lab.Node) error {
	for _, pattern := range []string{filepath.Join(root(), "bin", "braid"), "testdata/*"} {
		files, err := filepath.Glob(pattern)
		if err != nil || len(files) == 0 {
			return fmt.Errorf("no %s: run scripts/build.sh: %w", pattern, err)
		}
		for _, file := range files {
			if err := node.Install(file, "/opt/cni/bin/"+filepath.Base(file), 0o755); err != nil {
				return err
			}
		}
	}
	for _, dir := range []string{dumpDir, gateDir, killDir} {
		if err := os.MkdirAll(node.Path(dir), 0o700); err != nil {
			return err
		}
	}
	return nil
}

// installKubeconfig writes a kubeconfig of one of Braid's service accounts.
func installKubeconfig(ctx context.Context, node *lab.Node, name, path string) error {
	expiry := int64(24 * 60 * 60)
	request := &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &expiry},
	}
	answer, err := node.Cluster.Client().CoreV1().ServiceAccounts(accountNamespace).
		CreateToken(ctx, name, request, metav1.CreateOptions{})
	if err != nil {
		return fmt.Errorf("get a token of service account %s: %w", name, err)
	}
	host, port := node.Cluster.Address()
	config := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: node
clusters:
- name: cluster
  cluster: {server: "https://%s:%d", certificate-authority-data: %s}
users:
- name: account
  user: {token: %s}
contexts:
- name: node
  context: {cluster: cluster, user: account}
`, host, port, base64.StdEncoding.EncodeToString(node.Cluster.CA()), answer.Status.Token)
	return node.WriteFile(path, []byte(config), 0o600)
}

// root is the directory of the clone.
func root() string { return ".." }
