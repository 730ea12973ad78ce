package admit_test

import (
	"errors"
	"fmt"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	appsv1 "k8s.io/api/apps/v1"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/failure"
)

const kind = nadv1.Kind

// A NAD that no pod could use is denied, with field and remedy; the remedy applied, it is admitted.
func TestU8NADsThatNoPodCouldUse(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		keys, config, selector string
		reason                 failure.Reason
		words                  []string
		mend                   func(*cluster, *nadv1.NetworkAttachmentDefinition)
	}{
		"comment": {
			config: "{\"type\": \"macvlan\" # why\n}", reason: failure.NADInvalid,
			words: []string{"comment", "remove"}, mend: configure(plainMacvlan),
		},
		"comma": {
			config: `{"type": "macvlan",}`, reason: failure.NADInvalid,
			words: []string{"line 1 column", "remove the comma"}, mend: configure(plainMacvlan),
		},
		"no type": {
			config: `{"cniVersion": "1.0.0"}`, reason: failure.NADInvalid,
			words: []string{`"type"`}, mend: configure(plainMacvlan),
		},
		"meta plugin": {
			config: `{"cniVersion": "1.0.0", "type": "multus"}`, reason: failure.NADInvalid,
			words: []string{"multus"}, mend: configure(plainMacvlan),
		},
		"policy": {
			keys:   `,"braid": {"policyDefault": "enforce"}`,
			config: `{"cniVersion": "1.0.0", "type": "macvlan", "master": "eth1"}`,
			reason: failure.PolicyRefused, words: []string{"master"},
			mend: func(c *cluster, _ *nadv1.NetworkAttachmentDefinition) {
				c.configure(`,"braid": {"policyDefault": "enforce", "policy": [{"namespaces": ["web"], ` +
					`"masters": ["eth1"]}]}`)
			},
		},
		"selector": {
			config: plainMacvlan, selector: "a in (b", reason: failure.NADInvalid,
			words: []string{"nodeSelector"},
			mend: func(_ *cluster, nad *nadv1.NetworkAttachmentDefinition) {
				nad.Annotations[nadv1.NodeSelectorAnnotation] = "a in (b)"
			},
		},
		"selector of no node": {
			config: plainMacvlan, selector: "a=b,a=c", reason: failure.NADInvalid,
			words: []string{"no node can have all of it", "remove what contradicts"},
			mend: func(_ *cluster, nad *nadv1.NetworkAttachmentDefinition) {
				nad.Annotations[nadv1.NodeSelectorAnnotation] = "a=b"
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, test.keys)
			nad := c.nad("web/o")
			nad.Spec.Config = test.config
			if test.selector != "" {
				nad.Annotations[nadv1.NodeSelectorAnnotation] = test.selector
			}
			denied(t, name, c.review(kind, admissionv1.Create, nad, nil), test.reason, test.words...)
			// Whoever changes a label of it, or deletes it, is not held up.
			changed := labelled(nad)
			if v := c.review(kind, admissionv1.Update, changed, nad); v.Denied != nil {
				t.Errorf("a label: %v", v.Denied)
			}
			now := metav1.Now()
			changed.Spec.Config += " "
			changed.DeletionTimestamp = &now
			if v := c.review(kind, admissionv1.Update, changed, nad); v.Denied != nil {
				t.Errorf("being deleted: %v", v.Denied)
			}
			test.mend(c, nad)
			if v := c.review(kind, admissionv1.Create, nad, nil); v.Denied != nil || v.Unknown != nil {
				t.Errorf("after the remedy: %v, %v", v.Denied, v.Unknown)
			}
		})
	}
}

const plainMacvlan = `{"cniVersion": "1.0.0", "type": "macvlan", "master": "eth1"}`

// configure is a remedy: another configuration.
func configure(config string) func(*cluster, *nadv1.NetworkAttachmentDefinition) {
	return func(_ *cluster, nad *nadv1.NetworkAttachmentDefinition) { nad.Spec.Config = config }
}

// What may be meant so is a warning.
func TestNADWarnings(t *testing.T) {
	t.Parallel()
	whereabouts := func(keys string) string {
		return fmt.Sprintf(`{"cniVersion": "1.0.0", "type": "macvlan", "master": "eth1", `+
			`"ipam": {"type": "whereabouts", %s}}`, keys)
	}
	for name, test := range map[string]struct {
		mine, theirs string
		words        []string
	}{
		"the same": {
			`"range": "10.0.0.0/24", "gateway": "10.0.0.1"`,
			`"range": "10.0.0.9-10.0.0.20/24", "gateway": "10.0.0.1"`, nil,
		},
		"another space": {
			`"range": "10.0.0.0/24"`,
			`"range": "10.0.0.0/16", "network_name": "x"`, nil,
		},
		"apart": {`"range": "10.0.0.0/24"`, `"range": "10.0.1.0/24"`, nil},
		"not shared": {
			`"range": "10.0.0.0/24"`,
			`"range": "10.0.0.0/16", "enable_overlapping_ranges": false`, nil,
		},
		"overlap": {
			`"range": "10.0.0.0/24"`,
			`"ipRanges": [{"range": "fd00::/64"}, {"range": "10.0.0.0/16"}]`,
			[]string{"other/theirs", "10.0.0.0/16", "network_name"},
		},
		"another gateway": {
			`"range": "10.0.0.0/24", "gateway": "10.0.0.1"`,
			`"range": "10.0.0.0/24", "gateway": "10.0.0.2"`,
			[]string{"gateway 10.0.0.2"},
		},
		"no range of ours": {`"range": "10.0.0.0/24"`, `"range": "x"`, nil},
	} {
		c := newCluster(t, "")
		nad := c.nad("web/o")
		nad.Spec.Config = whereabouts(test.mine)
		c.nads["other/theirs"].Spec.Config = whereabouts(test.theirs)
		v := c.review(kind, admissionv1.Create, nad, nil)
		if v.Denied != nil || test.words != nil && !warned(v, test.words...) ||
			test.words == nil && warned(v, "other/theirs") {
			t.Errorf("%s: %v, %v", name, v.Denied, v.Warnings)
		}
	}
	c := newCluster(t, "")
	if v := c.review(kind, admissionv1.Create, c.nad("web/o", nadv1.ResourceNameAnnotation, "nic"),
		nil); v.Denied != nil || !warned(v, "resourceName", "vendor.com/nic") {
		t.Errorf("%+v", v)
	}
}

