package resolve_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/policy"
	"github.com/braid-cni/braid/pkg/resolve"
)

// judged are the violations of a pod, as an ADD finds them, and its attachments.
func (c *cluster) judged(
	annotations map[string]string,
) ([]resolve.Judged, []plan.Attachment, error) {
	c.t.Helper()
	pod := c.pod("web/p", "")
	pod.Annotations = annotations
	resolver := c.resolver(&c.objs, nil)
	attachments, err := resolver.Attachments(c.t.Context(), resolve.Any(&c.cfg.Call), pod)
	if err != nil {
		c.t.Fatal(err)
	}
	for i := range attachments {
		for j := range 3 {
			attachments[i].Runs = append(attachments[i].Runs, policy.Run{Index: j})
		}
	}
	c.objs.asked = nil
	judged, err := resolver.Judge(c.t.Context(), pod, attachments)
	return judged, attachments, err
}

func (c *cluster) asked() string { return strings.Join(c.objs.asked, ", ") }

// The rule that names a namespace decides, else its label, which is asked for only where it
// matters.
func TestWhereThePolicyIsEnforced(t *testing.T) {
	for name, test := range map[string]struct {
		policy string
		labels map[string]string
		want   string
		asked  string
	}{
		"nothing is said": {"", nil, "audit", "namespace web"},
		"other label":     {"", map[string]string{"team": "a"}, "audit", "namespace web"},
		"label": {
			"",
			map[string]string{policy.TenantLabel: ""},
			"enforce",
			"namespace web",
		},
		"default is enforced": {`,"braid":{"policyDefault":"enforce"}`, nil, "enforce", ""},
		"rule":                {`,"braid":{"policy":[{"namespaces":["we*"]}]}`, nil, "enforce", ""},
		"rule that allows it": {
			`,"braid":{"policy":[{"namespaces":["web"],"masters":["*"]}]}`,
			map[string]string{policy.TenantLabel: ""},
			"", "",
		},
		"operator's": {
			`,"globalNamespaces":"web"`,
			map[string]string{policy.TenantLabel: ""},
			"", "",
		},
		"multusNamespace": {`,"multusNamespace":"web"`, nil, "", ""},
		"operator's, by rule": {
			`,"globalNamespaces":"web","braid":{"policy":[{"namespaces":["web"]}]}`,
			nil, "enforce", "",
		},
		"operator's, pattern": {
			`,"globalNamespaces":"web","braid":{"policy":[{"namespaces":["*"]}]}`,
			nil, "", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, test.policy)
			if test.labels != nil {
				c.objs.namespaces = map[string]map[string]string{"web": test.labels}
			}
			judged, attachments, err := c.judged(map[string]string{nadv1.NetworksAnnotation: "a,b"})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, j := range judged {
				got = append(got, fmt.Sprint(j.NAD, " ", j.IfName, " ", j.Key, " ", j.Effect))
			}
			var want []string
			if test.want != "" {
				want = []string{"web/a net1 masters " + test.want, "web/b net2 masters " + test.want}
			}
			if !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
			if c.asked() != test.asked {
				t.Errorf("asked for %q, want %q", c.asked(), test.asked)
			}
			err = resolve.Permit(judged, attachments)
			warnings := slices.Concat(attachments[0].Warnings, attachments[1].Warnings,
				attachments[2].Warnings)
			if (err != nil) != (test.want == "enforce") || (len(warnings) == 1) != (test.want == "audit") ||
				len(warnings) > 1 {
				t.Errorf("error %v, warnings %v", err, warnings)
			}
			if err != nil && (failure.ReasonOf(err) != failure.PolicyRefused ||
				!strings.Contains(err.Error(), "web/b plugins[0].master")) {
				t.Errorf("refused with %v", err)
			}
			if len(warnings) == 1 && warnings[0].Reason != failure.PolicyAudited {
				t.Errorf("warned with %v", warnings[0])
			}
		})
	}
}

// Labels that nobody may read hold no pod back, which is said; an API server that is away does.
func TestLabelsThatAreNotKnown(t *testing.T) {
	c := newCluster(t, "")
	c.objs.namespaceErr = apierrors.NewForbidden(schema.GroupResource{Resource: "namespaces"}, "web",
		errors.New("no role"))
	judged, attachments, err := c.judged(map[string]string{nadv1.NetworksAnnotation: "a"})
	if err != nil {
		t.Fatal(err)
	}
	if err := resolve.Permit(judged, attachments); err != nil {
		t.Error(err)
	}
	w := attachments[1].Warnings
	if len(w) != 1 || !strings.Contains(w[0].Error(),
		"whether namespace web is a tenant's is not known") {
		t.Errorf("warnings %v", w)
	}
	c.objs.namespaceErr = errors.New("connection refused")
	_, _, err = c.judged(map[string]string{nadv1.NetworksAnnotation: "a"})
	if failure.ReasonOf(err) != failure.APIUnavailable {
		t.Errorf("API server that is away: %v", err)
	}
}

