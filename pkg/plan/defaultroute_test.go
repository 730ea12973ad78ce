package plan_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/plan"
)

// routes is a macvlan network whose IPAM has the given routes.
func routes(list string) string {
	return `{"type": "macvlan", "ipam": {"type": "static", "addresses": [{"address": "10.1.0.5/24", ` +
		`"gateway": "10.1.0.1"}], "routes": ` + list + `}}`
}

const (
	none = ""
	v4   = `, "default-route": ["10.1.0.1"]`
	v6   = `, "default-route": ["fd00::1"]`
	both = `, "default-route": ["10.1.0.1", "fd00::1"]`
	own  = `, "default-route": []`
)

// U17, "static routes; no default route unasked".
func TestU17DefaultRouteRefused(t *testing.T) {
	judged(t, map[string]broughtRoute{
		"no routes":     {`{"type": "macvlan"}`, none, ""},
		"gateway alone": {routes(`[]`), none, ""},
		"a prefix": {routes(
			`[{"dst": "172.31.0.0/16"}, {"dst": "10.0.0.0/8", "gw": "10.1.0.1"}]`), none, ""},
		"v4": {
			routes(`[{"dst": "10.0.0.0/8"}, {"dst": "0.0.0.0/0"}]`), none,
			"ipam.routes[1]",
		},
		"v4 asked":              {routes(`[{"dst": "0.0.0.0/0"}]`), v4, ""},
		"v4 asked, own gateway": {routes(`[{"dst": "0.0.0.0/0"}]`), own, ""},
		"v4, v6 asked":          {routes(`[{"dst": "0.0.0.0/0"}]`), v6, "IPv4 default route"},
		"v6":                    {routes(`[{"dst": "::/0"}]`), none, "IPv6 default route"},
		"v6, v4 asked":          {routes(`[{"dst": "::/0"}]`), v4, "IPv6 default route"},
		"v6 asked":              {routes(`[{"dst": "::/0"}]`), v6, ""},
		"both asked":            {routes(`[{"dst": "::/0"}, {"dst": "0.0.0.0/0"}]`), both, ""},
		"no dst":                {routes(`[{"gw": "10.1.0.1"}]`), none, "IPv4 default route"},
		"no dst, v6":            {routes(`[{"gw": "fd00::1"}]`), v4, "IPv6 default route"},
		"nothing at all":        {routes(`[{}]`), v4, "without dst"},
		"null dst":              {routes(`[{"dst": null}]`), none, "dst"},
		"default by name": {
			routes(`[{"dst": "Default", "gw": "10.1.0.1"}]`), none,
			"IPv4 default route",
		},
		"table of its own": {routes(`[{"dst": "0.0.0.0/0", "table": 100}]`), none, ""},
		"main table": {
			routes(`[{"dst": "0.0.0.0/0", "table": 254}]`), none,
			"ipam.routes[0]",
		},
		"keys in another case": {`{"type": "macvlan", "ipam": {"type": "static", ` +
			`"Routes": [{"DST": "0.0.0.0/0"}]}}`, none, "ipam.Routes[0]"},
		"folded letter": {`{"type": "macvlan", "ipam": {"type": "static", ` +
			`"route\u017f": [{"d\u017ft": "0.0.0.0/0"}]}}`, none, "default route"},
		"two dst in two cases": {
			routes(`[{"dst": "10.0.0.0/8", "Dst": "0.0.0.0/0"}]`), none,
			"default route",
		},
		"escaped": {routes(`[{"dst": "\u0030.0.0.0\/0"}]`), none, "default route"},
		"at the plugin": {
			`{"type": "x", "routes": [{"dst": "0.0.0.0/0"}]}`, none,
			"plugins[0].routes[0]",
		},
		"one object for a list": {
			`{"type": "x", "routes": {"dst": "0.0.0.0/0"}}`, none,
			"routes[0]",
		},
		"strings for objects": {
			`{"type": "x", "routes": ["10.0.0.0/8", "0.0.0.0/0"]}`, none,
			"routes[1]",
		},
		"route-override": {
			`{"plugins": [{"type": "macvlan"}, ` +
				`{"type": "route-override", "addroutes": [{"dst": "0.0.0.0/0"}]}]}`, none,
			"plugins[1].addroutes[0]",
		},
		"deep inside": {`{"type": "x", "delegate": {"type": "y", ` +
			`"ipam": {"routes": [{"dst": "0.0.0.0/0"}]}}}`, none, "delegate.ipam.routes[0]"},
	})
}

