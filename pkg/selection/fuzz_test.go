package selection

import (
	"errors"
	"testing"

	"github.com/braid-cni/braid/pkg/failure"
)

// FuzzParse: nothing panics; what is accepted renders to JSON that parses to the same; what is
// refused says where.
func FuzzParse(f *testing.F) {
	for _, seed := range []string{
		"", " ", "a", "ns/a@net1, b ,c.d", "a,,b", "a/b/c@d@e", "[]", "[{}]", `{"name":"a"}`,
		`[{"name":"a"}]`, `[{"name":"a"},null]`,
		`[{"name":"a","namespace":"n","interface":"net1","ips":["10.0.0.1/24","2001:db8::1"],` +
			`"mac":"02:00:00:00:00:01"}]`,
		`[{"name":"a","infiniband-guid":"24:8a:07:03:00:8d:ae:2f","cni-args":{"a":{"b":[1e400]}},` +
			`"x.y":1}]`,
		`[{"name":"a","portMappings":[{"hostPort":1,"containerPort":2,"protocol":"UDP",` +
			`"hostIP":"::1"}]}]`,
		`[{"name":"a","bandwidth":{"ingressRate":1,"ingressBurst":2}},{"name":"a","default-route":[],` +
			`"ipam-claim-reference":"c"}]`,
		`[{"name":"a","default-route":["10.0.0.1"]},{"name":"a","default-route":["2001:db8::1"]}]`,
		"[{\"name\":\"a\"} # no\n]",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, annotation string) {
		got, err := Parse(annotation, "pods")
		if err != nil {
			e, ok := errors.AsType[*failure.Error](err)
			if !ok || e.Reason != failure.InvalidAnnotation || e.Field == "" {
				t.Fatalf("Parse(%q): %#v names no field", annotation, err)
			}
			return
		}
		again, err := Parse(render(t, got), "elsewhere")
		if err != nil {
			t.Fatalf("Parse(%q) renders to %s: %v", annotation, render(t, got), err)
		}
		if diff := differ(compact(t, got), compact(t, again)); diff != "" {
			t.Fatalf("Parse(%q) twice (-first +second):\n%s", annotation, diff)
		}
	})
}
