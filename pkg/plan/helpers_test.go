package plan_test

import (
	"encoding/json"
	"maps"
	"reflect"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/plan"
)

// scenario is a node's configuration, a pod, and what exists in the cluster and on the disk.
type scenario struct {
	cfg         *conf.Config
	pod         *metav1.ObjectMeta
	nads        map[string]*nadv1.NetworkAttachmentDefinition // by "namespace/name"
	disk        map[string]string                             // by name or path
	devices     map[string][]string
	devicesErr  error
	requested   []string
	containerID string
	ifName      string
	args        [][2]string
}

// newScenario is a pod web/pod that asks for the networks of the annotation, on a node whose
// default network is "cluster".
func newScenario(networks string) *scenario {
	s := &scenario{
		cfg: &conf.Config{
			Call: conf.Call{CNIVersion: "1.0.0", Name: "braid"},
			Node: conf.Node{
				MultusNamespace: "kube-system", ConfDir: "/etc/cni/multus/net.d",
				SystemNamespaces: []string{"kube-system"},
				Delegates: []json.RawMessage{
					json.RawMessage(`{"cniVersion": "1.0.0", "name": "cluster", "type": "bridge"}`),
				},
			},
			Policy: conf.Policy{NamespaceIsolation: true, GlobalNamespaces: []string{"default"}},
		},
		pod:         &metav1.ObjectMeta{Namespace: "web", Name: "pod", Annotations: map[string]string{}},
		nads:        map[string]*nadv1.NetworkAttachmentDefinition{},
		disk:        map[string]string{},
		containerID: "c0ffee", ifName: "eth0",
		args: [][2]string{{"K8S_POD_NAME", "pod"}},
	}
	if networks != "" {
		s.pod.Annotations[nadv1.NetworksAnnotation] = networks
	}
	s.nad("web/a", `{"cniVersion": "0.3.1", "name": "a", "type": "macvlan", "master": "eth1"}`)
	s.nad("web/b", `{"cniVersion": "0.3.1", "name": "b", "type": "ipvlan", "master": "eth1"}`)
	return s
}

func (s *scenario) nad(ref, config string) *nadv1.NetworkAttachmentDefinition {
	namespace, name, _ := strings.Cut(ref, "/")
	n := &nadv1.NetworkAttachmentDefinition{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Annotations: map[string]string{}},
		Spec:       nadv1.NetworkAttachmentDefinitionSpec{Config: config},
	}
	s.nads[ref] = n
	return n
}

// plan does what the engine does: requests, definitions, attachments.
func (s *scenario) plan() ([]plan.Attachment, error) {
	requests, err := plan.Requests(&s.cfg.Node, &s.cfg.Policy, s.pod)
	if err != nil {
		return nil, err
	}
	in := plan.Input{
		Node: &s.cfg.Node, Policy: &s.cfg.Policy, Call: &s.cfg.Call, Pod: s.pod,
		ContainerID: s.containerID, IfName: s.ifName, Args: s.args, Requests: requests,
		Devices: s.devices, DevicesErr: s.devicesErr, Requested: s.requested,
	}
	for _, r := range requests {
		in.Definitions = append(in.Definitions, s.define(r))
	}
	return plan.Make(in)
}

func (s *scenario) define(r plan.Request) plan.Definition {
	nad := s.nads[r.Namespace+"/"+r.Name]
	switch {
	case r.Inline != nil:
		return plan.Definition{Conf: r.Inline}
	case r.File != "":
		return plan.Definition{Conf: json.RawMessage(s.disk[r.File])}
	case nad != nil && nad.Spec.Config != "":
		return plan.Definition{NAD: nad}
	case nad != nil || r.OnDisk:
		return plan.Definition{NAD: nad, Conf: json.RawMessage(s.disk[r.Name])}
	}
	return plan.Definition{}
}

func (s *scenario) must(t *testing.T) []plan.Attachment {
	t.Helper()
	got, err := s.plan()
	if err != nil {
		t.Fatalf("refused: %v", err)
	}
	return got
}

// refused checks the class of the error and that its text holds all of the words.
func (s *scenario) refused(t *testing.T, reason failure.Reason, words ...string) {
	t.Helper()
	got, err := s.plan()
	if failure.ReasonOf(err) != reason {
		t.Fatalf("reason %q, want %q: error %v, attachments %+v", failure.ReasonOf(err), reason, err, got)
	}
	for _, word := range words {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error does not say %q: %v", word, err)
		}
	}
}

func names(attachments []plan.Attachment, of func(plan.Attachment) string) []string {
	var out []string
	for _, a := range attachments {
		out = append(out, of(a))
	}
	return out
}

func ifNames(attachments []plan.Attachment) []string {
	return names(attachments, func(a plan.Attachment) string { return a.IfName })
}

func displayNames(attachments []plan.Attachment) []string {
	return names(attachments, func(a plan.Attachment) string { return a.Name })
}

func want(t *testing.T, what string, got, want any) {
	t.Helper()
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%s:\n got %#v\nwant %#v", what, got, want)
	}
}

// list is an attachment's conflist, decoded with the numbers as written.
type list struct {
	CNIVersion string                       `json:"cniVersion"`
	Name       string                       `json:"name"`
	Plugins    []map[string]json.RawMessage `json:"plugins"`
}

func decode(t *testing.T, a plan.Attachment) list {
	t.Helper()
	var l list
	if err := json.Unmarshal(a.Conf, &l); err != nil {
		t.Fatalf("conf of %s: %v", a.Name, err)
	}
	return l
}

// sameJSON compares the meaning of two texts, numbers by their text.
func sameJSON(t *testing.T, what, got, want string) {
	t.Helper()
	decode := func(text string) any {
		dec := json.NewDecoder(strings.NewReader(text))
		dec.UseNumber()
		var v any
		if err := dec.Decode(&v); err != nil {
			t.Fatalf("%s: %v in %s", what, err, text)
		}
		return v
	}
	if !reflect.DeepEqual(decode(got), decode(want)) {
		t.Errorf("%s:\n got %s\nwant %s", what, got, want)
	}
}

// runtimeConfig is an attachment's, as text.
func runtimeConfig(a plan.Attachment) map[string]string {
	out := map[string]string{}
	for k, v := range maps.All(a.RuntimeConfig) {
		out[k] = string(v)
	}
	return out
}
