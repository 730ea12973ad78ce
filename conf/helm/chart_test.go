// Package helm_test renders, lints and installs the chart with the pinned Helm, against a real
// kube-apiserver.
package helm_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	admissionv1 "k8s.io/api/admissionregistration/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/yaml"

	"github.com/braid-cni/braid/e2e/lab"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/gke"
	"github.com/braid-cni/braid/pkg/kube"
	"github.com/braid-cni/braid/pkg/nodenet"
)

var (
	cluster = lab.NewShared(lab.NewAPI)
	tool    = sync.OnceValues(findHelm)
)

func TestMain(m *testing.M) { os.Exit(cluster.Main(m)) }

// findHelm is the pinned one: $BRAID_HELM, else it is built where it is not there. It also opens
// each file of the chart, so that Go runs the tests again when one has changed, which Helm reads.
func findHelm() (string, error) {
	err := filepath.WalkDir("braid", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			_, err = os.ReadFile(path)
		}
		return err
	})
	if err != nil {
		return "", err
	}
	if path := os.Getenv("BRAID_HELM"); path != "" {
		return path, nil
	}
	out, err := exec.Command("../../scripts/tools.sh", "helm").Output()
	if err != nil {
		return "", fmt.Errorf("BRAID_HELM is not set, and scripts/tools.sh helm: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// helm runs it, and returns what it prints; the error has what it complains about.
func helm(t *testing.T, args ...string) (string, error) {
	t.Helper()
	path, err := tool()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Env = []string{
		"HOME=" + dir, "HELM_CONFIG_HOME=" + dir, "HELM_CACHE_HOME=" + dir, "HELM_DATA_HOME=" + dir,
	}
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("helm %q: %w: %s", args, err, &stderr)
	}
	return stdout.String(), nil
}

func mustHelm(t *testing.T, args ...string) string {
	t.Helper()
	out, err := helm(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// render is what Helm makes of the chart in a namespace.
func render(t *testing.T, namespace string, args ...string) string {
	t.Helper()
	return mustHelm(t, append([]string{"template", "braid", "braid", "--namespace", namespace},
		args...)...)
}

// objects lists what is rendered, as "Kind name", sorted.
func objects(t *testing.T, manifests string) (list []string) {
	t.Helper()
	for doc := range strings.SplitSeq(manifests, "\n---\n") {
		var object metav1.PartialObjectMetadata
		if err := yaml.Unmarshal([]byte(doc), &object); err != nil {
			t.Fatalf("%v: %s", err, doc)
		}
		if object.Kind != "" {
			list = append(list, object.Kind+" "+object.Name)
		}
	}
	slices.Sort(list)
	return list
}

// only is what is in the first list but not in the second.
func only(of, not []string) string {
	rest := slices.DeleteFunc(slices.Clone(of), func(o string) bool { return slices.Contains(not, o) })
	return strings.Join(rest, ", ")
}

// each are objects of several kinds that have the same names.
func each(kinds, names string) string {
	var all []string
	for kind := range strings.SplitSeq(kinds, ", ") {
		for name := range strings.SplitSeq(names, ", ") {
			all = append(all, kind+" "+name)
		}
	}
	return together(all...)
}

// together are the objects of several lists.
func together(lists ...string) string {
	all := strings.Split(strings.Join(lists, ", "), ", ")
	slices.Sort(all)
	return strings.Join(all, ", ")
}

func profiles(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("braid/profiles/*.yaml")
	if err != nil || len(files) != 8 {
		t.Fatalf("profiles: %v, %v", files, err)
	}
	return files
}

// The objects of parts of the chart.
var (
	scc       = each("Role, RoleBinding", "braid-agent-scc, braid-controller-scc")
	admission = each("ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding",
		"braid-node-blocks-changed, braid-node-blocks-deleted, braid-node-blocks-made, "+
			"braid-node-events, braid-node-pods, braid-node-status, braid-node-tokens")
	crd = each("CustomResourceDefinition", "ipamclaims.k8s.cni.cncf.io, ipblocks.ipam.braid-cni.io, "+
		"network-attachment-definitions.k8s.cni.cncf.io")
	people   = each("ClusterRole", "braid-nad-admin, braid-nad-viewer")
	webhooks = together(
		each("ClusterRole, ClusterRoleBinding, Role, RoleBinding", "braid-controller-admission"),
		each("MutatingWebhookConfiguration, PodDisruptionBudget, Service, "+
			"ValidatingWebhookConfiguration", "braid-controller"),
		"Secret braid-controller-tls")
)

// variant is one way to render the chart.
type variant struct {
	namespace string
	args      []string
	// more and less are the objects beside those by default.
	more, less string
}

// variants are what a user may leave out of the chart or add to it.
var variants = map[string]variant{
	"default":         {},
	"other namespace": {namespace: "braid-system"},
	"quota": {
		namespace: "braid-system", args: []string{"--set", "profile=gke"},
		more: "ResourceQuota braid-critical",
	},
	"no controller": {
		args: []string{"--set", "controller.enabled=false"},
		less: together(each("ClusterRole, ClusterRoleBinding, Deployment, Role, RoleBinding, "+
			"ServiceAccount", "braid-controller"), webhooks),
	},
	"no webhooks": {args: []string{"--set", "admission.enabled=false"}, less: webhooks},
	"no kinds":    {args: []string{"--set", "crds.install=false"}, less: crd},
	"no pods": {
		args: []string{"--set", "rbac.pods=false"},
		less: each("ClusterRole, ClusterRoleBinding", "braid-cni-pods"),
	},
	"no devices": {
		args: []string{"--set", "rbac.devices=false"},
		less: each("ClusterRole, ClusterRoleBinding", "braid-cni-devices"),
	},
	"no admission": {args: []string{"--set", "rbac.admission=false"}, less: admission},
	"no people":    {args: []string{"--set", "rbac.people=false"}, less: people},
	"pod monitor": {
		args: []string{"--set", "podMonitor.enabled=true,metrics.port=9464"},
		more: "PodMonitor braid-agent",
	},
	"no hook": {
		args: []string{"--set", "uninstall.hook=false"},
		less: each("ClusterRole, ClusterRoleBinding, Job, Role, RoleBinding, ServiceAccount",
			"braid-uninstall"),
	},
	"readiness": {
		args: []string{"--set", "nodeReadiness.enabled=true"},
		more: "NodeReadinessRule braid",
	},
	"everything": {
		args: []string{"--values", "testdata/all.yaml"},
		more: "NodeReadinessRule braid, PodMonitor braid-agent",
		less: together(each("ClusterRole, ClusterRoleBinding", "braid-cni-devices, braid-cni-pods"),
			people, crd, admission, webhooks),
	},
}

// The API server takes every object of every variant, and each variant has the objects that it is
// to have.
func TestVariants(t *testing.T) {
	server := cluster.Get(t)
	kinds, err := os.ReadFile("testdata/kinds.yaml")
	if err != nil {
		t.Fatal(err)
	}
	for _, manifests := range []string{
		string(kinds), "{apiVersion: v1, kind: Namespace, metadata: {name: braid-system}}",
	} {
		if err := server.Apply(t.Context(), manifests); err != nil {
			t.Fatal(err)
		}
	}
	base := objects(t, render(t, "kube-system"))
	all := maps.Clone(variants)
	for _, file := range profiles(t) {
		v := variant{args: []string{"--values", file}}
		if strings.Contains(file, "openshift") {
			v.more = scc
		}
		all[filepath.Base(file)] = v
	}
	for name, v := range all {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if v.namespace == "" {
				v.namespace = "kube-system"
			}
			manifests := render(t, v.namespace, v.args...)
			if err := server.DryRun(t.Context(), manifests); err != nil {
				t.Error(err)
			}
			got := objects(t, manifests)
			if more, less := only(got, base), only(base, got); more != v.more || less != v.less {
				t.Errorf("more objects: %s; want %s\nless: %s; want %s", more, v.more, less, v.less)
			}
			if v.namespace != "kube-system" && regexp.MustCompile("[=:] ?kube-system").
				MatchString(manifests) {
				t.Error("something is of kube-system")
			}
		})
	}
}

// Helm has nothing to say against the chart, with any profile or value.
func TestLint(t *testing.T) {
	for _, file := range append(profiles(t), "braid/values.yaml", "testdata/all.yaml") {
		t.Run(filepath.Base(file), func(t *testing.T) {
			t.Parallel()
			mustHelm(t, "lint", "--strict", "--values", file, "braid")
		})
	}
}

// decode finds the object of a kind in what is rendered.
func decode[T any](t *testing.T, manifests, kind string) (object T) {
	t.Helper()
	for doc := range strings.SplitSeq(manifests, "\n---\n") {
		if strings.Contains(doc, "\nkind: "+kind+"\n") {
			if err := yaml.UnmarshalStrict([]byte(doc), &object); err != nil {
				t.Fatal(err)
			}
			return object
		}
	}
	t.Fatalf("no %s is rendered", kind)
	return object
}

// Each value gets where it belongs.
func TestValuesReachTheObjects(t *testing.T) {
	manifests := render(t, "kube-system", "--values", "testdata/all.yaml")
	agent := decode[appsv1.DaemonSet](t, manifests, "DaemonSet").Spec
	want := []string{
		"--config=/etc/braid/config.json", "--profile=talos", "--service-account=kube-system/braid-cni",
		"--state-dir=/var/lib/other", "--run-dir=/host/run", "--log-level=debug",
		"--default-network=/etc/cni/net.d/05-cilium.conflist", "--cni-conf-dir=/etc/cni/here.d",
		"--cni-bin-dir=/opt/cni/here",
		"--move-default-network", "--private-conf-dir=/etc/cni/braid.d",
		"--api-server=https://[fd00::1]:6443",
	}
	if got := agent.Template.Spec.Containers[0].Args; !slices.Equal(got, want) {
		t.Errorf("the agent's arguments are\n%q, want\n%q", got, want)
	}
	controller := decode[appsv1.Deployment](t, manifests, "Deployment").Spec
	want = []string{
		"--namespace=kube-system", "--interval=2m", "--grace=1h30m", "--adopt-whereabouts=false",
		"--log-level=debug",
	}
	if got := controller.Template.Spec.Containers[0].Args; !slices.Equal(got, want) {
		t.Errorf("the controller's arguments are\n%q, want\n%q", got, want)
	}
	for _, pod := range []*appsv1.DaemonSetSpec{&agent, {Template: controller.Template}} {
		spec := pod.Template.Spec
		c := spec.Containers[0]
		if c.Image != "example/braid:v1.2.3" || c.ImagePullPolicy != "Always" ||
			spec.ImagePullSecrets[0].Name != "pull" {
			t.Errorf("image %s, %s, %v", c.Image, c.ImagePullPolicy, spec.ImagePullSecrets)
		}
		if len(spec.NodeSelector) == 0 || spec.Affinity == nil || len(pod.Template.Annotations) == 0 ||
			len(spec.Containers[0].Resources.Limits) != 1 {
			t.Errorf("pods %+v", pod.Template)
		}
	}
	webhooks := render(t, "kube-system", "--set",
		"admission.failurePolicy=Ignore,admission.timeoutSeconds=3")
	hook := decode[admissionv1.MutatingWebhookConfiguration](t, webhooks,
		"MutatingWebhookConfiguration").Webhooks[0]
	if *hook.FailurePolicy != admissionv1.Ignore || *hook.TimeoutSeconds != 3 {
		t.Errorf("the webhook for pods is %+v", hook)
	}
	digest := "sha256:" + strings.Repeat("0123456789abcdef", 4)
	agent = decode[appsv1.DaemonSet](t, render(t, "kube-system", "--set", "image.digest="+digest),
		"DaemonSet").Spec
	if got := agent.Template.Spec.Containers[0].Image; got != "braid@"+digest {
		t.Errorf("image by digest: %s", got)
	}
	data := decode[corev1.ConfigMap](t, manifests, "ConfigMap").Data["config.json"]
	var config any
	if err := json.Unmarshal([]byte(data), &config); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(readYAML(t, "testdata/all.yaml")["config"], config); diff != "" {
		t.Errorf("the configuration (-value +rendered):\n%s", diff)
	}
	interfaces, err := nodenet.Parse(
		[]byte(decode[corev1.ConfigMap](t, manifests, "ConfigMap").Data["node-interfaces.json"]))
	if err != nil || len(interfaces) != 5 || len(interfaces[0].Addresses("host1")) != 1 {
		t.Errorf("interfaces of the nodes: %+v, %v", interfaces, err)
	}
}

// TestU5GKERender: what is rendered of a cluster configuration are values of the chart.
func TestU5GKERender(t *testing.T) {
	c, problems, err := gke.Read("../gke/cluster.yaml")
	if err != nil || len(problems) > 0 {
		t.Fatal(problems, err)
	}
	values, err := c.Values()
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "values.yaml")
	if err := os.WriteFile(path, values, 0o600); err != nil {
		t.Fatal(err)
	}
	mustHelm(t, "lint", "--strict", "--values", path, "braid")
	data := decode[corev1.ConfigMap](t, render(t, "kube-system", "--values", path), "ConfigMap").Data
	interfaces, err := nodenet.Parse([]byte(data["node-interfaces.json"]))
	if err != nil || len(interfaces) != 2 || interfaces[1].Network != "gke-network-2" ||
		interfaces[0].Match.Index != 1 {
		t.Errorf("interfaces of the nodes: %+v, %v", interfaces, err)
	}
	keys := map[string]json.RawMessage{}
	if err := json.Unmarshal([]byte(data["config.json"]), &keys); err != nil {
		t.Fatal(err)
	}
	keys["name"], keys["clusterNetwork"] = json.RawMessage(`"braid"`), json.RawMessage(
		`"/etc/cni/net.d/05-cilium.conflist"`)
	text, err := json.Marshal(keys)
	if err != nil {
		t.Fatal(err)
	}
	got, err := conf.Load(text)
	if err != nil {
		t.Fatal(err)
	}
	want, err := conf.LoadFile("../gke/00-braid.conflist")
	if err != nil {
		t.Fatal(err)
	}
	diff := cmp.Diff(fmt.Sprintf("%+v", want.Rules), fmt.Sprintf("%+v", got.Rules))
	if diff != "" || got.LogFile != want.LogFile {
		t.Errorf("the policy is not that of conf/gke/00-braid.conflist:\n%s", diff)
	}
}

