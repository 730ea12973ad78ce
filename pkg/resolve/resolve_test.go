package resolve_test

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime/schema"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/resolve"
)

const (
	onDisk    = "eth0 pods pods bridge"
	auxiliary = `,"clusterNetwork":"DIR/net/pods.conf","auxiliaryCNIChainName":"aux"`
)

func TestAttachments(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		keys, pod, networks string
		prepare             func(*cluster)
		want                []string
	}{
		"no pod":      {"", "", "", nil, []string{onDisk}},
		"no networks": {"", "web/p", "", nil, []string{onDisk}},
		"networks": {
			"", "web/p", "b,a@x,a", nil,
			[]string{onDisk, "net1 web/b nb ipvlan", "x web/a na macvlan", "net3 web/a na macvlan"},
		},
		"default as file": {`,"clusterNetwork":"DIR/net/pods.conf"`, "", "", nil, []string{onDisk}},
		"default as NAD": {
			`,"clusterNetwork":"a","multusNamespace":"web"`, "", "", nil,
			[]string{"eth0 web/a na macvlan"},
		},
		"default as delegate": {
			`,"delegates":[{"name":"own","type":"x"}]`, "", "", nil,
			[]string{"eth0 own own x"},
		},
		"default of the pod's own": {"", "web/p", "", func(c *cluster) {
			c.objs.pods["web/p"].Annotations[nadv1.DefaultNetworkAnnotation] = "web/a"
		}, []string{"eth0 web/a na macvlan"}},
		"further networks of every pod": {
			`,"multusNamespace":"web","defaultNetworks":["b"]`, "web/p", "a", nil,
			[]string{onDisk, "net1 web/b nb ipvlan", "net2 web/a na macvlan"},
		},
		"system namespaces have none of those": {
			`,"multusNamespace":"web","defaultNetworks":["b"],"systemNamespaces":["sys"]`, "sys/p", "", nil,
			[]string{onDisk},
		},
		"NAD on disk": {"", "web/p", "disk", func(c *cluster) {
			c.nad("web/disk", " ")
			c.write("net/x.conflist",
				`{"cniVersion":"1.0.0","name":"disk","plugins":[{"type":"one"},{"type":"two"}]}`)
		}, []string{onDisk, "net1 web/disk disk one two"}},
		"auxiliary chain": {auxiliary, "web/p", "a", func(c *cluster) {
			c.write("net/aux/1.conf", `{"type":"tuning"}`)
		}, []string{onDisk, "net1 web/a na macvlan", "net2 aux aux passthru tuning"}},
		"no auxiliary chain": {auxiliary, "web/p", "", nil, []string{onDisk}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, test.keys)
			pod := c.pod(test.pod, test.networks)
			if test.prepare != nil {
				test.prepare(c)
			}
			c.each(func(t *testing.T, source resolve.Source) {
				resolver := c.resolver(source, devices{})
				got, err := resolver.Attachments(t.Context(), resolve.Any(&c.cfg.Call), pod)
				if err != nil {
					t.Fatal(err)
				}
				same(t, "attachments", summary(got), test.want)
				again, err := resolver.Attachments(t.Context(), resolve.Any(&c.cfg.Call), pod)
				if err != nil {
					t.Fatal(err)
				}
				same(t, "the second answer", again, got)
			})
		})
	}
}

// What the runtime says of the sandbox reaches the default network.
func TestAttachmentsOfASandbox(t *testing.T) {
	t.Parallel()
	c := newCluster(t, "")
	resolver := c.resolver(&c.objs, devices{})
	sandbox := resolve.Sandbox{
		ContainerID: "c", IfName: "en0", Call: &c.cfg.Call,
		Args: [][2]string{{"K8S_POD_NAME", "p"}, {"IP", "10.0.0.1"}},
	}
	got, err := resolver.Attachments(t.Context(), sandbox, c.pod("web/p", "a"))
	if err != nil {
		t.Fatal(err)
	}
	same(t, "interface", got[0].IfName, "en0")
	same(t, "arguments", got[0].Args, sandbox.Args)
	same(t, "arguments of another network", got[1].Args, sandbox.Args[:1])
}

