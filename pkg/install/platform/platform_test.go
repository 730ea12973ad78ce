package platform_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/install/platform"
)

// node makes the root directory of a node. What ends in a slash is a directory, and what has an
// equals sign a file with that content.
func node(t *testing.T, entries ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, e := range entries {
		path, content, isFile := strings.Cut(e, "=")
		path = filepath.Join(root, path)
		dir := path
		if isFile {
			dir = filepath.Dir(path)
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if isFile {
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	return root
}

func place(profile, conf, bin, private string) platform.Place {
	return platform.Place{Profile: profile, Conf: conf, Bin: bin, Private: private}
}

func TestFind(t *testing.T) {
	const k3s = "/var/lib/rancher/k3s"
	for name, test := range map[string]struct {
		node     []string
		override platform.Place
		want     platform.Place
	}{
		"plain": {want: place("plain", "/etc/cni/net.d", "/opt/cni/bin", "/etc/cni/braid.d")},
		"k3s": {
			node: []string{k3s + "/agent/etc/cni/net.d", k3s + "/data/cni", k3s + "/data/current/bin"},
			want: place("k3s", k3s+"/agent/etc/cni/net.d", k3s+"/data/cni", k3s+"/agent/etc/cni/braid.d"),
		},
		"k3s before October 2024": {
			node: []string{k3s + "/agent/etc/cni/net.d", k3s + "/data/current/bin"},
			want: place("k3s", k3s+"/agent/etc/cni/net.d", k3s+"/data/current/bin",
				k3s+"/agent/etc/cni/braid.d"),
		},
		"k3s without flannel": {
			node: []string{k3s + "/agent/etc", k3s + "/data/cni"},
			want: place("plain", "/etc/cni/net.d", "/opt/cni/bin", "/etc/cni/braid.d"),
		},
		"k3d": {
			node: []string{k3s + "/agent/etc/cni/net.d"}, override: platform.Place{Bin: "/bin/"},
			want: place("k3s", k3s+"/agent/etc/cni/net.d", "/bin", k3s+"/agent/etc/cni/braid.d"),
		},
		"rke2": {
			node: []string{"/var/lib/rancher/rke2"},
			want: place("rke2", "/etc/cni/net.d", "/opt/cni/bin", "/etc/cni/braid.d"),
		},
		"microk8s": {
			node: []string{"/var/snap/microk8s/current/args"},
			want: place("microk8s", "/var/snap/microk8s/current/args/cni-network",
				"/var/snap/microk8s/current/opt/cni/bin", "/var/snap/microk8s/current/args/braid.d"),
		},
		"openshift": {
			node: []string{"/etc/kubernetes/cni/net.d"},
			want: place("openshift", "/etc/kubernetes/cni/net.d", "/var/lib/cni/bin",
				"/run/multus/cni/net.d"),
		},
		"gke": {
			node: []string{"/home/kubernetes/bin"},
			want: place("gke", "/etc/cni/net.d", "/home/kubernetes/bin", "/etc/cni/braid.d"),
		},
		"talos": {
			node: []string{"/etc/os-release=NAME=\"Talos\"\nID=talos\n"},
			want: place("talos", "/etc/cni/net.d", "/opt/cni/bin", "/etc/cni/braid.d"),
		},
		"like it": {
			node: []string{"/etc/os-release=ID_LIKE=talos\n"},
			want: place("plain", "/etc/cni/net.d", "/opt/cni/bin", "/etc/cni/braid.d"),
		},
		"minikube": {
			node: []string{"/var/lib/minikube"},
			want: place("minikube", "/etc/cni/net.d", "/opt/cni/bin", "/etc/cni/braid.d"),
		},
		"told the profile": {
			node: []string{"/var/lib/minikube"}, override: platform.Place{Profile: "gke"},
			want: place("gke", "/etc/cni/net.d", "/home/kubernetes/bin", "/etc/cni/braid.d"),
		},
		"told the directories": {
			node:     []string{"/etc/kubernetes/cni/net.d"},
			override: platform.Place{Conf: "/data/cni/net.d", Bin: "/data/bin"},
			want:     place("openshift", "/data/cni/net.d", "/data/bin", "/data/cni/braid.d"),
		},
		"told the private directory": {
			override: platform.Place{Private: "/etc/cni/own.d/"},
			want:     place("plain", "/etc/cni/net.d", "/opt/cni/bin", "/etc/cni/own.d"),
		},
	} {
		got, err := platform.Find(node(t, test.node...), test.override)
		if err != nil || got != test.want {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, test.want)
		}
	}
}

func TestFindRefuses(t *testing.T) {
	for field, override := range map[string]platform.Place{
		"platform": {Profile: "windows"}, "conf-dir": {Conf: "net.d"}, "bin-dir": {Bin: "bin"},
		"private-dir": {Private: "/etc/cni/net.d/"},
	} {
		_, err := platform.Find(t.TempDir(), override)
		if failure.ReasonOf(err) != failure.InvalidConfig || failure.FixOf(err) == "" ||
			!strings.Contains(err.Error(), "field "+field) {
			t.Errorf("%+v: %v", override, err)
		}
	}
}

func ExampleFind() {
	place, err := platform.Find("/nowhere", platform.Place{Profile: "microk8s"})
	fmt.Println(place.Conf, err)
	// Output: /var/snap/microk8s/current/args/cni-network <nil>
}
