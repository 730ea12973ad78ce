package resolve_test

import (
	"errors"
	"fmt"
	"testing"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	podv1 "github.com/braid-cni/braid/pkg/api/pod/v1"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/invoke"
	"github.com/braid-cni/braid/pkg/resolve"
)

// places are where plugins run, in short.
func places(expected []resolve.Expected) []string {
	var all []string
	for _, e := range expected {
		for _, p := range e.Places {
			all = append(all, fmt.Sprint(e.IfName, " ", p.Type, " ", p.IPAM, " ", p.Path, " ", p.Err != nil))
		}
	}
	return all
}

// A chain that is refused hides nothing of the others.
func TestExpect(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "")
	c.cfg.SecondaryDefaultRoute = conf.KeepDefaultRoute
	c.nad("web/a", `{"cniVersion":"1.0.0","type":"macvlan","ipam":{"type":"static",`+
		`"routes":[{"dst":"0.0.0.0/0"}]}}`)
	c.nad("web/gone", `{"cniVersion":"1.0.0","plugins":[{"type":"gone"},{"type":"own"}]}`)
	pod := c.pod("web/p", "a,gone,b")
	ignored := &failure.Error{Reason: failure.IgnoredKey, Err: errors.New("ignored")}
	f := &finder{
		found: map[string]invoke.Found{
			"own": {Execd: true, Path: "/bin/own"}, "static": {Warnings: []*failure.Error{ignored}},
		},
		errs: map[string]error{
			"gone": &failure.Error{Reason: failure.PluginNotFound, Err: errors.New("no such file")},
		},
	}
	c.each(func(t *testing.T, source resolve.Source) {
		resolver := c.resolver(source, devices{})
		got, _, err := resolver.Expect(t.Context(), resolve.Any(&c.cfg.Call), pod, f, []string{"/bin"})
		fails(t, err, failure.PluginNotFound, "web/gone")
		same(t, "places", places(got), []string{
			"eth0 bridge false  false", "net1 macvlan false  false", "net1 static true  false",
			"net2 gone false  true", "net2 own false /bin/own false", "net3 ipvlan false  false",
		})
		var warned []failure.Reason
		for _, w := range got[1].Warnings {
			warned = append(warned, w.Reason)
			same(t, "network of a warning", w.NAD, "web/a")
		}
		same(t, "warnings", warned, []failure.Reason{failure.IgnoredKey, failure.DefaultRouteKept})

		got, _, err = resolver.Expect(t.Context(), resolve.Any(&c.cfg.Call), pod, f, nil)
		if err != nil || !got[2].Execd || got[2].Places[0].Path != "" {
			t.Errorf("without a place to look in: %+v, %v", got, err)
		}
		_, _, err = resolver.Expect(t.Context(), resolve.Any(&c.cfg.Call), c.elsewhere(), f, nil)
		fails(t, err, failure.NADNotFound, "web/none")
	})
}

// elsewhere is a pod that asks for what there is not.
func (c *cluster) elsewhere() *podv1.Pod {
	pod := *c.objs.pods["web/p"]
	pod.Annotations = map[string]string{nadv1.NetworksAnnotation: "none"}
	return &pod
}

// On another machine than the node what only the node knows refuses nothing, whatever a pod asks
// for there.
func TestElsewhere(t *testing.T) {
	t.Parallel()
	c := newCluster(t, `,"clusterNetwork":"/no/such.conf","auxiliaryCNIChainName":"aux"`)
	c.nad("web/disk", "")
	pod := c.pod("web/p", `[{"name":"disk","ips":["10.0.0.1/24"],"mac":"02:00:00:00:00:01","bandwidth":{"ingressRate":1,"ingressBurst":1},
		"portMappings":[{"hostPort":1,"containerPort":2}],"infiniband-guid":"02:00:00:00:00:00:00:01"},{"name":"a"}]`)
	c.each(func(t *testing.T, source resolve.Source) {
		resolver := c.resolver(source, devices{})
		resolver.Elsewhere = true
		f := &finder{}
		got, _, err := resolver.Expect(t.Context(), resolve.Any(&c.cfg.Call), pod, f, nil)
		if err != nil {
			t.Fatal(err)
		}
		var short []string
		for _, e := range got {
			short = append(short, fmt.Sprint(e.IfName, " ", e.Name, " ", e.Unknown))
		}
		same(t, "attachments", short,
			[]string{"eth0 unknown true", "net1 web/disk true", "net2 web/a false"})
		same(t, "judged", f.asked, []string{"macvlan "})
	})
}

// Where it is not known which devices a pod has, it has what it may have.
func TestDevicesUnknown(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		prepare func(*podv1.Pod)
		refused bool
	}{
		"requested":     {func(p *podv1.Pod) { p.Requested = []string{"v/nic"} }, false},
		"claims":        {func(p *podv1.Pod) { p.Claims = []string{"c"} }, false},
		"not known":     {func(p *podv1.Pod) { p.MetaOnly = true }, false},
		"not requested": {func(p *podv1.Pod) { p.Requested = []string{"v/other"} }, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, "")
			nic(c)
			pod := c.pod("web/p", "nic,nic")
			test.prepare(pod)
			got, err := c.resolver(&c.objs, nil).Attachments(t.Context(), resolve.Any(&c.cfg.Call), pod)
			if test.refused {
				fails(t, err, failure.DeviceUnavailable, "web/nic", "v/nic")
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got[1].Resource != "v/nic" || got[1].DeviceID == "" || got[1].DeviceID == got[2].DeviceID {
				t.Errorf("devices %q and %q", got[1].DeviceID, got[2].DeviceID)
			}
		})
	}
}