// Plugins that change what others bring.
func TestU17DefaultRouteOfAChain(t *testing.T) {
	judged(t, map[string]broughtRoute{
		"prevResult, which is left out": {`{"type": "ipvlan", "prevResult": {"routes": [{"dst": ` +
			`"0.0.0.0/0"}]}}`, none, ""},
		"sbr moves it": {`{"plugins": [{"type": "macvlan", ` +
			`"ipam": {"routes": [{"dst": "0.0.0.0/0"}]}}, {"type": "sbr"}]}`, none, ""},
		"sbr lets it be": {`{"plugins": [{"type": "macvlan", ` +
			`"ipam": {"routes": [{"dst": "0.0.0.0/0"}]}}, {"type": "sbr", "table": 7}]}`, none, "sbr"},
		"after sbr": {`{"plugins": [{"type": "macvlan"}, {"type": "sbr"}, ` +
			`{"type": "route-override", "addroutes": [{"dst": "0.0.0.0/0"}]}]}`, none, "plugins[2]"},
		"sbr with a gateway": {
			`{"plugins": [` + routes(`[]`) + `, {"type": "sbr"}]}`,
			none, "",
		},
	})
}

// The bridge's key isDefaultGateway brings a route of each family that its IPAM has.
func TestU17IsDefaultGateway(t *testing.T) {
	const bridge4 = `{"type": "bridge", "isDefaultGateway": true, "ipam": {"type": "host-local", ` +
		`"subnet": "10.1.0.0/24"}}`
	judged(t, map[string]broughtRoute{
		"isDefaultGateway":       {bridge4, none, "isDefaultGateway"},
		"isDefaultGateway false": {`{"type": "bridge", "isDefaultGateway": false}`, none, ""},
		"isDefaultGateway asked": {bridge4, v4, ""},
		"isDefaultGateway both":  {bridge4, own, ""},
		"isDefaultGateway, v6 too": {`{"type": "bridge", "isDefaultGateway": true, ` +
			`"ipam": {"type": "whereabouts", "ipRanges": [{"range": "10.1.0.2-10.1.0.9/24"}, ` +
			`{"range": "fd00::/64"}]}}`, v4, "IPv6"},
		"isDefaultGateway, unknown": {`{"type": "bridge", "isDefaultGateway": true, ` +
			`"ipam": {"type": "dhcp"}}`, v4, "IPv6"},
		"isDefaultGateway by args": {`{"type": "bridge", "isDefaultGateway": true, ` +
			`"args": {"cni": {"ips": ["fd00::5/64"]}}, "ipam": {"type": "static", ` +
			`"addresses": [{"address": "10.1.0.5/24"}]}}`, v4, "IPv6"},
		"isDefaultGateway in a case": {
			`{"type": "bridge", "ISDEFAULTGATEWAY": true}`, none,
			"ISDEFAULTGATEWAY",
		},
		"isDefaultGateway inside": {`{"type": "flannel", "ipam": {"type": "static", ` +
			`"x": "10.0.0.1"}, "delegate": {"isDefaultGateway": true}}`, v4, "delegate.isDefaultGateway"},
		"isDefaultGateway renamed": {
			`{"type": "cnv-bridge", "isDefaultGateway": true}`, none,
			"isDefaultGateway",
		},
	})
}

// broughtRoute is a network that brings a default route, and the pod's request for one.
type broughtRoute struct {
	config  string
	asked   string
	refused string // a word of the error; empty: allowed
}

// judged fails unless each network is refused or allowed as it wants.
func judged(t *testing.T, cases map[string]broughtRoute) {
	t.Helper()
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			s := newScenario(`[{"name": "a"` + tc.asked + `}]`).refusing()
			s.nad("web/a", tc.config)
			if tc.refused == "" {
				s.must(t)
				return
			}
			s.refused(t, failure.DefaultRouteRefused, "NAD web/a", "plugin ", tc.refused,
				`"default-route": []`)
		})
	}
}

func TestU17EverySpelling(t *testing.T) {
	for _, dst := range []string{
		"0.0.0.0/0", "0/0", "000.0.0.0/0", "0.0.0.0/00", "0.0.0.0/0.0.0.0", " 0.0.0.0/0 ", "10.0.0.0/0",
		"0.0.0.0", "0",
		"::/0", "::0/0", "0:0:0:0:0:0:0:0/0", "0::/000", "fd00::/0", "::", "::ffff:0.0.0.0/96",
		"::ffff:0:0/0", "default",
	} {
		s := newScenario("a").refusing()
		s.nad("web/a", routes(fmt.Sprintf(`[{"dst": %q}]`, dst)))
		s.refused(t, failure.DefaultRouteRefused, "web/a")
	}
	for _, dst := range []string{
		"0.0.0.0/1", "0.0.0.0/8", "10.0.0.0/10", "::/1", "::/96", "2000::/3", "::ffff:10.0.0.0/104",
		"0.0.0.1",
	} {
		s := newScenario("a").refusing()
		s.nad("web/a", routes(fmt.Sprintf(`[{"dst": %q}]`, dst)))
		if _, err := s.plan(); err != nil {
			t.Errorf("%s: %v", dst, err)
		}
	}
}

