package attachment_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/pkg/attachment"
)

// TestM30OwnNames: no two namespaces have one name, whatever a tenant writes, and a name is never
// longer than that of a directory may be.
func TestM30OwnNames(t *testing.T) {
	long := strings.Repeat("n", 250)
	seen := map[string]string{}
	for _, c := range []struct{ namespace, name, want string }{
		{"a", "lan", "a.lan"},
		{"a", "a.lan", "a.lan"}, // it is of that form already
		{"a", "b.lan", "a.b.lan"},
		{"a", "ab.lan", "a.ab.lan"},
		{"a", "../../etc", "a.../../etc"},
		{"a-b", "lan", "a-b.lan"},
	} {
		got := attachment.Own(c.namespace, c.name)
		if got != c.want {
			t.Errorf("Own(%q, %q) is %q, want %q", c.namespace, c.name, got, c.want)
		}
		if owner := attachment.Owner(got); owner != c.namespace {
			t.Errorf("the owner of %q is %q, want %q", got, owner, c.namespace)
		}
	}
	for _, name := range []string{long + "12345", long + "12346", long + "1234567"} {
		got := attachment.Own("team", name)
		if len(got) > 255 || !strings.HasPrefix(got, "team."+long[:200]) || seen[got] != "" {
			t.Errorf("%q becomes %q, as does %q", name, got, seen[got])
		}
		seen[got] = name
	}
	if owner := attachment.Owner("lan"); owner != "" {
		t.Errorf("a name without a namespace has the owner %q", owner)
	}
	if got := attachment.OwnSpace("a", ""); got != "a.default" {
		t.Errorf("the space without a name is %q", got)
	}
}

// TestM30OtherNames: where a namespace has just become a tenant's, or is one no longer, its leases
// are found under the other name, and never those of another namespace.
func TestM30OtherNames(t *testing.T) {
	tenant := &attachment.Limits{Namespace: "a", Foreign: []string{"b.lan"}}
	renamed := &attachment.Limits{Namespace: "a", Name: "LAN"}
	for _, c := range []struct {
		limits        *attachment.Limits
		network, name string
		space         string
		spaces        []string
	}{
		{nil, "lan", "", "lan", nil},
		{tenant, "lan", "a.lan", "lan", []string{"a.lan"}},
		{tenant, "a.lan", "lan", "a.lan", []string{"lan"}},
		{tenant, "a.b.lan", "", "a.b.lan", nil}, // b.lan is another's
		{tenant, "a.default", "default", "a.default", []string{"", "default"}},
		{renamed, "a.lan", "LAN", "", []string{"a.default"}},
	} {
		if got := c.limits.OtherName(c.network); got != c.name {
			t.Errorf("%v: the other name of %q is %q, want %q", c.limits, c.network, got, c.name)
		}
		if diff := cmp.Diff(c.spaces, c.limits.OtherSpaces(c.space)); diff != "" {
			t.Errorf("%v: other spaces of %q (-want +got):\n%s", c.limits, c.space, diff)
		}
	}
}
