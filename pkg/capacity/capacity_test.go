package capacity_test

import (
	"fmt"
	"maps"
	"math"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/braid-cni/braid/pkg/capacity"
	"github.com/braid-cni/braid/pkg/failure"
)

func TestAsks(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]bool{
		"true": true, " true\n": true, "false": false, "": false,
	} {
		got, err := capacity.Asks(&metav1.ObjectMeta{
			Annotations: map[string]string{capacity.ScheduleAnnotation: value},
		})
		if got != want || err != nil {
			t.Errorf("%q: %v, %v", value, got, err)
		}
	}
	_, err := capacity.Asks(&metav1.ObjectMeta{
		Namespace: "web", Name: "a", Annotations: map[string]string{capacity.ScheduleAnnotation: "yes"},
	})
	if failure.ReasonOf(err) != failure.NADInvalid || !strings.Contains(err.Error(), "web/a") {
		t.Errorf("yes: %v", err)
	}
}

// The name of each NAD is one that a resource can have, also in a quota, and no other NAD's.
func TestResource(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("n", 62)
	seen := map[string]string{}
	for _, ref := range []types.NamespacedName{
		{Namespace: "default", Name: "gke-network-1"},
		{Namespace: "default", Name: "a.b"},
		{Namespace: "default.a", Name: "b"},
		{Namespace: "a", Name: strings.Repeat("b", 60)},
		{Namespace: "a", Name: strings.Repeat("b", 61)},
		{Namespace: "a", Name: strings.Repeat("b", 62)},
		{Namespace: long, Name: "a"},
		{Namespace: long, Name: "b"},
		{Namespace: long, Name: long},
		{Namespace: long, Name: long + "." + long},
		{Namespace: "a", Name: strings.Repeat("b.", 120) + "c"},
	} {
		nad := &metav1.ObjectMeta{Namespace: ref.Namespace, Name: ref.Name}
		name := capacity.Resource(nad)
		problems := append(validation.IsQualifiedName(name),
			validation.IsQualifiedName("requests."+name)...)
		if len(problems) > 0 && ref.Namespace != "default.a" {
			t.Errorf("%v: %s: %v", ref, name, problems)
		}
		if before, ok := seen[name]; ok && ref.Namespace != "default.a" {
			t.Errorf("%v and %s are both %s", ref, before, name)
		}
		seen[name] = ref.String()
	}
	if _, ok := seen["braid-cni.io/default.gke-network-1"]; !ok {
		t.Errorf("names %v", seen)
	}
	// A NAD whose name looks like the end of a hash has another name than the one that is hashed.
	hashed := capacity.Resource(&metav1.ObjectMeta{Namespace: long, Name: "a"})
	_, imitated, _ := strings.Cut(hashed, "/")
	for n := range len(imitated) {
		nad := &metav1.ObjectMeta{Namespace: imitated[:n], Name: strings.TrimPrefix(imitated[n:], ".")}
		if capacity.Resource(nad) == hashed {
			t.Errorf("%s/%s has the resource of another", nad.Namespace, nad.Name)
		}
	}
}

func container(amounts ...int64) corev1.Container {
	c := corev1.Container{
		Resources: corev1.ResourceRequirements{
			Requests: corev1.ResourceList{"cpu": resource.MustParse("1")},
		},
	}
	for i, n := range amounts {
		c.Resources.Requests[corev1.ResourceName(fmt.Sprint("braid-cni.io/", i))] = *resource.NewQuantity(
			n, resource.DecimalSI)
	}
	return c
}

