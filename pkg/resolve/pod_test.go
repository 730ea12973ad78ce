package resolve_test

import (
	"testing"

	"k8s.io/apimachinery/pkg/types"

	podv1 "github.com/braid-cni/braid/pkg/api/pod/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/resolve"
)

func TestPod(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "")
	c.pod("web/p", "a").Requested = []string{"v/nic"}
	c.pod("web/static", "").Annotations[podv1.MirrorAnnotation] = "of-the-kubelet"
	c.each(func(t *testing.T, source resolve.Source) {
		resolver := c.resolver(source, nil)
		for _, test := range []struct {
			name string
			uid  types.UID
			gone bool
		}{
			{"p", "uid-p", false},
			{"p", "", false},
			{"p", "uid-q", true},
			{"none", "", true},
			{"none", "uid-none", true},
			{"static", "of-the-kubelet", false},
			{"static", "uid-static", false},
			{"static", "another", true},
		} {
			pod, err := resolver.Pod(t.Context(), "web", test.name, test.uid)
			switch {
			case test.gone && failure.ReasonOf(err) != failure.PodNotFound:
				t.Errorf("%s of uid %q: %v, want PodNotFound", test.name, test.uid, err)
			case !test.gone && err != nil:
				t.Errorf("%s of uid %q: %v", test.name, test.uid, err)
			case !test.gone && (pod.Name != test.name || pod.MetaOnly):
				t.Errorf("%s of uid %q: got %+v", test.name, test.uid, pod)
			case test.name == "p" && !test.gone:
				same(t, "what it requests", pod.Requested, []string{"v/nic"})
			}
		}
	})
}

func TestPassedPod(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]map[string]string{
		`{"a":"b"}`: {"a": "b"},
		`{}`:        {},
		`null`:      nil,
		`{"a":"b","kubernetes.io/config.source":"api","kubernetes.io/config.seen":"now"}`: {"a": "b"},
	} {
		pod := resolve.PassedPod("web", "p", "u", []byte(raw))
		if pod == nil {
			t.Fatalf("%s: none", raw)
		}
		same(t, raw, pod.Annotations, want)
		if pod.Namespace != "web" || pod.Name != "p" || pod.UID != "u" || !pod.MetaOnly {
			t.Errorf("%s: got %+v", raw, pod)
		}
	}
	for _, raw := range []string{
		"", `[]`, `"a"`, `{"a":1}`, `{"kubernetes.io/config.source":"file"}`,
		`{"kubernetes.io/config.source":"http"}`,
	} {
		if pod := resolve.PassedPod("web", "p", "u", []byte(raw)); pod != nil {
			t.Errorf("%s: got %+v, want none", raw, pod)
		}
	}
	if pod := resolve.PassedPod("web", "p", "u", nil); pod != nil {
		t.Errorf("nothing passed: %+v", pod)
	}
	if pod := resolve.PassedPod("web", "p", "", []byte(`{}`)); pod != nil {
		t.Errorf("without a uid: %+v", pod)
	}
}
