package main

import (
	"encoding/json"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	samples "github.com/braid-cni/braid/conf"
	"github.com/braid-cni/braid/e2e/lab"
	"github.com/braid-cni/braid/pkg/lint"
)

// lintObjects has one object of each kind of finding.
const lintObjects = `
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: good, namespace: lint}
spec:
  config: |
    {"cniVersion": "1.0.0", "plugins": [
      {"type": "macvlan", "master": "eth1", "ipam": {"type": "host-local", "subnet": "10.0.0.0/24"}}]}
---
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: comma, namespace: lint}
spec:
  config: |
    {"cniVersion": "1.0.0", "type": "macvlan",}
---
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: on-disk, namespace: lint}
---
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata:
  name: unscheduled
  namespace: lint
  annotations: {braid-cni.io/schedule: "yes"}
spec:
  config: |
    {"cniVersion": "1.0.0", "type": "macvlan", "master": "eth1"}
---
apiVersion: v1
kind: Pod
metadata:
  name: fine
  namespace: lint
  annotations: {k8s.v1.cni.cncf.io/networks: good}
spec: {containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Pod
metadata:
  name: warned
  namespace: lint
  annotations:
    k8s.v1.cni.cncf.io/networks: '[{"name": "good", "gateway": ["10.0.0.1"]}]'
spec: {containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Pod
metadata:
  name: follows
  namespace: lint
  annotations: {k8s.v1.cni.cncf.io/networks: comma}
spec: {containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Pod
metadata:
  name: lost
  namespace: lint
  annotations: {k8s.v1.cni.cncf.io/networks: nowhere}
spec: {containers: [{name: c, image: i}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: many, namespace: lint}
spec:
  selector: {matchLabels: {a: b}}
  template:
    metadata:
      labels: {a: b}
      annotations: {k8s.v1.cni.cncf.io/networks: other/good}
    spec: {containers: [{name: c, image: i}]}
`

// verdicts are the findings in short: object, verdict, reason.
func verdicts(t *testing.T, stdout string) []string {
	t.Helper()
	var findings []lint.Finding
	if err := json.Unmarshal([]byte(stdout), &findings); err != nil {
		t.Fatalf("%v: %s", err, stdout)
	}
	var short []string
	for _, f := range findings {
		if f.Field == "" || f.Message == "" {
			t.Errorf("a finding says too little: %+v", f)
		}
		short = append(short, strings.Join([]string{
			f.Kind, f.Namespace + "/" + f.Name, string(f.Verdict), string(f.Reason),
		}, " "))
	}
	return short
}

func TestLintFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "objects.yaml")
	if err := os.WriteFile(file, []byte(lintObjects), 0o600); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := call(t, "braidctl lint "+file+" -o json")
	want := []string{
		"NetworkAttachmentDefinition lint/good warning PolicyAudited",
		"NetworkAttachmentDefinition lint/comma refused NADInvalid",
		"NetworkAttachmentDefinition lint/on-disk warning NotChecked",
		"NetworkAttachmentDefinition lint/unscheduled warning NADInvalid",
		"NetworkAttachmentDefinition lint/unscheduled warning PolicyAudited",
		"Pod lint/warned warning IgnoredKey",
		"Pod lint/follows refused NADInvalid",
		"Pod lint/lost warning NotChecked",
		"Deployment lint/many refused NADForbidden",
	}
	if diff := cmp.Diff(want, verdicts(t, stdout)); diff != "" || code != exitFound {
		t.Errorf("exit code %d, %s (-want +got):\n%s", code, stderr, diff)
	}
	code, stdout, _ = call(t, "braidctl lint "+file)
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	if code != exitFound || len(lines) != len(want) || !strings.Contains(lines[1], file) ||
		!strings.Contains(lines[1], "line 1 column 43") {
		t.Errorf("exit code %d, text:\n%s", code, stdout)
	}
	if !strings.Contains(lines[3], ": warning: ") {
		t.Errorf("a warning does not say that it is one: %s", lines[3])
	}
	if err := os.WriteFile(file, []byte("metadata: {name: [\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, stderr = call(t, "braidctl lint "+file)
	if code != exitFailed || !strings.Contains(stderr, file) {
		t.Errorf("a file that is no YAML: exit code %d, %s", code, stderr)
	}
}

// What a node has does not keep the rest from being judged, and refuses nothing by itself.
func TestLintBeyondTheNode(t *testing.T) {
	dir := files(t, map[string]string{"objects.yaml": `apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: binary-first, namespace: lint}
spec: {config: '{"cniVersion":"1.0.0","plugins":[{"type":"own"},{"type":"tuning","dataDir":"/root/x"}]}'}
---
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: disk, namespace: lint}
---
apiVersion: v1
kind: Pod
metadata:
  name: asks
  namespace: lint
  annotations: {k8s.v1.cni.cncf.io/networks: '[{"name":"disk","portMappings":[{"hostPort":80,"containerPort":80}]}]'}
`})
	_, stdout, _ := call(t, "braidctl lint -o json "+dir)
	want := []string{
		"NetworkAttachmentDefinition lint/binary-first refused NADInvalid",
		"NetworkAttachmentDefinition lint/disk warning NotChecked",
		// a port below 1024, and a network on disk
		"Pod lint/asks warning PolicyAudited", "Pod lint/asks warning PolicyAudited",
	}
	if diff := cmp.Diff(want, verdicts(t, stdout)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// The node's configuration decides what is allowed; Multus's is read as well as Braid's.
func TestLintConfig(t *testing.T) {
	dir := t.TempDir()
	objects, config := filepath.Join(dir, "objects.yaml"), filepath.Join(dir, "multus.conf")
	for file, text := range map[string]string{
		objects: lintObjects,
		config: `{"name": "multus", "type": "multus", "cniVersion": "0.3.1", ` +
			`"clusterNetwork": "/etc/cni/x.conf", "namespaceIsolation": false, "logFile": "multus.log"}`,
	} {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	_, stdout, _ := call(t, "braidctl lint -o json --config "+config+" "+objects)
	if got := verdicts(t, stdout); got[0] != "Configuration /multus warning OddConfig" {
		t.Errorf("a relative logFile: %v", got)
	}
	if got := verdicts(t, stdout); got[len(got)-1] != "Deployment lint/many warning NotChecked" {
		t.Errorf("without isolation: %v", got)
	}
	list := `{"name": "n", "cniVersion": "1.0.0", "plugins": [{"type": "braid", ` +
		`"braid": {"stateDir": 1}}]}`
	if err := os.WriteFile(config, []byte(list), 0o600); err != nil {
		t.Fatal(err)
	}
	code, _, stderr := call(t, "braidctl lint --config "+config+" "+objects)
	if code != exitFailed || !strings.Contains(stderr, "stateDir") ||
		!strings.Contains(stderr, config) {
		t.Errorf("a broken configuration: exit code %d, %s", code, stderr)
	}
}

// Before a migration: the objects are those of a real API server.
func TestLintCluster(t *testing.T) {
	kubeconfig := lintCluster(t)
	code, stdout, stderr := call(t, "braidctl lint -A -o json --kubeconfig "+kubeconfig)
	want := []string{
		"NetworkAttachmentDefinition lint/comma refused NADInvalid",
		"NetworkAttachmentDefinition lint/good warning PolicyAudited",
		"NetworkAttachmentDefinition lint/on-disk warning NotChecked",
		"NetworkAttachmentDefinition lint/unscheduled warning NADInvalid",
		"NetworkAttachmentDefinition lint/unscheduled warning PolicyAudited",
		"Pod lint/follows refused NADInvalid",
		"Pod lint/lost refused NADNotFound",
		"Pod lint/warned warning IgnoredKey",
	}
	if diff := cmp.Diff(want, verdicts(t, stdout)); diff != "" || code != exitFound {
		t.Errorf("exit code %d, %s (-want +got):\n%s", code, stderr, diff)
	}
}

// lintCluster is an API server with the objects, and the way to it.
func lintCluster(t *testing.T) (kubeconfig string) {
	t.Helper()
	api := cluster.Get(t)
	crd, err := fs.ReadFile(samples.Files(), "crd/network-attachment-definition.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		string(crd), "apiVersion: v1\nkind: Namespace\nmetadata: {name: lint}\n", lintObjects,
	} {
		if err := api.Apply(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	if kubeconfig, err = api.Kubeconfig(lab.UserAdmin); err != nil {
		t.Fatal(err)
	}
	return kubeconfig
}

// M34: lint says before a migration which paths this node does not allow, by the roots of its
// configuration.
func TestM34LintDataDir(t *testing.T) {
	dir := t.TempDir()
	nad := `apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: %s, namespace: lint}
spec: {config: '{"cniVersion":"1.0.0","plugins":[{"type":"bridge","ipam":{"type":"host-local","subnet":"10.1.0.0/24"%s}},{"type":"tuning"%s}]}'}
---
`
	objects := fmt.Sprintf(nad, "fine", `,"dataDir":"/run/cni/x"`,
		`,"dataDir":"/var/lib/cni/y"`) + fmt.Sprintf(nad, "leases", `,"dataDir":"/data/leases"`, "") +
		fmt.Sprintf(nad, "tuned", "", `,"dataDir":"/data/tuning"`) + fmt.Sprintf(nad, "dns",
		`,"resolvConf":"/root/x"`, "")
	config := `{"cniVersion":"1.0.0","name":"braid","type":"braid","delegates":[{"type":"bridge"}],` +
		`"braid":{"dataRoots":["/data"]}}`
	for name, text := range map[string]string{"objects.yaml": objects, "braid.conf": config} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for flags, want := range map[string][]string{
		"":                                 {"leases", "tuned", "dns"},
		" --config " + dir + "/braid.conf": {"fine", "dns"},
	} {
		code, stdout, stderr := call(t, "braidctl lint "+dir+"/objects.yaml -o json"+flags)
		for i := range want {
			want[i] = "NetworkAttachmentDefinition lint/" + want[i] + " refused NADInvalid"
		}
		if diff := cmp.Diff(want, verdicts(t, stdout)); diff != "" || code != exitFound {
			t.Errorf("%s: exit code %d, %s (-want +got):\n%s", flags, code, stderr, diff)
		}
	}
}
