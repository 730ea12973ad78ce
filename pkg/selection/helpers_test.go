package selection

import (
	"encoding/json"
	"errors"
	"net/netip"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/braid-cni/braid/pkg/failure"
)

// good parses what must parse, for a pod of namespace "pods".
func good(t *testing.T, annotation string) []Selection {
	t.Helper()
	got, err := Parse(annotation, "pods")
	if err != nil {
		t.Fatalf("Parse(%s): %v", annotation, err)
	}
	return got
}

// want fails unless the annotation parses to exactly these.
func want(t *testing.T, annotation string, selections ...Selection) {
	t.Helper()
	if diff := differ(selections, good(t, annotation)); diff != "" {
		t.Errorf("Parse(%s) (-want +got):\n%s", annotation, diff)
	}
}

// differ returns how selections differ, but for their warnings.
func differ(a, b []Selection) string {
	return cmp.Diff(a, b, cmpopts.IgnoreFields(Selection{}, "Warnings"),
		cmpopts.EquateComparable(netip.Addr{}))
}

// one parses an annotation that is a list of one element with the given further keys.
func one(t *testing.T, keys string) Selection {
	t.Helper()
	got := good(t, `[{"name":"a",`+keys+`}]`)
	if len(got) != 1 {
		t.Fatalf("%s: %d selections, want 1", keys, len(got))
	}
	return got[0]
}

// bad fails unless the annotation is refused at the field with an error that contains all the
// texts, and returns the error.
func bad(t *testing.T, annotation, field string, texts ...string) *failure.Error {
	t.Helper()
	got, err := Parse(annotation, "pods")
	if err == nil {
		t.Fatalf("Parse(%s) = %+v, want an error at %s", annotation, got, field)
	}
	e, ok := errors.AsType[*failure.Error](err)
	if !ok || e.Reason != failure.InvalidAnnotation {
		t.Fatalf("Parse(%s): %#v is no InvalidAnnotation", annotation, err)
	}
	if e.Field != field {
		t.Errorf("Parse(%s): field %s, want %s: %v", annotation, e.Field, field, err)
	}
	for _, text := range texts {
		if !strings.Contains(err.Error(), text) {
			t.Errorf("Parse(%s): %q does not contain %q", annotation, err, text)
		}
	}
	return e
}

// badOne is bad for an element with the given further keys; field is relative to it.
func badOne(t *testing.T, keys, field string, texts ...string) {
	t.Helper()
	e := bad(t, `[{"name":"ok"},{"name":"a",`+keys+`}]`, "networks[1]."+field, texts...)
	if e.Fix == "" {
		t.Errorf("%s: no Fix in %v", keys, e)
	}
}

// warned fails unless an element with these keys is accepted with one warning, at that field, that
// has all the texts.
func warned(t *testing.T, keys, field string, texts ...string) {
	t.Helper()
	s := one(t, keys)
	if len(s.Warnings) != 1 {
		t.Fatalf("%s: warnings %v, want one", keys, s.Warnings)
	}
	w := s.Warnings[0]
	if w.Reason != failure.IgnoredKey || w.NAD != "pods/a" || w.Field != "networks[0]."+field {
		t.Errorf("%s: warning %#v, want one at networks[0].%s", keys, w, field)
	}
	for _, text := range texts {
		if !strings.Contains(w.Error(), text) {
			t.Errorf("%s: %q does not contain %q", keys, w, text)
		}
	}
}

// render writes selections in the JSON form.
func render(t *testing.T, selections []Selection) string {
	t.Helper()
	elements := []map[string]any{}
	for _, s := range selections {
		keys := map[string]any{"name": s.Name}
		for key, value := range map[string]any{
			"namespace": s.Namespace, "interface": s.Interface, "ips": s.IPs, "mac": s.MAC,
			"infiniband-guid": s.InfinibandGUID,
			"cni-args":        s.CNIArgs, "portMappings": s.PortMappings, "bandwidth": s.Bandwidth,
			"default-route":        s.DefaultRoute,
			"ipam-claim-reference": s.IPAMClaim,
		} {
			if v := reflect.ValueOf(value); !v.IsZero() {
				keys[key] = value
			}
		}
		elements = append(elements, keys)
	}
	raw, err := json.Marshal(elements)
	if err != nil {
		t.Fatalf("render %+v: %v", selections, err)
	}
	return string(raw)
}

func addrs(texts ...string) []netip.Addr {
	list := []netip.Addr{}
	for _, text := range texts {
		list = append(list, netip.MustParseAddr(text))
	}
	return list
}

// compact brings the raw values of cni-args into the form in which encoding/json writes them, and
// drops warnings: what they are about is not rendered.
func compact(t *testing.T, selections []Selection) []Selection {
	t.Helper()
	for i, s := range selections {
		selections[i].Warnings = nil
		for key, value := range s.CNIArgs {
			raw, err := json.Marshal(value)
			if err != nil {
				t.Fatalf("compact %s: %v", value, err)
			}
			s.CNIArgs[key] = raw
		}
	}
	return selections
}