// An error names the network, and is the same one each time.
func TestAttachmentsErrors(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		keys, pod, networks string
		prepare             func(*cluster)
		reason              failure.Reason
		network             string
		words               []string
	}{
		"no NAD": {
			"", "web/p", "a,none", nil, failure.NADNotFound, "web/none",
			[]string{nadv1.NetworksAnnotation, "create it"},
		},
		"first of many": {"", "web/p", "a,x,y,z,b,v,w", nil, failure.NADNotFound, "web/x", nil},
		"forbidden":     {"", "web/p", "other/a", nil, failure.NADForbidden, "other/a", nil},
		"broken": {
			"", "web/p", "bad",
			func(c *cluster) {
				c.nad("web/bad", `{"type":`)
			}, failure.NADInvalid, "web/bad",
			[]string{"spec.config"},
		},
		"not on disk": {
			"", "web/p", "bad",
			func(c *cluster) { c.nad("web/bad", "") }, failure.NetworkNotFound, "web/bad",
			[]string{"net"},
		},
		"too large": {
			"", "web/p", "bad", tooLarge, failure.NADInvalid, "web/bad",
			[]string{"131072", "shorten it"},
		},
		"annotation": {
			"", "web/p", "[", nil, failure.InvalidAnnotation, "",
			[]string{nadv1.NetworksAnnotation},
		},
		"taken interface": {
			"", "web/p", "a@x,b@x", nil, failure.InvalidAnnotation, "web/b",
			[]string{"web/a"},
		},
		"no default": {
			`,"clusterNetwork":"gone"`, "web/p", "", nil, failure.NetworkNotFound,
			"gone", nil,
		},
		"no file": {
			`,"clusterNetwork":"/no/such.conf"`, "web/p", "", nil,
			failure.NetworkNotFound, "/no/such.conf", nil,
		},
		"no default NAD": {"", "web/p", "", func(c *cluster) {
			c.objs.pods["web/p"].Annotations[nadv1.DefaultNetworkAnnotation] = "none"
		}, failure.NADNotFound, "kube-system/none", []string{nadv1.DefaultNetworkAnnotation}},
		"broken auxiliary chain": {
			auxiliary, "", "",
			func(c *cluster) {
				c.write("net/aux/1.conf", "{")
			}, failure.InvalidConfig, "DIR/net/aux/1.conf", nil,
		},
		"device": {
			"", "web/p", "nic", nic, failure.DeviceUnavailable, "web/nic",
			[]string{"v/nic"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, test.keys)
			pod := c.pod(test.pod, test.networks)
			if test.prepare != nil {
				test.prepare(c)
			}
			c.each(func(t *testing.T, source resolve.Source) {
				resolver := c.resolver(source, devices{})
				for range 5 {
					_, err := resolver.Attachments(t.Context(), resolve.Any(&c.cfg.Call), pod)
					fails(t, err, test.reason, strings.ReplaceAll(test.network, "DIR", c.dir), test.words...)
				}
			})
		})
	}
}

func tooLarge(c *cluster) {
	c.nad("web/bad", `{"cniVersion":"1.0.0","type":"macvlan","x":"`+strings.Repeat("x", 128<<10)+`"}`)
}

// nic is a network of a device.
func nic(c *cluster) {
	c.nad("web/nic", `{"cniVersion":"1.0.0","type":"sriov"}`).
		Annotations = map[string]string{nadv1.ResourceNameAnnotation: "v/nic"}
}

