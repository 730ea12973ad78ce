package plan

import (
	"fmt"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/selection"
)

// Follows reports whether a pod that has these attachments has what its annotation asks for. It
// needs no definition, and so it can be known of a pod whose networks are gone since its start. If
// it is true Diff would change nothing; if it is false Diff may find the same.
func Follows(have []Attachment, pod *metav1.ObjectMeta) (bool, error) {
	asked, err := elements(pod)
	if err != nil {
		return false, err
	}
	// Elements that name their interface come first: none of the others takes it from them.
	slices.SortStableFunc(asked, func(a, b selection.Selection) int {
		return strings.Compare(b.Interface, a.Interface)
	})
	rest := slices.DeleteFunc(slices.Clone(have), func(a Attachment) bool { return a.fixed() })
	for i := range asked {
		wish, err := wishOf(&asked[i])
		if err != nil {
			return false, err
		}
		at := slices.IndexFunc(rest, func(a Attachment) bool {
			return a.Name == asked[i].Namespace+"/"+asked[i].Name &&
				(wish.IfName == "" || wish.IfName == a.IfName) &&
				sameJSON(a.Wish.Requests, wish.Requests)
		})
		if at < 0 {
			return false, nil
		}
		rest = slices.Delete(rest, at, at+1)
	}
	return len(rest) == 0, nil
}

// elements reads the networks annotation of a pod; one that is blank has no elements.
func elements(pod *metav1.ObjectMeta) ([]selection.Selection, error) {
	text := pod.Annotations[nadv1.NetworksAnnotation]
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	asked, err := selection.Parse(text, pod.Namespace)
	if err != nil {
		return nil, fmt.Errorf("annotation %s: %w", nadv1.NetworksAnnotation, err)
	}
	return asked, nil
}