// What the schema does not know is refused, and the message names the key.
func TestBadValues(t *testing.T) {
	const interfaceA = "nodeInterfaces[0].network=a,nodeInterfaces[0].type="
	for value, names := range map[string]string{
		"imgae.tag=v1":                                        "imgae",
		"image.registry=x":                                    "registry",
		"image.repository=":                                   "/image/repository",
		"image.tag=a b":                                       "/image/tag",
		"image.digest=v1":                                     "/image/digest",
		"image.pullPolicy=Sometimes":                          "/image/pullPolicy",
		"image.pullSecrets={pull}":                            "/image/pullSecrets/0",
		"profile=k8s":                                         "/profile",
		"defaultNetwork=-x":                                   "/defaultNetwork",
		"cni.confDir=etc/cni":                                 "/cni/confDir",
		"cni.confdir=/etc/cni":                                "confdir",
		"stateDir=":                                           "/stateDir",
		"apiServer=10.0.0.1":                                  "/apiServer",
		"logLevel=loud":                                       "/logLevel",
		"config.kubeconfig=/k":                                "kubeconfig",
		"config.clusterNetwork=/etc/cni/x":                    "clusterNetwork",
		"config.namespaceIsolation=maybe":                     "/config/namespaceIsolation",
		"config.logFile=braid.log":                            "/config/logFile",
		"config.braid.unknownKeys=accept":                     "/config/braid/unknownKeys",
		"config.braid.nodeName=n":                             "nodeName",
		"config.braid.timeouts.api=20":                        "/config/braid/timeouts/api",
		"agent.maxUnavailable=0":                              "/agent/maxUnavailable",
		"nodeInterfaces[0].network=a":                         "/nodeInterfaces/0",
		"nodeInterfaces={a}":                                  "/nodeInterfaces/0",
		interfaceA + "auto,nodeInterfaces[0].match.index=1":   "/nodeInterfaces/0/type",
		interfaceA + "dhcp,nodeInterfaces[0].match.index=0":   "/nodeInterfaces/0/match/index",
		interfaceA + "dhcp,nodeInterfaces[0].match.indx=1":    "indx",
		interfaceA + "static,nodeInterfaces[0].match.index=1": "blocks",
		interfaceA + "dhcp,nodeInterfaces[0].match.mac=x":     "/nodeInterfaces/0/match/mac",
		"agent.maxUnavailable=0%":                             "/agent/maxUnavailable",
		"agent.resources.limits.memory=1Gi":                   "memory",
		"agent.resources.requests.memory=much":                "/agent/resources/requests/memory",
		"agent.goMemLimit=1G":                                 "/agent/goMemLimit",
		"agent.tolerations[0].operator=Is":                    "/agent/tolerations/0/operator",
		"controller.replicas=0":                               "/controller/replicas",
		"controller.interval=soon":                            "/controller/interval",
		"rbac.pods=yes":                                       "/rbac/pods",
		"metrics.port=70000":                                  "/metrics/port",
		"cni.moveDefaultNetwork=/etc/cni/braid.d":             "/cni/moveDefaultNetwork",
		"uninstall.restore=00-multus.conf":                    "/uninstall/restore",
		"uninstall.hook=yes":                                  "/uninstall/hook",
		"podMonitor.enabled=true":                             "/metrics/port",
		"nodeReadiness.enabled=true,nodeReadiness.mode=once":  "/nodeReadiness/mode",
	} {
		t.Run(value, func(t *testing.T) {
			t.Parallel()
			_, err := helm(t, "template", "braid", "braid", "--set", value)
			if err == nil || !strings.Contains(err.Error(), "schema") ||
				!strings.Contains(err.Error(), names) {
				t.Errorf("%v, want a refusal by the schema that names %s", err, names)
			}
		})
	}
}

