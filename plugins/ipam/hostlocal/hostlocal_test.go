package hostlocal_test

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/pkg/ipam/file"
	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/plugin/plugintest"
	"github.com/braid-cni/braid/plugins/ipam/hostlocal"
)

func TestAddCheckDel(t *testing.T) {
	n := newNode(t, ours(file.Boot{}))
	resolv := n.Dir + "/resolv.conf"
	must(t, os.WriteFile(resolv,
		[]byte("# comment\nnameserver 10.1.0.53\n ; x\nsearch a.example b.example\nsearch "+
			"c.example\noptions ndots:5\ndomain d.example\nnameserver\n"), 0o600))
	c := n.conf(conf{
		"ranges": list{
			list{conf{"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.10"}},
			list{conf{"subnet": "fd00::/64", "gateway": "fd00::ff"}},
		},
		"routes": list{
			conf{"dst": "0.0.0.0/0"}, conf{
				"dst": "fd01::/64", "gw": "fd00::fe", "mtu": 1400, "advmss": 1360, "priority": 7, "table": 100,
				"scope": 0,
			},
		},
		"resolvConf": resolv,
	})
	p := n.pod("a")
	_, err := p.Add(c)
	must(t, err)
	want(t, "result", sorted(t, p.Prev), `{"cniVersion":"1.1.0",`+
		`"dns":{"domain":"d.example","nameservers":["10.1.0.53"],"options":["ndots:5"],`+
		`"search":["a.example","b.example","c.example"]},`+
		`"ips":[{"address":"10.1.0.10/24","gateway":"10.1.0.1"},{"address":"fd00::1/64",`+
		`"gateway":"fd00::ff"}],`+
		`"routes":[{"dst":"0.0.0.0/0"},{"advmss":1360,"dst":"fd01::/64","gw":"fd00::fe","mtu":1400,`+
		`"priority":7,"scope":0,"table":100}]}`)
	want(t, "leases", n.leases(), map[string]string{
		"10.1.0.10": "a\r\nnet1", "fd00::1": "a\r\nnet1", "last_reserved_ip.0": "10.1.0.10",
		"last_reserved_ip.1": "fd00::1",
	})
	must(t, p.Check(c))
	fails(t, "second ADD", second(p.Call("ADD", c)), 999, "container a", "10.1.0.10",
		"duplicate allocation")
	for range 2 {
		must(t, p.Del(c))
		want(t, "leases", n.addresses(), "map[]")
	}
	fails(t, "CHECK after DEL", p.Check(c), 999, "10.1.0.10", "fd00::1")
}

// sorted is a result with its keys in order.
func sorted(t *testing.T, result []byte) string {
	t.Helper()
	var value any
	must(t, json.Unmarshal(result, &value))
	text, err := json.Marshal(value)
	must(t, err)
	return string(text)
}

func second(_ []byte, err error) error { return err }

func TestCheckComparesWithPrevResult(t *testing.T) {
	check := func(t *testing.T, n *node) error {
		t.Helper()
		c := n.conf(conf{
			"ranges": list{list{conf{"subnet": "10.1.0.0/24"}}, list{conf{"subnet": "10.2.0.0/24"}}},
		})
		p := n.pod("a")
		_, err := p.Add(c)
		must(t, err)
		must(t, p.Check(c))
		must(t, os.Remove(n.dir()+"/net/10.2.0.2"))
		return p.Check(c)
	}
	t.Run("ours", func(t *testing.T) {
		n := newNode(t, ours(file.Boot{}))
		fails(t, "CHECK", check(t, n), 999, "container a", "10.2.0.2")
		// Without prevResult any lease will do, as for the reference; addresses of other ranges are
		// others' business.
		p := n.pod("a")
		c := n.conf(conf{"subnet": "10.1.0.0/24"})
		must(t, p.Check(c))
		p.Prev = []byte(`{"cniVersion":"1.1.0","ips":[{"address":"192.168.0.1/24"}]}`)
		must(t, p.Check(c))
		fails(t, "CHECK of nobody", n.pod("b").Check(c), 999, "container b")
	})
	t.Run("reference", func(t *testing.T) {
		must(t, check(t, newNode(t, plugintest.Reference{}))) // it is content with one address
	})
}

