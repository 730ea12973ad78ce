package e2e_test

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/e2e/corpus"
	"github.com/braid-cni/braid/e2e/lab"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

// expected is what becomes of the first pod of a file of the corpus.
type expected struct {
	// refused is the reason of the event of a pod that does not start, says words of its message.
	refused string
	says    []string
	// has are interfaces beside eth0: a name, and what of `ip address` is certain of it.
	has []string
	// route is the pod's default route, where it is not eth0's.
	route string
	// warned are the reasons of its warnings.
	warned []string
}

// corpusOnNode is what is expected on this node, which has neither ipvlan nor VLANs: macvlan stands
// in for the one, and files with the other are left to the tests in the user-mode kernel.
func corpusOnNode() map[string]expected {
	return map[string]expected{
		"01": {
			has:    []string{"net1 10.102.1.101/24 c2:b0:57:49:47:f1"},
			warned: []string{"DefaultRouteKept", "IgnoredKey"},
		},
		"03": {has: []string{"net1 10.102.1.21/24"}, route: "default via 10.102.1.254 dev net1"},
		"04": {has: []string{"net1 10.102.1.11/24"}},
		"06": {has: []string{"net1 10.41.0."}},
		"08": {has: []string{"net1 10.96.6."}},
		"12": {has: []string{"net1 10.96.12."}},
		"15": {has: []string{"net1 10.146.200."}, warned: []string{"DefaultRouteKept"}},
		"17": {has: []string{"net1 10.146.1."}, warned: []string{"DefaultRouteKept"}},
		"20": {has: []string{"n3 10.77.53.233/29"}, warned: []string{"DefaultRouteKept", "IgnoredKey"}},
		"22": {has: []string{"n3 10.182.0.2/24"}, warned: []string{"IgnoredKey"}},
		"23": {has: []string{"eth1 10.172.30.", "eth2 10.172.30."}},
		"24": {has: []string{"access 10.146.252.3/24 00:00:00:00:00:03"}},
		"27": {has: []string{"net1 10.146.0."}},
		"30": {has: []string{"net1 10.146.122.30/24 fd00:aaaa::30/64"}},
		"33": {has: []string{"pod16367aacb67 02:00:00:00:00:01"}},
		"34": {refused: "PluginNotFound", says: []string{"cnv-bridge", "/opt/cni/bin"}},
		"42": {refused: "PluginNotFound", says: []string{"route-override", "/opt/cni/bin"}},
		"56": {has: []string{"net1 10.146.2."}, warned: []string{"IgnoredKey"}},
	}
}

// TestCorpus runs the pods of real users, as they are but for masters that this node has not.
func TestCorpus(t *testing.T) {
	files, err := corpus.All()
	if err != nil {
		t.Fatal(err)
	}
	onNode := corpusOnNode()
	for _, f := range files {
		want, ok := onNode[f.Name]
		if !ok {
			continue
		}
		t.Run(f.Name, func(t *testing.T) { runFile(t, f, want) })
	}
}

// TestCorpusRouteOverride is the file of the corpus that wants a plugin of others, with that
// plugin.
func TestCorpusRouteOverride(t *testing.T) {
	files, err := corpus.All()
	if err != nil {
		t.Fatal(err)
	}
	node, dir := shared.Get(t).Nodes()[0], t.TempDir()
	err = lab.Build(t.Context(), dir, "github.com/braid-cni/braid/e2e/lab/route-override")
	if err != nil {
		t.Fatal(err)
	}
	const installed = "/opt/cni/bin/route-override"
	if err := node.Install(filepath.Join(dir, "route-override"), installed, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if _, err := node.Run(context.Background(), "rm", installed); err != nil {
			t.Error(err)
		}
	})
	i := slices.IndexFunc(files, func(f corpus.File) bool { return f.Name == "42" })
	w := runFile(t, files[i], expected{has: []string{"net1 10.146.12.5/24"}})
	routes := w.ip("pod-a", "route")
	if !slices.Contains(routes, "10.146.8.0/24 via 10.146.12.1 dev net1") {
		t.Errorf("route-override's route is not there: %q", routes)
	}
}