func TestU17ClusterWideNetworks(t *testing.T) {
	s := newScenario("").refusing()
	s.cfg.Delegates = append(s.cfg.Delegates,
		json.RawMessage(`{"name": "extra", "type": "macvlan", `+
			`"ipam": {"routes": [{"dst": "0.0.0.0/0"}]}}`))
	s.refused(t, failure.DefaultRouteRefused, "extra (delegates[1])")

	s = newScenario("").refusing()
	s.cfg.Delegates[0] = json.RawMessage(`{"name": "cluster", "type": "bridge", ` +
		`"isDefaultGateway": true, "ipam": {"routes": [{"dst": "0.0.0.0/0"}]}}`)
	s.must(t)
}

func TestU17NamesTheNADOfAClusterWideNetwork(t *testing.T) {
	s := newScenario("").refusing()
	s.cfg.ClusterNetwork, s.cfg.DefaultNetworks = "/d", []string{"x"}
	s.disk["/d"] = `{"name": "cluster", "type": "bridge"}`
	s.nad("kube-system/x", routes(`[{"dst": "0.0.0.0/0"}]`))
	s.refused(t, failure.DefaultRouteRefused, "NAD kube-system/x: ")
}

func TestU17HostileKeysStayOutOfTheMessage(t *testing.T) {
	s := newScenario("a").refusing()
	s.nad("web/a", `{"type": "x", "`+strings.Repeat("k", 1000)+
		`": {"\n\u001b[31m": {"routes": [{"dst": "0/0"}]}}}`)
	s.refused(t, failure.DefaultRouteRefused, `"\n\x1b[31m".routes[0]`)
	if _, err := s.plan(); len(err.Error()) > 500 {
		t.Errorf("%d bytes: %v", len(err.Error()), err)
	}
}

func TestU17CNIArgsCannotBringOne(t *testing.T) {
	s := newScenario(`[{"name": "a", "cni-args": {"routes": [{"dst": "0.0.0.0/0"}]}}]`).refusing()
	s.refused(t, failure.DefaultRouteRefused, "web/a", "args.cni.routes[0]")
}

// S21, "default-route: gateways, once of a family".
func TestS21DefaultRoute(t *testing.T) {
	got := newScenario(`[{"name": "a", "default-route": ["10.1.0.1"]}, {"name": "b", ` +
		`"default-route": ["fd00::1"]}, {"name": "a"}]`).must(t)
	want(t, "v4", got[1].Gateways, []netip.Addr{netip.MustParseAddr("10.1.0.1")})
	want(t, "v6", got[2].Gateways, []netip.Addr{netip.MustParseAddr("fd00::1")})
	want(t, "wanted", []bool{
		got[0].WantsDefaultRoute, got[1].WantsDefaultRoute, got[2].WantsDefaultRoute,
		got[3].WantsDefaultRoute,
	},
		[]bool{false, true, true, false})

	got = newScenario(`[{"name": "a", "default-route": []}]`).must(t)
	want(t, "own gateway", got[1].WantsDefaultRoute && len(got[1].Gateways) == 0, true)
}

func TestS21OncePerFamily(t *testing.T) {
	newScenario(`[{"name": "a", "default-route": ["10.1.0.1"]}, {"name": "b", `+
		`"default-route": ["10.1.0.2"]}]`).
		refused(t, failure.InvalidAnnotation, "default-route", "IPv4")

	s := newScenario(`[{"name": "a", "default-route": []}]`)
	s.nad("kube-system/d", `{"type": "bridge"}`)
	s.pod.Annotations[nadv1.DefaultNetworkAnnotation] = `[{"name": "d", "default-route": ["fd00::1"]}]`
	s.refused(t, failure.InvalidAnnotation, "NAD web/a", "kube-system/d", "IPv6")
}

// refusing is s with the policy "refuse".
func (s *scenario) refusing() *scenario {
	s.cfg.SecondaryDefaultRoute = conf.RefuseDefaultRoute
	return s
}