// A package of the chart has all of it, and the version that the release gave it.
func TestPackage(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	mustHelm(t, "package", "braid", "--destination", dir, "--version", "1.2.3", "--app-version",
		"v1.2.3")
	got := mustHelm(t, "template", "braid", filepath.Join(dir, "braid-1.2.3.tgz"), "--namespace",
		"kube-system")
	want := strings.ReplaceAll(render(t, "kube-system"), "braid:devel", "braid:v1.2.3")
	if got != want {
		t.Errorf("the package renders otherwise (-want +got):\n%s", cmp.Diff(want, got))
	}
}

// Tokens are bound to nodes since Kubernetes 1.31.
func TestOldKubernetes(t *testing.T) {
	t.Parallel()
	for version, refused := range map[string]bool{
		"v1.30.9": true, "v1.31.0": false, "v1.32.3+k3s1": false, "v1.33.1-gke.100": false,
	} {
		_, err := helm(t, "template", "braid", "braid", "--kube-version", version)
		if (err != nil) != refused {
			t.Errorf("%s: %v, want it refused: %t", version, err, refused)
		}
	}
}

// A release comes beside Multus, is upgraded and goes. Kinds stay, with all that is of them, and
// Multus' own is not touched.
func TestRelease(t *testing.T) {
	server := cluster.Get(t)
	admin, err := server.Kubeconfig(lab.UserAdmin)
	if err != nil {
		t.Fatal(err)
	}
	ofMultus, err := os.ReadFile("../crd/network-attachment-definition.yaml")
	if err != nil {
		t.Fatal(err)
	}
	// As if Multus' chart had brought it.
	const begin = "metadata:\n  name: network-attachment"
	if before, after, ok := strings.Cut(string(ofMultus), begin); ok {
		ofMultus = []byte(before + strings.Replace(begin, "\n",
			"\n  annotations: {meta.helm.sh/release-name: multus}\n", 1) + after)
	}
	if err := server.Apply(t.Context(), string(ofMultus)); err != nil {
		t.Fatal(err)
	}
	run := func(verb string, args ...string) string {
		t.Helper()
		return mustHelm(t,
			append([]string{verb, "--kubeconfig", admin, "--namespace", "kube-system", "braid"}, args...)...)
	}
	client := server.Client()
	deployment := func() (*appsv1.Deployment, error) {
		return client.AppsV1().Deployments("kube-system").
			Get(t.Context(), "braid-controller", metav1.GetOptions{})
	}
	// owner is the release that a kind is of.
	owner := func(crd string) (string, error) {
		var object metav1.PartialObjectMetadata
		raw, err := client.CoreV1().RESTClient().Get().
			AbsPath("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/" + crd).DoRaw(t.Context())
		err = errors.Join(err, yaml.Unmarshal(raw, &object))
		return object.Annotations["meta.helm.sh/release-name"], err
	}
	check := func(when string, kinds map[string]string, replicas int32) {
		t.Helper()
		for kind, want := range kinds {
			if got, err := owner(kind); err != nil || got != want {
				t.Errorf("%s: kind %s is of release %q, %v, want %q", when, kind, got, err, want)
			}
		}
		d, err := deployment()
		switch {
		case replicas == 0 && !apierrors.IsNotFound(err):
			t.Errorf("%s: there is a Deployment: %v", when, err)
		case replicas > 0 && (err != nil || *d.Spec.Replicas != replicas):
			t.Errorf("%s: the Deployment is %+v, %v, want %d replicas", when, d, err, replicas)
		}
	}
	kinds := map[string]string{
		"network-attachment-definitions.k8s.cni.cncf.io": "multus", "ipblocks.ipam.braid-cni.io": "braid",
		"ipamclaims.k8s.cni.cncf.io": "braid",
	}
	notes := run("install", "braid")
	check("installed", kinds, 2)
	if !strings.Contains(notes, "release multus") || !strings.Contains(notes, "BraidReady") {
		t.Errorf("the notes do not say what becomes of Multus' kind, or how to see that Braid is "+
			"there:\n%s", notes)
	}
	run("upgrade", "braid", "--set", "controller.replicas=3")
	check("upgraded", kinds, 3)
	run("uninstall", "--no-hooks")
	check("uninstalled", kinds, 0)
	run("install", "braid")
	check("installed again", kinds, 2)
	run("uninstall", "--no-hooks")
}

