package netconf

import (
	"encoding/json"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestM30SpacesAtAnyDepth: the space of each whereabouts becomes the tenant's, wherever a plugin
// may find its configuration and in whatever case its keys are, and nothing else changes.
func TestM30SpacesAtAnyDepth(t *testing.T) {
	own := func(space string) string {
		if space == "" {
			space = "default"
		}
		return "team." + space
	}
	for _, c := range []struct{ plugin, want string }{
		{
			`{"type":"macvlan","ipam":{"type":"whereabouts"}}`,
			`{"type":"macvlan","ipam":{"type":"whereabouts","network_name":"team.default"}}`,
		},
		{
			`{"type":"macvlan","IPAM":{"Type":"whereabouts","NETWORK_NAME":"lan"}}`,
			`{"type":"macvlan","ipam":{"Type":"whereabouts","NETWORK_NAME":"team.lan"}}`,
		},
		{
			// U+017F is an s to encoding/json, and U+212A a k.
			`{"type":"macvlan","ipam":{"type":"whereabouts","networ` + "\u212a" + `_name":"lan"}}`,
			`{"type":"macvlan","ipam":{"type":"whereabouts","networ` + "\u212a" + `_name":"team.lan"}}`,
		},
		{
			`{"type":"x","Delegates":[{"type":"y","DELEGATE":{"Ipam":{"type":"whereabouts"}}},5]}`,
			`{"type":"x","Delegates":[{"type":"y","DELEGATE":{"Ipam":{"type":"whereabouts",` +
				`"network_name":"team.default"}}},5]}`,
		},
		{
			`{"type":"x","ipam":{"type":"host-local","network_name":"lan"}}`,
			`{"type":"x","ipam":{"type":"host-local","network_name":"lan"}}`,
		},
		{
			`{"type":"x","ipam":{"type":"whereabouts","network_name":5}}`,
			`{"type":"x","ipam":{"type":"whereabouts","network_name":5}}`,
		},
		{
			`{"type":"x","other":{"type":"whereabouts"},"delegates":"whereabouts"}`,
			`{"type":"x","other":{"type":"whereabouts"},"delegates":"whereabouts"}`,
		},
	} {
		list, err := Parse([]byte(`{"cniVersion":"1.0.0","plugins":[` + c.plugin + `]}`))
		if err != nil {
			t.Errorf("%s: %v", c.plugin, err)
			continue
		}
		list.RenameSpaces(own)
		got := map[string]any{}
		for key, value := range list.Plugin(0) {
			got[key] = decoded(t, value)
		}
		if diff := cmp.Diff(decoded(t, []byte(c.want)), any(got)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.plugin, diff)
		}
	}
}

func decoded(t *testing.T, text []byte) (value any) {
	t.Helper()
	if err := json.Unmarshal(text, &value); err != nil {
		t.Fatal(err)
	}
	return value
}