// TestR3LeaveOut: what is left out of a configuration, all else as it was written.
func TestR3LeaveOut(t *testing.T) {
	const v4, v6, both = plan.IPv4, plan.IPv6, plan.BothFamilies
	for name, tc := range map[string]leftOut{
		"routes of IPAM": {
			`{"type":"x","n":1e3,"ipam":{"type":"static","routes":[{"dst":"10.0.0.0/8"},` +
				`{"dst":"0.0.0.0/0"},{"dst":"::/0"}]}}`, v4, none,
			`{"ipam":{"type":"static","routes":[{"dst":"10.0.0.0/8"},{"dst":"::/0"}]},"n":1e3,"type":"x"}`,
			0,
			[]string{"plugins[0].ipam.routes[1]"},
		},
		"none held": {
			`{"type":"x","routes":[{"dst":"0.0.0.0/0"}]}`, 0, none,
			`{"routes":[{"dst":"0.0.0.0/0"}],"type":"x"}`, 0, nil,
		},
		"another family": {
			`{"type":"x","routes":[{"dst":"0.0.0.0/0"}]}`, v6, none,
			`{"routes":[{"dst":"0.0.0.0/0"}],"type":"x"}`, 0, nil,
		},
		"asked for": {
			`{"type":"x","routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0"}]}`, both,
			`, "default-route": ["10.1.0.1"]`, `{"routes":[{"dst":"0.0.0.0/0"}],"type":"x"}`, 0,
			[]string{"plugins[0].routes[1]"},
		},
		"own table": {
			`{"type":"x","routes":[{"dst":"0.0.0.0/0","table":100},{"dst":"0.0.0.0/0",` +
				`"table":254}]}`, v4, none, `{"routes":[{"dst":"0.0.0.0/0","table":100}],"type":"x"}`, 0,
			[]string{"plugins[0].routes[1]"},
		},
		"addroutes": {
			`{"plugins":[{"type":"x"},{"type":"route-override","addroutes":[{"dst":"0.0.0.0/0"}]}]}`,
			v4, none,
			`{"type":"x"},{"addroutes":[],"type":"route-override"}`, 0,
			[]string{"plugins[1].addroutes[0]"},
		},
		"a single one": {
			`{"type":"x","routes":{"dst":"0.0.0.0/0"}}`, v4, none, `{"type":"x"}`, 0,
			[]string{"plugins[0].routes"},
		},
		"deep inside": {
			`{"type":"x","delegates":[{"ipam":{"routes":["0.0.0.0/0"]}}]}`, v4, none,
			`{"delegates":[{"ipam":{"routes":[]}}],"type":"x"}`, 0,
			[]string{"plugins[0].delegates[0].ipam.routes[0]"},
		},
		"isDefaultGateway": {
			`{"type":"bridge","isDefaultGateway":true,"isGateway":false,"ipam":{"type":"host-local",` +
				`"subnet":"10.1.0.0/24"}}`, v4, none,
			`{"ipam":{"type":"host-local","subnet":"10.1.0.0/24"},"isDefaultGateway":false,` +
				`"type":"bridge","isGateway":true}`, 0,
			[]string{"plugins[0].isDefaultGateway"},
		},
		"isDefaultGateway, one of two": {
			`{"type":"bridge","isDefaultGateway":true,"ipam":{"type":"dhcp"}}`, v4, none,
			`{"ipam":{"type":"dhcp"},"isDefaultGateway":true,"type":"bridge"}`, v4, nil,
		},
		"sbr": {
			`{"plugins":[{"type":"x","routes":[{"dst":"0.0.0.0/0"}]},{"type":"sbr"}]}`, both, none,
			`{"routes":[{"dst":"0.0.0.0/0"}],"type":"x"},{"type":"sbr"}`, 0, nil,
		},
		"sbr with a table": {
			`{"plugins":[{"type":"x","routes":[{"dst":"0.0.0.0/0"}]},{"type":"sbr","table":5}]}`, both, none,
			`{"routes":[],"type":"x"},{"table":5,"type":"sbr"}`, 0,
			[]string{"plugins[0].routes[0]"},
		},
	} {
		t.Run(name, tc.test)
	}
}

// leftOut is a configuration, the families whose default route a pod holds, and what is left of it.
type leftOut struct {
	config string
	held   plan.Families
	asked  string
	want   string
	rest   plan.Families
	fields []string
}

func (tc leftOut) test(t *testing.T) {
	s := newScenario(`[{"name": "a"` + tc.asked + `}]`)
	s.nad("web/a", tc.config)
	a := s.must(t)[1]
	rest, err := a.LeaveOut(tc.held)
	if err != nil {
		t.Fatal(err)
	}
	want(t, "rest", rest, tc.rest)
	if text := `"plugins":[` + tc.want + `]`; !strings.Contains(string(a.Conf), text) {
		t.Errorf("got %s, want %s", a.Conf, text)
	}
	var fields []string
	for _, w := range a.Warnings {
		fields = append(fields, w.Field)
		want(t, "reason", w.Reason, failure.DefaultRouteKept)
	}
	want(t, "fields", fields, tc.fields)
}