// TestUninstallHook: nothing of the release is deleted before its Job has ended, whose account may
// do what `braidctl uninstall` does. A release whose Job does not end stays, and can be removed
// again.
func TestUninstallHook(t *testing.T) {
	server := cluster.Get(t)
	admin, err := server.Kubeconfig(lab.UserAdmin)
	if err != nil {
		t.Fatal(err)
	}
	const namespace = "kube-system"
	args := []string{"braid", "--kubeconfig", admin, "--namespace", namespace}
	mustHelm(t, append([]string{
		"install", "--set", "uninstall.restore=/etc/cni/former/00-multus.conf", "braid",
	}, args...)...)
	client := server.Client()
	agents := func() error {
		_, err := client.AppsV1().DaemonSets(namespace).
			Get(t.Context(), "braid-agent", metav1.GetOptions{})
		return err
	}
	out, err := helm(t, append([]string{"uninstall", "--timeout", "2s"}, args...)...)
	if err == nil || agents() != nil {
		t.Errorf("the Job has not ended: %v; the agents: %v; helm said %q", err, agents(), out)
	}

	// the default would wait for a controller that is not here
	background := metav1.DeletePropagationBackground
	err = client.BatchV1().Jobs(namespace).
		Delete(t.Context(), "braid-uninstall", metav1.DeleteOptions{PropagationPolicy: &background})
	if err != nil && !apierrors.IsNotFound(err) {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		done <- runJob(t, server, namespace, func(job *batchv1.Job) error {
			spec := job.Spec.Template.Spec
			want := []string{"uninstall", "-n=" + namespace, "--restore=/etc/cni/former/00-multus.conf"}
			if !slices.Equal(spec.Containers[0].Args, want) || !spec.HostNetwork {
				return fmt.Errorf("the Job runs %q, host network %t", spec.Containers[0].Args, spec.HostNetwork)
			}
			if err := agents(); err != nil {
				return err
			}
			kubeconfig, err := server.Kubeconfig(
				"system:serviceaccount:" + namespace + ":" + spec.ServiceAccountName)
			if err != nil {
				return err
			}
			api, err := kube.NewAPI(kube.APIOptions{
				Kubeconfig: kubeconfig, Version: "test", Timeout: time.Minute,
			})
			if err != nil {
				return err
			}
			defer api.Close()
			_, err = api.NodeReports(t.Context())
			return errors.Join(err, api.DeleteWebhooks(t.Context(), "braid-controller"),
				api.SetDaemonSetEnv(t.Context(), namespace, "braid-agent", "agent",
					map[string]string{"BRAID_UNINSTALL": "1"}))
		})
	}()
	mustHelm(t, append([]string{"uninstall", "--timeout", "1m"}, args...)...)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if err := agents(); !apierrors.IsNotFound(err) {
		t.Errorf("the agents are left: %v", err)
	}
	_, err = client.RbacV1().ClusterRoles().Get(t.Context(), "braid-uninstall", metav1.GetOptions{})
	if !apierrors.IsNotFound(err) {
		t.Errorf("the hook's role is left: %v", err)
	}
}