func TestRequests(t *testing.T) {
	n := newNode(t, ours(file.Boot{}))
	c := n.conf(conf{
		"ranges": list{
			list{conf{"subnet": "10.1.0.0/24"}},
			list{conf{"subnet": "10.2.0.0/24"}},
			list{conf{"subnet": "fd00::/64"}},
		},
	})
	p := n.pod("a")
	p.Args = "IgnoreUnknown=1;K8S_POD_NAME=x;IP=10.2.0.7"
	_, err := p.Add(c.With(conf{
		"args":          conf{"cni": conf{"ips": list{"10.1.0.9/24", "10.2.0.7"}, "other": 1}},
		"runtimeConfig": conf{"ips": list{"FD00::00:42/64"}, "mac": "02:00:00:00:00:01"},
	}))
	must(t, err)
	want(t, "leases", n.addresses(),
		map[string]string{"10.1.0.9": "a\r\nnet1", "10.2.0.7": "a\r\nnet1", "fd00::42": "a\r\nnet1"})
	// The ranges of the runtime come first.
	p = n.pod("b")
	result, err := p.Add(c.With(conf{
		"runtimeConfig": conf{
			"ipRanges": list{list{conf{"subnet": "10.3.0.0/24"}}}, "ips": list{"10.3.0.5"},
		},
	}))
	must(t, err)
	want(t, "addresses", []any{
		len(result.IPs), result.IPs[0].Address.String(), result.IPs[1].Address.String(),
	}, "[4 10.3.0.5/24 10.1.0.2/24]")

	before := n.leases()
	for key, more := range map[string]conf{
		`runtimeConfig.ips[0] "10.1.0.9": is held by ` +
			`container a`: {"runtimeConfig": conf{"ips": list{"10.1.0.9"}}},
		`runtimeConfig.ips[1] "10.1.0.21": is of the ` +
			`same range`: {"runtimeConfig": conf{"ips": list{"10.1.0.20", "10.1.0.21"}}},
		`args.cni.ips[0] "10.9.0.1": is in none of the ` +
			`ranges`: {"args": conf{"cni": conf{"ips": list{"10.9.0.1"}}}},
		`args.cni.ips[0] "10.1.0.1": is the gateway`: {"args": conf{
			"cni": conf{"ips": list{"10.1.0.1"}},
		}},
		`args.cni.ips[0] "x": is no IP address`: {"args": conf{"cni": conf{"ips": list{"x"}}}},
		`args.cni.ips[0] "fe80::1%1": is no IP address`: {"args": conf{
			"cni": conf{"ips": list{"fe80::1%1"}},
		}},
	} {
		name, why, _ := strings.Cut(key, ": ")
		code := uint(7)
		if strings.Contains(why, "held") {
			name, code = "10.1.0.9", 999
		}
		fails(t, key, second(n.pod("c").Call("ADD", c.With(more))), code, name, why)
	}
	p = n.pod("c")
	p.Args = "IP=10.1.0.30,x"
	fails(t, "list in CNI_ARGS", second(p.Call("ADD", c)), 7, `CNI_ARGS IP "x"`)
	p.Args = "COLOUR=red"
	fails(t, "unknown in CNI_ARGS", second(p.Call("ADD", c)), 4, "COLOUR=red")
	want(t, "leases", n.leases(), before)
}

// badInput is a configuration that is refused: the object ipam, and more keys beside it.
type badInput struct {
	name  string
	ipam  conf
	more  conf
	words []string
}

// withRange returns an object ipam with one range that has more keys.
func withRange(more conf) conf {
	return conf{"ranges": list{list{conf{"subnet": "10.1.0.0/24"}.With(more)}}}
}

// refused fails unless an ADD refuses each, soon, in few words, and before it writes anything.
func refused(t *testing.T, inputs []badInput) {
	t.Helper()
	n := newNode(t, ours(file.Boot{}))
	for _, c := range inputs {
		start := time.Now()
		err := second(n.pod("a").Call("ADD", n.conf(c.ipam).With(c.more)))
		fails(t, c.name, err, 7, c.words...)
		if err != nil && len(err.Error()) > 1000 {
			t.Errorf("%s: a message of %d bytes", c.name, len(err.Error()))
		}
		if spent := time.Since(start); spent > 10*time.Second {
			t.Errorf("%s: took %v", c.name, spent)
		}
		if _, err := os.Stat(n.dir()); !errors.Is(err, os.ErrNotExist) {
			t.Fatalf("%s: %s was made", c.name, n.dir())
		}
	}
}

