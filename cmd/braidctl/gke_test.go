package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const guide = "../../conf/gke/"

// gkeDir is a directory with the guide's cluster configuration, changed, and its block file.
func gkeDir(t *testing.T, old, by string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"cluster.yaml", "ip-block-1.yaml"} {
		text, err := os.ReadFile(guide + name)
		if err != nil {
			t.Fatal(err)
		}
		err = os.WriteFile(filepath.Join(dir, name),
			[]byte(strings.ReplaceAll(string(text), old, by)), 0o600)
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestU4U5GKECheck: the guide's files are right, and what is wrong has an exit code.
func TestU4U5GKECheck(t *testing.T) {
	networks := guide + "gke-network-1.yaml " + guide + "routes.yaml"
	for line, want := range map[string]struct {
		code int
		says string
	}{
		"gke check": {
			2,
			"name the file",
		},
		"gke check /no/cluster.yaml": {
			2,
			"/no/cluster.yaml",
		},
		"gke check " + guide + "cluster.yaml": {
			0,
			"cluster.yaml:14: network.additionalNodeInterfaces[0].ipBlockFilePath: warning: ",
		},
		"gke check " + guide + "cluster.yaml --nodes 1": {
			0,
			"warning: ",
		},
		"gke check --nodes 5 " + guide +
			"cluster.yaml": {1, "has 5 addresses for 5 nodes"},
		"gke check -o json " + guide +
			"cluster.yaml": {0, `"line": 14`},
		"gke check " + guide + "cluster.yaml " +
			networks: {0, "warning: "},
		"gke check " + guide + "cluster.yaml /no/x.yaml": {2, "/no/x.yaml"},
		"gke check " + gkeDir(t, "enableDataplaneV2: true", "") +
			"/cluster.yaml": {1, "it needs enableDataplaneV2: true"},
		"gke check " + gkeDir(t, "192.168.0.0/16", "21.0.0.0/8") + "/cluster.yaml " +
			networks: {1, "spec.config.plugins[0].ipam.range: 21.0.104.0/21 overlaps with podCIDR"},
		"gke render": {2, "name the file of one"},
		"gke render " + gkeDir(t, "multipleNetworkInterfaces: true", "") +
			"/cluster.yaml": {2, "multipleNetworkInterfaces is not true"},
		"gke render " + gkeDir(t, "172.16.23.254", "172.16.99.1") +
			"/cluster.yaml": {2, "ip-block-1.yaml:6: blocks[0].ips[0].ip: 172.16.20.10 is outside"},
		"gke render --networks --master x " + guide +
			"cluster.yaml": {2, "no NETWORK=NIC"},
	} {
		code, stdout, stderr := call(t, "braidctl "+line)
		if code != want.code || !strings.Contains(stdout+stderr, want.says) {
			t.Errorf("%s: exit code %d, want %d, and %q:\n%s%s",
				line, code, want.code, want.says, stdout, stderr)
		}
	}
}

// TestU5GKERender: the NADs to begin with are none that lint or gke check has something against.
func TestU5GKERender(t *testing.T) {
	code, stdout, stderr := call(t,
		"braidctl gke render --networks --master gke-network-2=ens161 "+guide+"cluster.yaml")
	if code != exitOK || !strings.Contains(stdout, `"master": "ens161"`) ||
		!strings.Contains(stdout, `"master": "ens224"`) {
		t.Fatalf("%d: %s%s", code, stdout, stderr)
	}
	path := filepath.Join(t.TempDir(), "networks.yaml")
	if err := os.WriteFile(path, []byte(stdout), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr = call(t, "braidctl lint --config "+guide+"00-braid.conflist "+path)
	if code != exitOK || strings.Contains(stdout+stderr, "networkattachment") {
		t.Errorf("lint: %d\n%s%s", code, stdout, stderr)
	}
	code, stdout, stderr = call(t, "braidctl gke check "+guide+"cluster.yaml "+path)
	if code != exitOK || strings.Contains(stdout, "networks.yaml") {
		t.Errorf("gke check: %d\n%s%s", code, stdout, stderr)
	}
}