// runJob waits for the hook's Job, does its work, and has it be complete: here is no controller of
// Jobs.
func runJob(t *testing.T, server *lab.API, namespace string, do func(*batchv1.Job) error) error {
	jobs := server.Client().BatchV1().Jobs(namespace)
	var job *batchv1.Job
	err := wait.PollUntilContextTimeout(t.Context(), 50*time.Millisecond, time.Minute, true,
		func(ctx context.Context) (bool, error) {
			var err error
			job, err = jobs.Get(ctx, "braid-uninstall", metav1.GetOptions{})
			if apierrors.IsNotFound(err) {
				return false, nil
			}
			return err == nil, err
		})
	if err != nil {
		return err
	}
	failed := do(job)
	now := metav1.Now()
	job.Status = batchv1.JobStatus{
		StartTime: &now, CompletionTime: &now, Succeeded: 1,
		Conditions: []batchv1.JobCondition{
			{Type: batchv1.JobSuccessCriteriaMet, Status: corev1.ConditionTrue, LastTransitionTime: now},
			{Type: batchv1.JobComplete, Status: corev1.ConditionTrue, LastTransitionTime: now},
		},
	}
	_, err = jobs.UpdateStatus(t.Context(), job, metav1.UpdateOptions{})
	return errors.Join(failed, err)
}
