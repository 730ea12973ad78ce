package attachment_test

import (
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/pkg/attachment"
)

// A nil list allows all, an empty one nothing, in the record's form too.
func TestLimitsForms(t *testing.T) {
	for text, want := range map[string]attachment.Limits{
		`{"namespace":"team"}`: {Namespace: "team"},
		`{"namespace":"team","masters":[]}`: {
			Namespace: "team",
			Masters:   []string{},
		},
		`{"namespace":"team","prefixes":["10.0.0.0/8"]}`: {
			Namespace: "team",
			Prefixes:  []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")},
		},
		`{"namespace":"team","hostPorts":[{"first":1024,"last":65535}]}`: {
			Namespace: "team",
			HostPorts: []attachment.Ports{{First: 1024, Last: 65535}},
		},
	} {
		data, err := json.Marshal(want)
		if err != nil || string(data) != text {
			t.Errorf("%s, %v, want %s", data, err, text)
		}
		var got attachment.Limits
		if err := json.Unmarshal([]byte(text), &got); err != nil {
			t.Error(err)
		}
		if (got.Masters == nil) != (want.Masters == nil) {
			t.Errorf("%s: masters %v, want %v", text, got.Masters, want.Masters)
		}
		if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool {
			return a == b
		})); diff != "" {
			t.Error(diff)
		}
	}
}

func TestLimits(t *testing.T) {
	var operator *attachment.Limits
	safe := &attachment.Limits{Namespace: "team"}
	strict := &attachment.Limits{
		Namespace: "team", Bridges: []string{"br-*"}, OwnBridges: true,
		Prefixes:  []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16")},
		HostPorts: []attachment.Ports{{First: 1024, Last: 2000}}, Masters: []string{},
	}
	may := func(l *attachment.Limits, prefix string) bool {
		ok, _ := l.MayAddress(netip.MustParsePrefix(prefix))
		return ok
	}
	for name, c := range map[string]struct{ got, want bool }{
		"operator's bridge":          {operator.MayJoin("cni0", "", false), true},
		"operator's port":            {operator.MayMap(22) && operator.MayMapLoopback(), true},
		"operator's master":          {operator.MayBeMaster("eth0"), true},
		"operator's prefix":          {may(operator, "8.8.8.0/24"), true},
		"bridge without a rule":      {safe.MayJoin("cni0", "", false), true},
		"loopback without a rule":    {safe.MayMapLoopback(), false},
		"port without a rule":        {safe.MayMap(22), true},
		"master without a rule":      {safe.MayBeMaster("eth0"), true},
		"bridge of the rule":         {strict.MayJoin("br-x", "", false), true},
		"another's bridge":           {strict.MayJoin("cni0", "other", false), false},
		"own bridge":                 {strict.MayJoin("cni0", "team", false), true},
		"new bridge":                 {strict.MayJoin("cni0", "", true), true},
		"prefix of the rule":         {may(strict, "10.1.2.1/24"), true},
		"prefix that has the rule's": {may(strict, "10.0.0.1/8"), false},
		"another prefix":             {may(strict, "10.2.0.1/24"), false},
		"prefix of the other family": {may(strict, "fd00::1/64"), false},
		"port below":                 {strict.MayMap(1023), false},
		"port in the range":          {strict.MayMap(2000), true},
		"port above":                 {strict.MayMap(2001), false},
		"no master":                  {strict.MayBeMaster("eth0", "enp1s0"), false},
		"pattern in the middle": {(&attachment.Limits{Masters: []string{"e*p*0"}}).
			MayBeMaster("enp1s0"), true},
		"pattern that ends early": {
			(&attachment.Limits{Masters: []string{"e*p"}}).MayBeMaster("enp1"),
			false,
		},
		"any": {(&attachment.Limits{Masters: []string{"*"}}).
			MayBeMaster(""), true},
		"altname of the master": {(&attachment.Limits{Masters: []string{"enp*"}}).
			MayBeMaster("eth0", "enp1s0"), true},
	} {
		if c.got != c.want {
			t.Errorf("%s: %t", name, c.got)
		}
	}
}
