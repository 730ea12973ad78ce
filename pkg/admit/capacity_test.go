package admit_test

import (
	"maps"
	"strings"
	"testing"

	admissionv1 "k8s.io/api/admission/v1"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/braid-cni/braid/pkg/capacity"
	"github.com/braid-cni/braid/pkg/failure"
)

// TestU10CapacityRequests: a pod requests the resource of each network that asks for it, once for
// each attachment, for the scheduler to find a node.
func TestU10CapacityRequests(t *testing.T) {
	t.Parallel()
	const room, theirs = "braid-cni.io/web.room", "braid-cni.io/default.wide"
	amounts := func(n string) corev1.ResourceRequirements {
		list := corev1.ResourceList{room: resource.MustParse(n)}
		return corev1.ResourceRequirements{Requests: list, Limits: list}
	}
	for name, test := range map[string]struct {
		networks string
		edit     func(*corev1.Pod)
		want     []string // of each container
	}{
		"once":  {networks: "room", want: []string{room + "=1", ""}},
		"twice": {networks: "room,a,room", want: []string{room + "=2", ""}},
		"two networks": {
			networks: "room,default/wide",
			want:     []string{theirs + "=1 " + room + "=1", ""},
		},
		"one that does not ask": {networks: "a", want: []string{"", ""}},
		"one that says so":      {networks: "off", want: []string{"", ""}},
		"requested already": {networks: "room", edit: func(p *corev1.Pod) {
			p.Spec.Containers[1].Resources = amounts("1")
		}, want: []string{"", room + "=1"}},
		"some of it": {networks: "room,room", edit: func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources = amounts("1")
		}, want: []string{room + "=1", room + "=1"}},
		"bound to a node": {networks: "room", edit: func(p *corev1.Pod) {
			p.Spec.NodeName = "n"
		}, want: []string{"", ""}},
		"claims of devices": {networks: "room", edit: func(p *corev1.Pod) {
			p.Spec.ResourceClaims = []corev1.PodResourceClaim{{Name: "gpu"}}
		}, want: []string{room + "=1", ""}},
		"an address that is kept": {
			networks: `[{"name": "room", "ipam-claim-reference": "vm"}]`,
			want:     []string{"", ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, "")
			c.nad("web/room", capacity.ScheduleAnnotation, "true")
			c.nad("default/wide", capacity.ScheduleAnnotation, "true")
			c.nad("web/off", capacity.ScheduleAnnotation, "false")
			for _, nad := range c.nads {
				nad.Spec.Config = strings.Replace(nad.Spec.Config, `"type"`,
					`"capabilities": {"ips": true}, "type"`, 1)
			}
			p := pod(test.networks)
			if test.edit != nil {
				test.edit(p)
			}
			got, v := c.create(p)
			if got == nil || len(v.Warnings) > 0 {
				t.Fatal(v.Denied, v.Unknown, v.Warnings)
			}
			for i, c := range got.Spec.Containers {
				if !maps.EqualFunc(c.Resources.Requests, c.Resources.Limits, func(a, b resource.Quantity) bool {
					return a.Equal(b)
				}) || requests(&c) != test.want[i] {
					t.Errorf("container %s requests %q of %+v, want %q",
						c.Name, requests(&c), c.Resources, test.want[i])
				}
			}
			if _, v := c.create(got); len(v.Patch) > 0 {
				t.Errorf("judged again it is changed again: %s", v.Patch)
			}
		})
	}
}

func requests(c *corev1.Container) string {
	var all []string
	for _, name := range []corev1.ResourceName{"braid-cni.io/default.wide", "braid-cni.io/web.room"} {
		if q, ok := c.Resources.Requests[name]; ok {
			all = append(all, string(name)+"="+q.String())
		}
	}
	return strings.Join(all, " ")
}

// The template of a workload stays as it is: its pods are changed when they are made.
func TestU10CapacityOfTemplates(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "")
	c.nad("web/room", capacity.ScheduleAnnotation, "true")
	p := pod("room")
	d := &appsv1.Deployment{
		Spec: appsv1.DeploymentSpec{
			Template: corev1.PodTemplateSpec{ObjectMeta: p.ObjectMeta, Spec: p.Spec},
		},
	}
	if v := c.review("Deployment", admissionv1.Create, d, nil); v.Denied != nil || len(v.Patch) > 0 ||
		len(v.Warnings) > 0 {
		t.Errorf("%+v", v)
	}
}

// The annotation is judged with its NAD; pods wait for ever for what a NAD no longer asks for.
func TestU10CapacityOfNAD(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "")
	denied(t, "yes", c.review(kind, admissionv1.Create,
		c.nad("web/o", capacity.ScheduleAnnotation, "yes"), nil), failure.NADInvalid, capacity.Field,
		`"true"`)
	asks := c.nad("web/o", capacity.ScheduleAnnotation, "true")
	if v := c.review(kind, admissionv1.Create, asks, nil); v.Denied != nil ||
		warned(v, capacity.ScheduleAnnotation) {
		t.Errorf("true: %+v", v)
	}
	if v := c.review(kind, admissionv1.Update, c.nad("web/o"), asks); v.Denied != nil ||
		!warned(v, "braid-cni.io/web.o", "Pending") {
		t.Errorf("taken away: %+v", v)
	}
	if v := c.review(kind, admissionv1.Update, asks, c.nad("web/o")); v.Denied != nil ||
		warned(v, capacity.ScheduleAnnotation) {
		t.Errorf("added: %+v", v)
	}
}