// "Not known" is never "not there": what a source cannot say now is said by the next call.
func TestUnavailable(t *testing.T) {
	t.Parallel()
	resource := schema.GroupResource{Resource: "x"}
	for name, test := range map[string]struct {
		err    error
		fix    string
		reason failure.Reason
	}{
		"plain": {errors.New("connection refused"), "try again", failure.APIUnavailable},
		"named": {&failure.Error{
			Reason: failure.APIUnavailable, Err: errors.New("slow"), Fix: "wait",
		}, "wait", failure.APIUnavailable},
		"forbidden": {
			apierrors.NewForbidden(resource, "x", errors.New("no")), "conf/rbac",
			failure.APIUnavailable,
		},
		"credential": {apierrors.NewUnauthorized("no"), "kubeconfig", failure.APIUnavailable},
		"timed out": {
			&failure.Error{Reason: failure.TimedOut, Err: errors.New("slow"), Fix: "wait"},
			"wait", failure.TimedOut,
		},
		"throttled": {apierrors.NewTooManyRequests("slow", 1), "try again", failure.APIUnavailable},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, `,"clusterNetwork":"DIR/net/pods.conf"`)
			c.objs.err = test.err
			resolver := c.resolver(&c.objs, devices{})
			pod := c.pod("web/p", "a")
			_, err := resolver.Attachments(t.Context(), resolve.Any(&c.cfg.Call), pod)
			fails(t, err, test.reason, "web/a", test.fix)
			_, _, err = resolver.Past(t.Context(), resolve.Any(&c.cfg.Call), pod, never(t))
			fails(t, err, test.reason, "web/a", test.fix)
			if _, err = resolver.Pod(t.Context(), "web", "p", ""); failure.ReasonOf(err) != test.reason {
				t.Errorf("pod: %v", err)
			}
			if _, err := resolver.Default(t.Context(), &c.cfg.Call); err != nil {
				t.Errorf("a default network on disk needs no source: %v", err)
			}
		})
	}
}

// The default network is known although further ones of every pod are not.
func TestDefault(t *testing.T) {
	t.Parallel()
	c := newCluster(t, `,"defaultNetworks":["gone"]`)
	c.each(func(t *testing.T, source resolve.Source) {
		resolver := c.resolver(source, devices{})
		got, err := resolver.Default(t.Context(), &c.cfg.Call)
		if err != nil {
			t.Fatal(err)
		}
		same(t, "default network", summary([]plan.Attachment{*got}), []string{onDisk})
		if !got.Default {
			t.Error("it is not marked as such")
		}
	})
	c = newCluster(t, `,"clusterNetwork":"gone"`)
	c.each(func(t *testing.T, source resolve.Source) {
		_, err := c.resolver(source, devices{}).Default(t.Context(), &c.cfg.Call)
		fails(t, err, failure.NetworkNotFound, "gone")
	})
}

func never(t *testing.T) func(plan.Request) (plan.Definition, bool) {
	return func(request plan.Request) (plan.Definition, bool) {
		t.Errorf("%s is taken to be gone", request.Ref)
		return plan.Definition{}, false
	}
}

func TestPast(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		networks string
		known    string // former definition of web/gone
		want     []string
		exact    bool
	}{
		"all there": {
			"a,b", "",
			[]string{onDisk, "net1 web/a na macvlan", "net2 web/b nb ipvlan"},
			true,
		},
		"gone and known": {
			"gone,b", `{"cniVersion":"1.0.0","name":"ng","type":"x"}`,
			[]string{onDisk, "net1 ng ng x", "net2 web/b nb ipvlan"},
			false,
		},
		"gone and unknown": {"gone,b", "", []string{onDisk, "net2 web/b nb ipvlan"}, false},
		"asks of one gone": {
			`[{"name":"gone","interface":"x"},{"name":"b"}]`, "",
			[]string{onDisk, "net2 web/b nb ipvlan"},
			false,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, "")
			pod := c.pod("web/p", test.networks)
			c.each(func(t *testing.T, source resolve.Source) {
				var asked []string
				former := func(request plan.Request) (plan.Definition, bool) {
					asked = append(asked, request.Ref)
					return plan.Definition{Conf: []byte(test.known)}, test.known != ""
				}
				resolver := c.resolver(source, devices{})
				rest, exact, err := resolver.Past(t.Context(), resolve.Any(&c.cfg.Call), pod, former)
				if err != nil {
					t.Fatal(err)
				}
				same(t, "attachments", summary(rest), test.want)
				same(t, "exact", exact, test.exact)
				same(t, "asked of the past", slices.Compact(asked),
					map[bool][]string{false: {"web/gone"}}[test.exact])
			})
		})
	}
}