// What a pod requests is what the scheduler takes it for.
func TestRequests(t *testing.T) {
	t.Parallel()
	always := corev1.ContainerRestartPolicyAlways
	sidecar := container(4)
	sidecar.RestartPolicy = &always
	for name, test := range map[string]struct {
		pod  corev1.Pod
		want map[string]int64
	}{
		"nothing": {corev1.Pod{Spec: corev1.PodSpec{Containers: []corev1.Container{container()}}}, nil},
		"the sum": {corev1.Pod{
			Spec: corev1.PodSpec{Containers: []corev1.Container{container(1, 2), container(1)}},
		}, map[string]int64{
			"braid-cni.io/0": 2, "braid-cni.io/1": 2,
		}},
		"init containers": {corev1.Pod{Spec: corev1.PodSpec{
			InitContainers: []corev1.Container{container(3), container(2), sidecar},
			Containers:     []corev1.Container{container(1)},
		}}, map[string]int64{"braid-cni.io/0": 5}},
		"the largest init container": {corev1.Pod{Spec: corev1.PodSpec{
			InitContainers: []corev1.Container{container(3)}, Containers: []corev1.Container{container(1)},
		}}, map[string]int64{"braid-cni.io/0": 3}},
		"ended": {corev1.Pod{
			Spec:   corev1.PodSpec{Containers: []corev1.Container{container(1)}},
			Status: corev1.PodStatus{Phase: corev1.PodFailed},
		}, nil},
	} {
		if got := capacity.Requests(&test.pod); !maps.Equal(got, test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func TestCapacity(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		network capacity.Network
		want    int64
	}{
		{"nothing there, as without the master", capacity.Network{}, 0},
		{"all free", capacity.Network{Free: 5}, 5},
		{"pods that have their addresses", capacity.Network{Free: 2, Requested: 3}, 5},
		{"a pod that will take one", capacity.Network{Free: 2, Requested: 3, Waiting: 1}, 4},
		{"more wait than there are", capacity.Network{Free: 1, Requested: 3, Waiting: 3}, 3},
		{"the master is gone", capacity.Network{Requested: 3}, 3},
		{"no limit", capacity.Network{Free: math.MaxUint64}, capacity.Plenty},
		{
			"no limit, and pods",
			capacity.Network{Free: math.MaxUint64, Requested: 7, Waiting: 2},
			capacity.Plenty,
		},
		{
			"more than plenty",
			capacity.Network{Free: capacity.Plenty, Requested: capacity.Plenty + 1},
			capacity.Plenty + 1,
		},
		{
			"a little less",
			capacity.Network{Free: capacity.Plenty - 1, Requested: 7, Waiting: 2},
			capacity.Plenty + 4,
		},
	} {
		if got := test.network.Capacity(); got != test.want {
			t.Errorf("%s: %d, want %d", test.name, got, test.want)
		}
	}
}

const (
	r = "braid-cni.io/web.r"
	q = "braid-cni.io/web.q"
)

func TestNetworkOf(t *testing.T) {
	t.Parallel()
	one, two := map[string]int64{r: 1}, map[string]int64{r: 2}
	got := capacity.NetworkOf(r, 7, []capacity.Pod{
		{Requests: one},
		{Requests: one, Made: one, Complete: true},
		{Requests: two, Made: one},
		{Requests: map[string]int64{q: 4}},
		{Requests: two, Made: one, Complete: true}, // one more than it has networks
		{Made: two}, // it was made before the NAD asked
		{},
	})
	if want := (capacity.Network{Free: 7, Requested: 6, Waiting: 2}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// written is what a Node has after the changes.
func written(before map[string]int64, changes map[string]*int64) map[string]int64 {
	after := maps.Clone(before)
	for resource, n := range changes {
		if n == nil {
			delete(after, resource)
		} else {
			after[resource] = *n
		}
	}
	return after
}

// Whatever the pods of the node do by themselves, the scheduler sees what is free: nothing has to
// be written when a pod gets its address, or goes with it.
func TestPodsOfTheNodeAreNoChange(t *testing.T) {
	t.Parallel()
	has := map[string]int64{r: 7}
	for _, step := range []struct {
		what  string
		now   capacity.Network
		avail int64
	}{
		{"at first", capacity.Network{Free: 5, Requested: 2}, 5},
		{"bound", capacity.Network{Free: 5, Requested: 3, Waiting: 1}, 4},
		{"attached", capacity.Network{Free: 4, Requested: 3}, 4},
		{"torn down, and not gone yet", capacity.Network{Free: 5, Requested: 3, Waiting: 1}, 4},
		{"gone", capacity.Network{Free: 5, Requested: 2}, 5},
	} {
		changes := capacity.Changes(has, map[string]*capacity.Network{r: &step.now})
		if len(changes) > 0 || has[r]-step.now.Requested != step.avail {
			t.Errorf("%s: changes %v, available %d", step.what, changes, has[r]-step.now.Requested)
		}
	}
}

func TestChanges(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		network *capacity.Network
		// before is what the Node has; less than 0 for nothing.
		before int64
		want   bool
	}{
		{"new", &capacity.Network{Free: 5}, -1, true},
		{"new, and none free", &capacity.Network{}, -1, true},
		{"the same", &capacity.Network{Free: 5}, 5, false},
		{"not known", nil, 5, false},
		{"to zero", &capacity.Network{}, 1, true},
		{"from zero", &capacity.Network{Free: 1}, 0, true},
		{"none left, and many pods", &capacity.Network{Requested: 500}, 501, true},
		{"one again, and many pods", &capacity.Network{Requested: 500, Free: 1}, 500, true},
		{"a tenth less", &capacity.Network{Free: 90, Requested: 500}, 600, true},
		{"a tenth more", &capacity.Network{Free: 110, Requested: 500}, 600, true},
		{"less than a tenth", &capacity.Network{Free: 91, Requested: 500}, 600, false},
		{"one of few", &capacity.Network{Free: 9}, 10, true},
		{"the kubelet's zero", &capacity.Network{Free: 5, Requested: 2}, 0, true},
		{"the kubelet's zero, and none free", &capacity.Network{Requested: 2}, 0, true},
		{"none free before and now", &capacity.Network{Requested: 2}, 2, false},
		{"plenty", &capacity.Network{Free: math.MaxUint64, Requested: 17}, capacity.Plenty, false},
	} {
		has := map[string]int64{}
		if test.before >= 0 {
			has[r] = test.before
		}
		changes := capacity.Changes(has, map[string]*capacity.Network{r: test.network})
		if (len(changes) > 0) != test.want {
			t.Errorf("%s: changes %v", test.name, changes)
		}
		if test.want && written(has, changes)[r] != test.network.Capacity() {
			t.Errorf("%s: the Node has %v", test.name, written(has, changes))
		}
	}
}

// A Node that says less than what its pods request is put right at once; all else has time.
func TestUrgent(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		written map[string]int64
		network *capacity.Network
		want    bool
	}{
		{"the kubelet's zero", map[string]int64{r: 0}, &capacity.Network{Requested: 1}, true},
		{"capacity and allocatable differ", map[string]int64{r: -1}, &capacity.Network{}, true},
		{"a zero, and no pod", map[string]int64{r: 0}, &capacity.Network{Free: 3}, false},
		{"none free", map[string]int64{r: 1}, &capacity.Network{Requested: 1}, false},
		{"new: a kubelet takes no notice", nil, &capacity.Network{Requested: 1}, false},
		{"not known", map[string]int64{r: 0}, nil, false},
	} {
		if got := capacity.Urgent(test.written,
			map[string]*capacity.Network{r: test.network}); got != test.want {
			t.Errorf("%s: %v", test.name, got)
		}
	}
}

// What no NAD asks for any more is removed, and what differs a little is written with what does
// much.
func TestChangesOfSeveral(t *testing.T) {
	t.Parallel()
	has := map[string]int64{r: 100, q: 5, "braid-cni.io/web.gone": 3, "braid-cni.io/web.unknown": 4}
	networks := map[string]*capacity.Network{
		r: {Free: 99}, q: {Free: 5}, "braid-cni.io/web.unknown": nil,
	}
	changes := capacity.Changes(has, networks)
	if _, same := changes[q]; same || len(changes) != 2 {
		t.Errorf("changes %v", changes)
	}
	want := map[string]int64{r: 99, q: 5, "braid-cni.io/web.unknown": 4}
	if got := written(has, changes); !maps.Equal(got, want) {
		t.Errorf("the Node has %v, want %v", got, want)
	}
}