// What a pod asks of the operator's networks is judged by the rule for the pod's namespace.
func TestM29M32RequestsAreThePods(t *testing.T) {
	c := newCluster(t, `,"braid":{"policyDefault":"enforce"}`)
	c.nad("default/open", `{"cniVersion":"1.0.0","plugins":[{"type":"macvlan","master":"ens1"},`+
		`{"type":"tuning"},{"type":"portmap","capabilities":{"portMappings":true}}]}`)
	c.nad("kube-system/other", `{"cniVersion":"1.0.0","type":"bridge"}`)
	judged, _, err := c.judged(map[string]string{
		nadv1.NetworksAnnotation: `[{"namespace":"default","name":"open","portMappings":[{"hostPort":22,"containerPort":22}],
			"cni-args":{"sysctl":{"net.ipv4.ip_forward":"1"}}}]`,
		nadv1.DefaultNetworkAnnotation: "other",
	})
	var got []string
	for _, j := range judged {
		got = append(got, fmt.Sprint(j.NAD, " ", j.Key, " ", j.Namespace, " ", j.Effect))
	}
	want := []string{
		"kube-system/other defaultNetworks web enforce", "default/open hostPorts web enforce",
		"default/open sysctls web enforce",
	}
	if err != nil || !slices.Equal(got, want) {
		t.Errorf("got %q, %v; want %q", got, err, want)
	}
}

// A NAD without a configuration is a file of the node, which is the operator's to lend.
func TestOnDiskIsTheOperators(t *testing.T) {
	c := newCluster(t, `,"braid":{"policyDefault":"enforce"}`)
	c.write("net/disk.conf", `{"cniVersion":"1.0.0","name":"disk","type":"host-device",`+
		`"device":"ens1"}`)
	c.nad("web/disk", "")
	judged, _, err := c.judged(map[string]string{nadv1.NetworksAnnotation: "disk"})
	if err != nil || len(judged) != 1 || judged[0].Key != "onDisk" {
		t.Errorf("got %v, %v", judged, err)
	}
}

// TestM28LabelAloneEnforces: where the label alone enforces, networks that nothing is wrong with
// are held to the tenant's default, too, as only the plugin finds out whose a bridge is.
func TestM28LabelAloneEnforces(t *testing.T) {
	for labels, want := range map[string]string{
		policy.TenantLabel: `{"namespace":"web","name":"fine","bridges":[],"ownBridges":true,` +
			`"spoofCheck":true,"hostPorts":[{"first":1024,"last":65535}],"masters":[]}`,
		"team": `{"namespace":"web"}`,
	} {
		c := newCluster(t, "")
		c.objs.namespaces = map[string]map[string]string{"web": {labels: ""}}
		c.nad("web/fine", `{"cniVersion":"1.0.0","name":"fine","type":"bridge","bridge":"br-other"}`)
		judged, attachments, err := c.judged(map[string]string{nadv1.NetworksAnnotation: "fine,fine"})
		if err != nil || len(judged) > 0 {
			t.Fatal(judged, err)
		}
		for _, a := range attachments[1:] {
			if got, err := json.Marshal(a.Limits); err != nil || string(got) != want {
				t.Errorf("label %s: limits %s, %v, want %s", labels, got, err, want)
			}
		}
		if c.asked() != "namespace web" {
			t.Errorf("asked for %q", c.asked())
		}
	}
}

// A pod without networks of its own asks for no label.
func TestNoNetworksNoLabel(t *testing.T) {
	c := newCluster(t, "")
	if _, _, err := c.judged(nil); err != nil || c.asked() != "" {
		t.Errorf("asked for %q, %v", c.asked(), err)
	}
}

// What only a plugin can find out it is told with the attachment, where a rule is enforced.
func TestEnforcedRulesBecomeLimits(t *testing.T) {
	for keys, want := range map[string]string{
		``: `{"namespace":"web"}`,
		`,"braid":{"policyDefault":"enforce"}`: `{"namespace":"web","name":"na","bridges":[],` +
			`"ownBridges":true,"spoofCheck":true,"hostPorts":[{"first":1024,"last":65535}],"masters":[]}`,
		`,"braid":{"policy":[{"namespaces":["web"],"bridges":["br-*"],"prefixes":["10.9.0.0/16"],` +
			`"hostPorts":{"ports":["80","90-99"],"loopback":true}}]}`: `{"namespace":"web","name":"na","bridges":["br-*"],"spoofCheck":true,"prefixes":["10.9.0.0/16"],"hostPorts":[{"first":80,"last":80},{"first":90,"last":99}],"loopbackPorts":true,"masters":[]}`,
		`,"braid":{"policy":[{"namespaces":["web"],"all":true}]}`:               `null`,
		`,"globalNamespaces":"web","braid":{"policy":[{"namespaces":["web"]}]}`: `null`,
	} {
		c := newCluster(t, keys)
		_, attachments, err := c.judged(map[string]string{nadv1.NetworksAnnotation: "a"})
		if err != nil {
			t.Fatal(err)
		}
		if got, err := json.Marshal(attachments[1].Limits); err != nil || string(got) != want {
			t.Errorf("%s: limits %s, %v, want %s", keys, got, err, want)
		}
	}
}
