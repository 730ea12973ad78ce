package block_test

import (
	"net/netip"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/braid-cni/braid/pkg/ipam/block"
)

// A network has a space of its own, with a name that an object can have and that shows whose it is.
func TestSpaceOf(t *testing.T) {
	seen := map[string]string{}
	for _, test := range []struct{ name, onlyRange, want string }{
		{"", "", "default"},
		{"default", "", "default-x"},
		{"blue", "", "blue"},
		{"b", "", "b"},
		{"Blue", "", "blue-x"},
		{"blue_", "", "blue-x"},
		{"blue-", "", "blue-x"},
		{"-", "", "x"},
		{"x37a8eec1", "", "x37a8eec1-x"},
		{"blue-x37a8eec1", "", "blue-x37a8eec1-x"},
		{"Größe 1/2", "", "gr-e-1-2-x"},
		{strings.Repeat("a", 63), "", strings.Repeat("a", 63)},
		{strings.Repeat("a", 64), "", strings.Repeat("a", 40) + "-x"},
		{"blue", "10.0.0.0/24", "blue.r"},
		{"", "10.0.0.0/24", "default.r"},
		{"", "10.0.1.0/24", "default.r"},
	} {
		got := block.SpaceOf(test.name, test.onlyRange)
		made := strings.HasSuffix(test.want, "x") || strings.HasSuffix(test.want, ".r")
		if !strings.HasPrefix(got, test.want) || !made && got != test.want {
			t.Errorf("the space of %q, %q is %s, want %s", test.name, test.onlyRange, got, test.want)
		}
		if other, ok := seen[got]; ok {
			t.Errorf("%q and %q have the space %s", other, test.name, got)
		}
		seen[got] = test.name
		name := block.NameOf(got, netip.MustParsePrefix("fd00:1234:5678::10/124"))
		if bad := validation.IsDNS1123Subdomain(name); bad != nil {
			t.Errorf("%s: %v", name, bad)
		}
	}
}