// What a pod requests and claims is not in its annotations: then it is fetched, if it matters.
func TestDevices(t *testing.T) {
	t.Parallel()
	none := &failure.Error{
		Reason: failure.DeviceUnavailable, Err: fmt.Errorf("dial: %w", fs.ErrNotExist),
	}
	for name, test := range map[string]struct {
		requested []string
		devices   devices
		device    string
		fails     failure.Reason
	}{
		"given": {
			[]string{"v/nic"},
			devices{pod: map[string][]string{"v/nic": {"d1", "d2"}}},
			"d1", "",
		},
		"none":      {[]string{"v/nic"}, devices{node: []string{"v/nic"}}, "", failure.DeviceUnavailable},
		"no socket": {nil, devices{err: none}, "", failure.DeviceUnavailable},
		"unknown":   {nil, devices{err: errors.New("timeout")}, "", failure.APIUnavailable},
		"gone pod":  {[]string{"gone"}, devices{}, "", failure.PodNotFound},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCluster(t, "")
			nic(c)
			c.pod("web/p", "nic,a").Requested = test.requested
			passed := *c.objs.pods["web/p"]
			passed.MetaOnly, passed.Requested = true, nil
			if slices.Contains(test.requested, "gone") {
				delete(c.objs.pods, "web/p")
			}
			c.each(func(t *testing.T, source resolve.Source) {
				resolver := c.resolver(source, test.devices)
				got, err := resolver.Attachments(t.Context(), resolve.Any(&c.cfg.Call), &passed)
				if test.fails != "" {
					if failure.ReasonOf(err) != test.fails {
						t.Fatalf("got %v, want %s", err, test.fails)
					}
					return
				}
				if err != nil {
					t.Fatal(err)
				}
				same(t, "device", got[1].DeviceID, test.device)
				same(t, "device of another", got[2].DeviceID, "")
			})
		})
	}
}

// Each NAD is looked up once, and the pod only for devices.
func TestAsksOnce(t *testing.T) {
	t.Parallel()
	c := newCluster(t, `,"clusterNetwork":"DIR/net/pods.conf"`)
	pod := c.pod("web/p", "a,b,a,a")
	pod.MetaOnly = true
	_, err := c.resolver(&c.objs, devices{}).Attachments(t.Context(), resolve.Any(&c.cfg.Call), pod)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(c.objs.asked)
	same(t, "questions", c.objs.asked, []string{"NAD web/a", "NAD web/b"})
}

// One resolver serves several pods at the same time: run it with -race.
func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	c := newCluster(t, auxiliary)
	c.write("net/aux/1.conf", `{"type":"tuning"}`)
	nic(c)
	source := &c.objs
	resolver := c.resolver(source, devices{pod: map[string][]string{"v/nic": {"d"}}})
	one := c.pod("web/p", "a,b,nic")
	one.Requested = []string{"v/nic"}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			for range 20 {
				got, err := resolver.Attachments(t.Context(), resolve.Any(&c.cfg.Call), one)
				if err != nil || len(got) != 5 || got[3].DeviceID != "d" {
					t.Errorf("%v, %v", summary(got), err)
				}
				for i := range got { // they are the caller's
					got[i].Conf[0], got[i].Warnings, got[i].RuntimeConfig = ' ', nil, nil
				}
				if _, err := resolver.Pod(t.Context(), "web", "p", "uid-p"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
}