// A range is a subnet with room for an address, without host bits.
func TestBadSubnets(t *testing.T) {
	refused(t, []badInput{
		{"no ranges", conf{}, nil, []string{"ipam.ranges", "there are no ranges"}},
		{"empty list", conf{"ranges": list{}}, nil, []string{"ipam.ranges []"}},
		{"empty set", conf{"ranges": list{list{}}}, nil, []string{"ipam.ranges[0] []"}},
		{"empty range", conf{"ranges": list{list{conf{}}}}, nil, []string{`ipam.ranges[0][0].subnet ""`}},
		{"no list", conf{"ranges": "10.1.0.0/24"}, nil, []string{"ranges", "10.1.0.0/24"}},
		{"number", conf{"subnet": 10}, nil, []string{"subnet", "10"}},
		{
			"no CIDR", withRange(conf{"subnet": "10.1.0.0"}), nil,
			[]string{`ipam.ranges[0][0].subnet "10.1.0.0"`},
		},
		{
			"host bits",
			conf{"subnet": "10.1.0.1/24"},
			nil,
			[]string{`ipam.subnet "10.1.0.1/24"`, "host bits", "10.1.0.0/24"},
		},
		{
			"host bits of IPv6",
			conf{"subnet": "fd00::1/64"},
			nil,
			[]string{`ipam.subnet "fd00::1/64"`, "fd00::/64"},
		},
		{"mapped", conf{"subnet": "::ffff:10.1.0.0/120"}, nil, []string{"::ffff:10.1.0.0/120"}},
		{"/31", conf{"subnet": "10.1.0.0/31"}, nil, []string{"10.1.0.0/31", "too small"}},
		{"/32", conf{"subnet": "10.1.0.0/32"}, nil, []string{"10.1.0.0/32", "too small"}},
		{"/127", conf{"subnet": "fd00::/127"}, nil, []string{"fd00::/127", "too small"}},
		{"/128", conf{"subnet": "fd00::/128"}, nil, []string{"fd00::/128", "too small"}},
	})
}

// Bounds and gateway of a range are addresses of it.
func TestBadBounds(t *testing.T) {
	refused(t, []badInput{
		{
			"start outside", withRange(conf{"rangeStart": "10.2.0.1"}), nil,
			[]string{`ipam.ranges[0][0].rangeStart "10.2.0.1"`, "10.1.0.0/24"},
		},
		{
			"end outside", withRange(conf{"rangeEnd": "10.1.1.0"}), nil,
			[]string{`ipam.ranges[0][0].rangeEnd "10.1.1.0"`},
		},
		{
			"end of the other family", withRange(conf{"rangeEnd": "fd00::1"}), nil,
			[]string{`ipam.ranges[0][0].rangeEnd "fd00::1"`},
		},
		{
			"end before start", withRange(conf{"rangeStart": "10.1.0.9", "rangeEnd": "10.1.0.8"}), nil,
			[]string{`rangeEnd "10.1.0.8"`, "10.1.0.9"},
		},
		{"start is no address", withRange(conf{"rangeStart": "10.1.0"}), nil, []string{`rangeStart "10.1.0"`}},
		{
			"start without subnet", withRange(nil).With(conf{"rangeStart": "nonsense"}), nil,
			[]string{`ipam.rangeStart "nonsense"`},
		},
		{"gateway is no address", withRange(conf{"gateway": "router"}), nil, []string{`gateway "router"`}},
		{
			"gateway with a zone",
			conf{"subnet": "fd00::/64", "gateway": "fe80::1%eth0"},
			nil,
			[]string{`gateway "fe80::1%eth0"`},
		},
		{
			"gateway of the other family", withRange(conf{"gateway": "fd00::1"}), nil,
			[]string{`gateway "fd00::1"`},
		},
	})
}

