package resolve_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/resolve"
)

// An ADD asks for the node once, if a NAD has a selector, and refuses a node that is not selected.
// A plan of what was attached is not refused.
func TestU10NodeSelectorAtADD(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "")
	for ref, selector := range map[string]string{
		"web/here": "pool=data", "web/too": "zone", "web/there": "pool=other", "web/broken": "=",
	} {
		c.nad(ref, `{"cniVersion":"1.0.0","type":"ipvlan"}`).
			Annotations = map[string]string{nadv1.NodeSelectorAnnotation: selector}
	}
	c.objs.node = map[string]string{"pool": "data", "zone": "a"}
	for networks, want := range map[string]failure.Reason{
		"a,b": "", "a,here,too": "", "here,there": failure.NodeNotSelected, "broken": failure.NADInvalid,
	} {
		c.objs.asked = nil
		resolver := c.resolver(&c.objs, nil)
		resolver.ThisNode = &c.objs
		pod := c.pod("web/p", networks)
		_, err := resolver.Attachments(t.Context(), resolve.Any(&c.cfg.Call), pod)
		if failure.ReasonOf(err) != want {
			t.Errorf("%s: got %v, want reason %q", networks, err, want)
		}
		asked := len(slices.DeleteFunc(slices.Clone(c.objs.asked), func(what string) bool {
			return what != "node n"
		}))
		if wanted := min(1, strings.Count(networks, "e")); asked != wanted {
			t.Errorf("%s: the node is asked for %d times, want %d", networks, asked, wanted)
		}
		_, exact, err := resolver.Past(t.Context(), resolve.Any(&c.cfg.Call), pod, nil)
		if networks != "broken" && (err != nil || !exact) {
			t.Errorf("%s: past: %v", networks, err)
		}
	}
	c.objs.err = errors.New("connection refused")
	resolver := &resolve.Resolver{
		Node: &c.cfg.Node, Policy: &c.cfg.Policy, Source: allNADs{&c.objs}, ThisNode: &c.objs,
	}
	_, err := resolver.Attachments(t.Context(), resolve.Any(&c.cfg.Call), c.pod("web/p", "here"))
	fails(t, err, failure.APIUnavailable, "web/here", "get node", "connection refused")
}

// allNADs can be asked for NADs, whatever else goes wrong.
type allNADs struct{ *memory }

func (a allNADs) NAD(
	ctx context.Context, namespace, name string,
) (*nadv1.NetworkAttachmentDefinition, error) {
	return (&memory{nads: a.nads}).NAD(ctx, namespace, name)
}