// runFile makes the NAD and the pods of a file in the test's namespace.
func runFile(t *testing.T, f corpus.File, want expected) *workspace {
	w := newWorkspace(t)
	w.removeBridges()
	masters := regexp.MustCompile(`"master": "[^"]*"`)
	w.nad(f.NAD.Name, strings.NewReplacer(`"ipvlan"`, `"macvlan"`, `"l2"`, `"bridge"`).Replace(
		masters.ReplaceAllString(f.NAD.Spec.Config, `"master": "eth1"`)), pairs(f.NAD.Annotations)...)
	var pods []*corev1.Pod
	for _, p := range f.Pods {
		networks := strings.NewReplacer(f.NAD.Namespace+"/", w.namespace+"/",
			`"namespace":"`+f.NAD.Namespace+`"`, `"namespace":"`+w.namespace+`"`).
			Replace(p.Annotations[nadv1.NetworksAnnotation])
		pods = append(pods, lab.Pod(w.namespace, p.Name,
			map[string]string{nadv1.NetworksAnnotation: networks}))
	}
	w.create(pods...)
	first := f.Pods[0].Name
	if want.refused != "" {
		message := w.refused(first, want.refused)
		for _, word := range want.says {
			if !strings.Contains(message, word) {
				t.Errorf("the event does not say %q: %s", word, message)
			}
		}
		return w
	}
	for _, p := range pods {
		w.running(w.namespace, p.Name)
	}
	w.meets(first, want)
	return w
}

// meets compares a pod that runs with what is expected.
func (w *workspace) meets(pod string, want expected) {
	w.t.Helper()
	links := w.links(pod)
	if len(links) != len(want.has)+1 || len(w.status(pod)) != len(links) {
		w.t.Errorf("pod %s has interfaces %v and network-status %+v, want eth0 and %q",
			pod, links, w.status(pod), want.has)
	}
	for _, text := range want.has {
		name, rest, _ := strings.Cut(text, " ")
		got := strings.Join(append(links[name].global(), links[name].MAC), " ")
		for part := range strings.FieldsSeq(rest) {
			if !strings.Contains(" "+got, " "+part) {
				w.t.Errorf("%s of pod %s has %s, want %s", name, pod, got, part)
			}
		}
	}
	route := want.route
	if route == "" {
		route = "default via 10.244.0.1 dev eth0"
	}
	equalLines(w.t, "default route", w.ip(pod, "route show default"), []string{route})
	for _, reason := range want.warned {
		w.eventually("warning "+reason+" of pod "+pod, func() error {
			events, err := w.cluster.Client().CoreV1().Events(w.namespace).List(w.ctx, metav1.ListOptions{
				FieldSelector: "involvedObject.name=" + pod + ",reason=" + reason + ",type=Warning",
			})
			if err == nil && len(events.Items) == 0 {
				err = fmt.Errorf("there is none")
			}
			return err
		})
	}
}

// removeBridges removes, when the test ends, the bridges that its networks made: they stay by
// design.
func (w *workspace) removeBridges() {
	before, err := w.node.Run(w.ctx, "ip", "-oneline", "link", "show", "type", "bridge")
	w.must(err)
	w.t.Cleanup(func() {
		after, err := w.node.Run(context.Background(), "ip", "-oneline", "link", "show", "type", "bridge")
		if err != nil {
			w.t.Error(err)
		}
		for line := range strings.Lines(after) {
			name := strings.TrimSuffix(strings.Fields(line)[1], ":")
			if !strings.Contains(before, " "+name+": ") {
				if _, err := w.node.Run(context.Background(), "ip", "link", "delete", name); err != nil {
					w.t.Error(err)
				}
			}
		}
	})
}

// pairs are the keys and values of annotations in turn.
func pairs(annotations map[string]string) []string {
	var out []string
	for key, value := range annotations {
		out = append(out, key, value)
	}
	return out
}