// No address is in two ranges, also not in one of the runtime's.
func TestOverlappingRanges(t *testing.T) {
	huge := list{}
	for range 5000 {
		huge = append(huge, list{conf{"subnet": "10.0.0.0/8"}})
	}
	refused(t, []badInput{
		{"mixed families", conf{
			"ranges": list{list{conf{"subnet": "10.1.0.0/24"}, conf{"subnet": "fd00::/64"}}},
		}, nil, []string{`ipam.ranges[0][1].subnet "fd00::/64"`}},
		{"overlap in a set", conf{
			"ranges": list{list{conf{"subnet": "10.1.0.0/24"}, conf{"subnet": "10.1.0.128/25"}}},
		}, nil, []string{"10.1.0.1-10.1.0.254", "10.1.0.129", "overlap"}},
		{"overlap of sets", conf{
			"subnet": "10.1.0.0/24", "ranges": list{list{conf{"subnet": "10.0.0.0/8"}}},
		}, nil, []string{"10.0.0.1-10.255.255.254", "overlap"}},
		{"overlap with the runtime's", conf{"subnet": "10.1.0.0/24"}, conf{
			"runtimeConfig": conf{"ipRanges": list{list{conf{"subnet": "10.1.0.0/16"}}}},
		}, []string{"overlap"}},
		{"the runtime's range", conf{"subnet": "10.1.0.0/24"}, conf{
			"runtimeConfig": conf{"ipRanges": list{list{conf{"subnet": "x"}}}},
		}, []string{`runtimeConfig.ipRanges[0][0].subnet "x"`}},
		{"huge list of ranges", conf{"ranges": huge}, nil, []string{"overlap"}},
	})
}

// What else a configuration cannot have.
func TestBadInput(t *testing.T) {
	many := list{}
	for range 20000 {
		many = append(many, "10.1.0.7", "10.250.0.1")
	}
	refused(t, []badInput{
		{
			"huge list of addresses", withRange(nil),
			conf{"runtimeConfig": conf{"ips": many}},
			[]string{`runtimeConfig.ips[1] "10.250.0.1"`},
		},
		{
			"addresses are no list", withRange(nil),
			conf{"runtimeConfig": conf{"ips": "10.1.0.7"}},
			[]string{"runtimeConfig", "ips"},
		},
		{
			"address is null", withRange(nil),
			conf{"runtimeConfig": conf{"ips": list{nil}}},
			[]string{`runtimeConfig.ips[0] ""`},
		},
		{
			"relative directory",
			conf{"subnet": "10.1.0.0/24", "dataDir": "networks"},
			nil,
			[]string{`ipam.dataDir "networks"`},
		},
		{
			"route to nowhere",
			conf{"subnet": "10.1.0.0/24", "routes": list{conf{"gw": "10.1.0.1"}}},
			nil,
			[]string{`ipam.routes[0].dst ""`},
		},
		{"route without length", conf{
			"subnet": "10.1.0.0/24", "routes": list{conf{"dst": "10.5.0.0/16"}, conf{"dst": "10.6.0.0"}},
		}, nil, []string{`ipam.routes[1].dst "10.6.0.0"`}},
		{"route via x", conf{
			"subnet": "10.1.0.0/24", "routes": list{conf{"dst": "0.0.0.0/0", "gw": "x"}},
		}, nil, []string{`ipam.routes[0].gw "x"`}},
		{"route via the other family", conf{
			"subnet": "10.1.0.0/24", "routes": list{conf{"dst": "0.0.0.0/0", "gw": "fd00::1"}},
		}, nil, []string{`ipam.routes[0].gw "fd00::1"`}},
		{
			"no resolv.conf",
			conf{"subnet": "10.1.0.0/24", "resolvConf": "/nonexistent/resolv.conf"},
			nil,
			[]string{`ipam.resolvConf "/nonexistent/resolv.conf"`},
		},
		{
			"endless resolv.conf",
			conf{"subnet": "10.1.0.0/24", "resolvConf": "/dev/zero"},
			nil,
			[]string{`ipam.resolvConf "/dev/zero"`},
		},
		{"two addresses before 0.3.0", conf{
			"ranges": list{list{conf{"subnet": "10.1.0.0/24"}}, list{conf{"subnet": "10.2.0.0/24"}}},
		}, conf{"cniVersion": "0.2.0"}, []string{`cniVersion "0.2.0"`}},
		{
			"network name",
			conf{"subnet": "10.1.0.0/24"},
			conf{"name": "../net"},
			[]string{`name "../net"`},
		},
	})
}

// Keys that are not known are named: a binary in the plugin path may know them.
func TestUnknownKeys(t *testing.T) {
	n := newNode(t, ours(file.Boot{}))
	for key, ipam := range map[string]conf{
		"colour":              {"subnet": "10.1.0.0/24", "colour": "red"},
		"ranges[0][0].colour": {"ranges": list{list{conf{"subnet": "10.1.0.0/24", "colour": "red"}}}},
		"routes[0].gateway": {
			"subnet": "10.1.0.0/24",
			"routes": list{conf{"dst": "0.0.0.0/0", "gateway": "10.1.0.1"}},
		},
	} {
		_, err := n.pod("a").Call("ADD", n.conf(ipam))
		if err == nil || !strings.Contains(err.Error(), key) ||
			!strings.HasPrefix(err.Error(), "unknown keys") {
			t.Errorf("%s: %v", key, err)
		}
	}
}

