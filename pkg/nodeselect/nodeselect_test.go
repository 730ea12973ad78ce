package nodeselect_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/nodeselect"
)

func nad(selector string) *metav1.ObjectMeta {
	return &metav1.ObjectMeta{
		Namespace: "web", Name: "a",
		Annotations: map[string]string{nadv1.NodeSelectorAnnotation: selector},
	}
}

// A node is selected by a full label selector. One that is not is told what it lacks, and the label
// that the remedy names makes it one that is.
func TestU10NodeSelector(t *testing.T) {
	t.Parallel()
	node := map[string]string{"pool": "data", "zone": "a", "cores": "8"}
	for selector, lacks := range map[string]string{
		"":                             "",
		" ":                            "",
		"pool=data":                    "",
		"pool==data,zone in (a, b)":    "",
		"pool!=other,!gone,zone,cores": "",
		"cores>7,cores<9":              "",
		"pool=other":                   "label nodes n --overwrite pool=other",
		"disk=ssd,pool=data":           "label nodes n --overwrite disk=ssd",
		"zone notin (a, b)":            "zone=a",
		"!zone":                        "zone=a",
		"disk":                         "no label disk",
		"cores>8":                      "cores=8",
	} {
		err := nodeselect.Selected(nad(selector), &metav1.ObjectMeta{Name: "n", Labels: node})
		if lacks == "" {
			if err != nil {
				t.Errorf("%q: %v", selector, err)
			}
			continue
		}
		fe, ok := errors.AsType[*failure.Error](err)
		if !ok || fe.Reason != failure.NodeNotSelected || fe.NAD != "web/a" || fe.Fix == "" ||
			!strings.Contains(err.Error(), lacks) {
			t.Errorf("%q: got %v, want NodeNotSelected that says %q", selector, err, lacks)
		}
	}
}

// What is no selector is refused, and a hundred requirements are one.
func TestU10NodeSelectorBadInput(t *testing.T) {
	t.Parallel()
	for _, selector := range []string{
		"a=b=c", "=", "a in (b", "a b", "a>x", "a=" + strings.Repeat("x", 64), many(257),
	} {
		_, err := nodeselect.Of(nad(selector))
		fe, ok := errors.AsType[*failure.Error](err)
		if !ok || fe.Reason != failure.NADInvalid || fe.Field != nodeselect.Field || fe.Fix == "" {
			t.Errorf("%.40q: got %v, want NADInvalid", selector, err)
		}
	}
	demands, err := nodeselect.Of(nad(many(100)))
	if err != nil || len(demands) != 100 {
		t.Fatalf("got %d requirements, %v", len(demands), err)
	}
	err = nodeselect.Selected(nad(many(100)), &metav1.ObjectMeta{Name: "n"})
	if len(err.Error()) > 2000 {
		t.Errorf("the message has %d bytes", len(err.Error()))
	}
}

func many(n int) string {
	parts := make([]string, n)
	for i := range parts {
		parts[i] = fmt.Sprintf("k%d=v", i)
	}
	return strings.Join(parts, ",")
}
