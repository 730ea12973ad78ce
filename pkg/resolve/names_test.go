package resolve_test

import (
	"strings"
	"testing"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/policy"
	"github.com/braid-cni/braid/pkg/resolve"
)

// TestM30NamesOfTheirNamespace: where the policy is enforced for a NAD, its network and its spaces
// are named after its namespace; elsewhere they stay as they are written.
func TestM30NamesOfTheirNamespace(t *testing.T) {
	const enforced = `,"braid":{"policyDefault":"enforce"}`
	whereabouts := func(name, network string) string {
		return `{"cniVersion":"1.0.0","name":"` + name + `","plugins":[{"type":"macvlan","master":"e",` +
			`"ipam":{"type":"whereabouts","range":"10.0.0.0/24"` + network + `}}]}`
	}
	long := strings.Repeat("n", 253)
	for name, test := range map[string]named{
		"audited": {"", whereabouts("n", ""), "n", "", false},
		"label":   {"", whereabouts("n", ""), "web.n", "web.default", true},
		"default": {enforced, whereabouts("n", ""), "web.n", "web.default", false},
		"rule": {
			`,"braid":{"policy":[{"namespaces":["web"]}]}`,
			whereabouts("n", `,"network_name":"s"`), "web.n", "web.s", false,
		},
		"rule for others": {
			`,"braid":{"policy":[{"namespaces":["x"]}]}`,
			whereabouts("n", `,"network_name":"s"`), "n", "s", false,
		},
		"all": {
			`,"braid":{"policy":[{"namespaces":["web"],"all":true}]}`,
			whereabouts("n", ""), "n", "", true,
		},
		"operator's": {`,"globalNamespaces":"web"`, whereabouts("n", ""), "n", "", true},
		"its own already": {
			enforced, whereabouts("web.n", `,"network_name":"web.s"`), "web.n", "web.s",
			false,
		},
		"another's": {
			enforced, whereabouts("team.n", `,"network_name":"team.s"`), "web.team.n",
			"web.team.s", false,
		},
		"two spellings": {enforced, whereabouts("n", `,"Network_Name":"s"`), "web.n", "web.s", false},
		"kept": {
			`,"braid":{"policy":[{"namespaces":["web"],"names":["team.*","default"]}]}`,
			whereabouts("team.n", ""), "team.n", "", false,
		},
		"too long a name": {
			enforced, whereabouts(long, ""), "web." + long[:218] + "-", "web.default",
			false,
		},
		"unnamed": {
			enforced, `{"cniVersion":"1.0.0","type":"macvlan","master":"e"}`, "web.a",
			"", false,
		},
		"in a binary's": {
			`,"braid":{"policy":[{"namespaces":["web"],"exec":["x"]}]}`,
			`{"cniVersion":"1.0.0","name":"n","type":"x","delegate":{"type":"y",` +
				`"ipam":{"type":"whereabouts","network_name":"s"}}}`, "web.n", "web.s", false,
		},
		"other IPAM's key": {
			enforced,
			`{"cniVersion":"1.0.0","name":"n","type":"macvlan","master":"e","ipam":{"type":"x",` +
				`"network_name":"s"}}`, "web.n", "s", false,
		},
		"label, not a rule": {
			`,"braid":{"policy":[{"namespaces":["web"],"all":true}]}`,
			whereabouts("n", ""), "n", "", true,
		},
	} {
		t.Run(name, test.test)
	}
}

// named is a network of a configuration under a policy, and the names that its attachment has.
type named struct {
	policy, config, network, space string
	tenant                         bool
}

func (test named) test(t *testing.T) {
	c := newCluster(t, test.policy)
	c.nad("web/a", test.config)
	if test.tenant {
		c.objs.namespaces = map[string]map[string]string{"web": {policy.TenantLabel: ""}}
	}
	_, attachments, err := c.judged(map[string]string{nadv1.NetworksAnnotation: "a"})
	if err != nil {
		t.Fatal(err)
	}
	a := attachments[1]
	name := a.Network
	if !strings.HasPrefix(name, test.network) || len(name) > 255 ||
		len(test.network) < 200 && name != test.network {
		t.Errorf("network %q, want %q", name, test.network)
	}
	if a.Name != "web/a" {
		t.Errorf("network-status would say %q", a.Name)
	}
	_, space, _ := strings.Cut(strings.ToLower(string(a.Conf)), `"network_name":"`)
	space, _, _ = strings.Cut(space, `"`)
	if space != test.space || strings.Count(strings.ToLower(string(a.Conf)), "network_name") > 1 {
		t.Errorf("space %q, want %q: %s", space, test.space, a.Conf)
	}
	other := a.Limits.OtherName(a.Network)
	renamed := a.Limits != nil && a.Limits.Name != ""
	if renamed && other != a.Limits.Name && a.Limits.Foreign == nil ||
		a.Limits == nil && other != "" {
		t.Errorf("the other name of %q is %q", a.Network, other)
	}
}

// TestM30AnothersName: a name that is another namespace's own is refused where that one's are
// apart, whatever becomes of other violations, and only there.
func TestM30AnothersName(t *testing.T) {
	for name, test := range map[string]struct {
		policy string
		tenant bool
		want   string
	}{
		"a tenant's, by label": {"", true, "names enforce"},
		"a tenant's, by rule":  {`,"braid":{"policy":[{"namespaces":["team"]}]}`, false, "names enforce"},
		"nobody's":             {"", false, ""},
		"all is allowed it":    {`,"braid":{"policy":[{"namespaces":["team"],"all":true}]}`, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			c := newCluster(t, test.policy)
			c.nad("web/a", `{"cniVersion":"1.0.0","name":"team.n","type":"bridge"}`)
			c.objs.namespaces = map[string]map[string]string{"team": {}}
			if test.tenant {
				c.objs.namespaces["team"][policy.TenantLabel] = ""
			}
			judged, attachments, err := c.judged(map[string]string{nadv1.NetworksAnnotation: "a"})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, j := range judged {
				got = append(got, j.Key+" "+string(j.Effect))
			}
			if strings.Join(got, ", ") != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
			err = resolve.Permit(judged, attachments)
			if (err != nil) != (test.want != "") {
				t.Errorf("error %v", err)
			}
			if err != nil && !strings.Contains(err.Error(), `{"namespaces": ["web"], "names": ["team.n"]}`) {
				t.Errorf("it does not say what would allow it: %v", err)
			}
		})
	}
}