func TestDelNeedsNoRanges(t *testing.T) {
	del := func(n *node) error {
		n.add("a", n.conf(conf{"subnet": "10.1.0.0/24"}))
		return n.pod("a").Del(n.conf(conf{"subnet": "10.2.0.0/32", "resolvConf": "/nonexistent"}))
	}
	t.Run("ours", func(t *testing.T) {
		n := newNode(t, ours(file.Boot{}))
		must(t, del(n))
		want(t, "leases", n.addresses(), "map[]")
	})
	t.Run("reference", func(t *testing.T) {
		if err := del(newNode(t, plugintest.Reference{})); err == nil {
			t.Error("the reference does it too")
		}
	})
}

func TestGC(t *testing.T) {
	run := func(t *testing.T, n *node) (before int, err error) {
		t.Helper()
		c := n.conf(conf{
			"ranges": list{list{conf{"subnet": "10.1.0.0/24"}}, list{conf{"subnet": "fd00::/64"}}},
		})
		for _, id := range []string{"a", "b", "c"} {
			n.add(id, c)
		}
		must(t, os.WriteFile(n.dir()+"/net/10.1.0.99", []byte("b"), 0o600))
		must(t, os.WriteFile(n.dir()+"/net/10.1.0.100", []byte("gone"), 0o600))
		return len(n.addresses()), n.GC(c, n.pod("b"))
	}
	t.Run("ours", func(t *testing.T) {
		n := newNode(t, ours(file.Boot{}))
		_, err := run(t, n)
		must(t, err)
		want(t, "leases", n.addresses(),
			map[string]string{"10.1.0.3": "b\r\nnet1", "fd00::3": "b\r\nnet1", "10.1.0.99": "b"})
		must(t, n.GC(n.conf(conf{})))
		want(t, "leases", n.addresses(), "map[]")
	})
	t.Run("reference", func(t *testing.T) {
		n := newNode(t, plugintest.Reference{})
		before, _ := run(t, n)
		want(t, "leases", len(n.addresses()), before)
	})
}

func TestStatus(t *testing.T) {
	fill := func(t *testing.T, n *node) conf {
		t.Helper()
		c := n.conf(conf{
			"ranges": list{list{conf{"subnet": "10.2.0.0/24"}}, list{conf{"subnet": "10.1.0.0/30"}}},
		})
		must(t, n.Status(c))
		n.add("a", c)
		return c
	}
	t.Run("ours", func(t *testing.T) {
		n := newNode(t, ours(file.Boot{}))
		c := fill(t, n)
		fails(t, "STATUS", n.Status(c), 50, "range set 1", "10.1.0.1-10.1.0.2", "network net")
		must(t, n.pod("a").Del(c))
		must(t, n.Status(c))
		fails(t, "STATUS of a bad configuration", n.Status(n.conf(conf{"subnet": "x"})), 7,
			`ipam.subnet "x"`)
	})
	t.Run("reference", func(t *testing.T) {
		n := newNode(t, plugintest.Reference{})
		must(t, n.Status(fill(t, n)))
	})
}

// A pool that is full of leases from before the boot can be used after it.
func TestReclaimAfterReboot(t *testing.T) {
	id := "1"
	booted := time.Time{}
	boot := file.Boot{ID: func() (string, error) {
		return id, nil
	}, Time: func() time.Time { return booted }}
	n := newNode(t, ours(boot))
	c := n.conf(conf{"subnet": "10.1.0.0/29"})
	for _, who := range []string{"a", "b", "c", "d", "e"} {
		n.add(who, c)
	}
	fails(t, "STATUS", n.Status(c), 50)
	id = "2"
	must(t, n.Status(c))
	n.add("f", c)
	want(t, "leases", n.addresses(), map[string]string{"10.1.0.2": "f\r\nnet1"})

	t.Run("left by the reference", func(t *testing.T) {
		theirs := newNode(t, plugintest.Reference{})
		c := theirs.conf(conf{"subnet": "10.1.0.0/30"})
		theirs.add("a", c)
		time.Sleep(20 * time.Millisecond)
		booted = time.Now()
		if _, err := theirs.pod("b").Add(c); err == nil {
			t.Error("the reference reclaims, too")
		}
		n := newNode(t, ours(boot))
		n.add("b", conf{"type": "host-local", "ipam": c["ipam"]})
		want(t, "leases", theirs.addresses(), map[string]string{"10.1.0.2": "b\r\nnet1"})
	})
}