// Who changes or deletes a NAD is told which pods have the network.
func TestNADInUse(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "")
	for i := range 5 {
		name := fmt.Sprint("p", i)
		c.pods = append(c.pods, metav1.ObjectMeta{
			Namespace: "web", Name: name,
			Annotations: map[string]string{nadv1.NetworksAnnotation: "b, o@net7"},
		})
	}
	c.pods = append(c.pods,
		metav1.ObjectMeta{
			Namespace: "web", Name: "other",
			Annotations: map[string]string{nadv1.NetworksAnnotation: "o2,default/o"},
		},
		metav1.ObjectMeta{
			Namespace: "web", Name: "broken", Annotations: map[string]string{nadv1.NetworksAnnotation: "[o"},
		})
	before := c.nad("web/o")
	after := labelled(before)
	after.Spec.Config = `{"cniVersion": "1.0.0", "type": "ipvlan", "master": "eth1"}`
	if v := c.review(kind, admissionv1.Update, after, before); v.Denied != nil ||
		!warned(v, "5 pods (web/p0, web/p1, web/p2, ...)") {
		t.Errorf("changed: %+v", v)
	}
	if v := c.review(kind, admissionv1.Delete, nil, before); v.Denied != nil || !warned(v, "5 pods") {
		t.Errorf("deleted: %+v", v)
	}
	c.err = errors.New("down")
	if v := c.review(kind, admissionv1.Delete, nil, before); v.Denied != nil || v.Unknown != nil {
		t.Errorf("it is denied when pods cannot be listed: %+v", v)
	}
}

// Templates of pods are warned of, not denied, and once.
func TestWorkloads(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "")
	c.selecting("web/n", "pool=data")
	template := func(networks string) corev1.PodTemplateSpec {
		p := pod(networks)
		return corev1.PodTemplateSpec{ObjectMeta: p.ObjectMeta, Spec: p.Spec}
	}
	of := map[string]func(string) any{
		"Deployment": func(n string) any {
			return &appsv1.Deployment{Spec: appsv1.DeploymentSpec{Template: template(n)}}
		},
		"StatefulSet": func(n string) any {
			return &appsv1.StatefulSet{Spec: appsv1.StatefulSetSpec{Template: template(n)}}
		},
		"DaemonSet": func(n string) any {
			return &appsv1.DaemonSet{Spec: appsv1.DaemonSetSpec{Template: template(n)}}
		},
		"Job": func(n string) any {
			return &batchv1.Job{Spec: batchv1.JobSpec{Template: template(n)}}
		},
		"CronJob": func(n string) any {
			return &batchv1.CronJob{
				Spec: batchv1.CronJobSpec{
					JobTemplate: batchv1.JobTemplateSpec{Spec: batchv1.JobSpec{Template: template(n)}},
				},
			}
		},
	}
	for kind, object := range of {
		for networks, words := range map[string][]string{
			"a": nil, "none": {"would be refused", "none"},
			"other/theirs": {"would be refused", "other/theirs"},
		} {
			v := c.review(kind, admissionv1.Create, object(networks), nil)
			if v.Denied != nil || len(v.Patch) > 0 || words != nil && !warned(v, words...) ||
				words == nil && len(v.Warnings) > 0 {
				t.Errorf("%s with %s: %+v", kind, networks, v)
			}
		}
		if v := c.review(kind, admissionv1.Update, object("none"), object("none")); len(v.Warnings) > 0 {
			t.Errorf("%s: an unchanged template: %v", kind, v.Warnings)
		}
	}
	if v := c.review("DaemonSet", admissionv1.Create, of["DaemonSet"]("n"), nil); !warned(v,
		"stay Pending", "pool=data") {
		t.Errorf("a DaemonSet: %v", v.Warnings)
	}
	selected := template("n")
	selected.Spec.NodeSelector = map[string]string{"pool": "data"}
	if v := c.review("DaemonSet", admissionv1.Create,
		&appsv1.DaemonSet{Spec: appsv1.DaemonSetSpec{Template: selected}}, nil); len(v.Warnings) > 0 {
		t.Errorf("after the remedy: %v", v.Warnings)
	}
}

// labelled is a NAD with a label more.
func labelled(nad *nadv1.NetworkAttachmentDefinition) *nadv1.NetworkAttachmentDefinition {
	other := *nad
	other.Labels = map[string]string{"x": "y"}
	return &other
}