// Where a symbolic link is in the place of a file, nothing happens to what it leads to.
func TestSymlinks(t *testing.T) {
	run := func(t *testing.T, n *node) (target string, err error) {
		t.Helper()
		target = n.Dir + "/target"
		must(t, os.WriteFile(target, []byte("precious"), 0o600))
		must(t, os.MkdirAll(n.dir()+"/net", 0o755))
		must(t, os.Symlink(target, n.dir()+"/net/last_reserved_ip.0"))
		_, err = n.pod("a").Add(n.conf(conf{"subnet": "10.1.0.0/24"}))
		data, rerr := os.ReadFile(target)
		must(t, rerr)
		return string(data), err
	}
	t.Run("ours", func(t *testing.T) {
		n := newNode(t, ours(file.Boot{}))
		content, err := run(t, n)
		want(t, "target", content, "precious")
		fails(t, "ADD", err, 999, "last_reserved_ip.0", "symbolic links are not followed")
		must(t, os.Remove(n.dir()+"/net/last_reserved_ip.0"))
		want(t, "leases", n.addresses(), "map[]")
	})
	t.Run("reference", func(t *testing.T) {
		content, err := run(t, newNode(t, plugintest.Reference{}))
		must(t, err)
		want(t, "target", content, "10.1.0.2")
	})
}

// upper is an interface plugin that fails after it has got its addresses, by itself or because its
// time is up.
type upper struct{ plugintest.Conf }

func (upper) Add(
	ctx context.Context, req *plugin.Request, c *plugin.Common,
) (*types100.Result, error) {
	if _, err := req.Allot(ctx, "host-local"); err != nil {
		return nil, err
	}
	return nil, errors.New("injected")
}

func (upper) Del(context.Context, *plugin.Request, *plugin.Common) error    { return nil }
func (upper) Check(context.Context, *plugin.Request, *plugin.Common) error  { return nil }
func (upper) GC(context.Context, *plugin.Request, *plugin.Common) error     { return nil }
func (upper) Status(context.Context, *plugin.Request, *plugin.Common) error { return nil }

func TestAddressesGoBackWhenThePluginFails(t *testing.T) {
	runner := ours(file.Boot{})
	runner["upper"] = plugin.New(upper{})
	n := newNode(t, runner)
	c := n.conf(conf{
		"ranges": list{list{conf{"subnet": "10.1.0.0/24"}}, list{conf{"subnet": "fd00::/64"}}},
	})
	n.add("other", c)
	before := n.addresses()
	fails(t, "ADD", second(n.pod("a").Call("ADD", c.With(conf{"type": "upper"}))), 999, "injected")
	want(t, "leases", n.addresses(), before)
	// A result that the version cannot express is given back, too.
	fails(t, "ADD", second(n.pod("a").Call("ADD", c.With(conf{"cniVersion": "9.9.9"}))), 1, "9.9.9")
	want(t, "leases", n.addresses(), before)
}

// DEL frees the addresses, whatever key has gone from the configuration since. Where another
// dataDir was, only a record of the configuration says.
func TestDelWithoutEachKey(t *testing.T) {
	n := newNode(t, ours(file.Boot{}))
	resolv := n.Dir + "/resolv.conf"
	must(t, os.WriteFile(resolv, []byte("nameserver 10.1.0.53\n"), 0o600))
	c := n.conf(conf{
		"subnet": "10.1.0.0/24", "rangeStart": "10.1.0.7", "rangeEnd": "10.1.0.9",
		"gateway": "10.1.0.254", "ranges": list{list{conf{"subnet": "fd00:1::/64"}}},
		"routes": list{conf{"dst": "10.9.0.0/16"}}, "resolvConf": resolv, "dataDir": n.data,
	})
	plugintest.WithoutEachKey[hostlocal.Conf](t, "ipam", []conf{c},
		func(t *testing.T, key string, with, without conf) {
			p := n.pod("a")
			_, err := p.Add(with)
			must(t, err)
			if len(n.addresses()) == 0 {
				t.Fatal("ADD took no address")
			}
			if key == "dataDir" {
				without = with
			}
			p.Prev = nil
			must(t, p.Del(without))
			want(t, "leases without "+key, n.addresses(), "map[]")
		})
}
