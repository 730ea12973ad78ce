package static_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/plugin/plugintest"
	"github.com/braid-cni/braid/plugins/ipam/static"
)

type (
	conf = plugintest.Conf
	list = []any
)

func ours() plugintest.Plugins {
	return plugintest.Plugins{"static": plugin.NewIPAM(static.Plugin{})}
}

func TestReadme(t *testing.T) { plugintest.Readme[static.Conf](t, plugin.NewIPAM(static.Plugin{})) }

// pod is a pod on a node with that runner.
func pod(t *testing.T, runner plugintest.Runner) *plugintest.Pod {
	t.Helper()
	return plugintest.New(t, runner).Pod("a")
}

func with(ipam conf) conf {
	return conf{"type": "static", "ipam": conf{"type": "static"}.With(ipam)}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
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

var dual = conf{
	"addresses": list{
		conf{"address": "10.1.0.2/24", "gateway": "10.1.0.1"}, conf{"address": "fd00::2/64"},
	},
}

func TestAddCheckDel(t *testing.T) {
	p := pod(t, ours())
	c := with(dual.With(conf{
		"routes": list{conf{"dst": "0.0.0.0/0"}, conf{"dst": "fd01::/64", "gw": "fd00::fe", "mtu": 1400}},
		"dns":    conf{"nameservers": list{"10.1.0.53"}, "search": list{"a.example"}},
	}))
	_, err := p.Add(c)
	must(t, err)
	want := `{"cniVersion":"1.1.0","dns":{"nameservers":["10.1.0.53"],"search":["a.example"]},` +
		`"ips":[{"address":"10.1.0.2/24","gateway":"10.1.0.1"},{"address":"fd00::2/64"}],` +
		`"routes":[{"dst":"0.0.0.0/0"},{"dst":"fd01::/64","gw":"fd00::fe","mtu":1400}]}`
	if got := sorted(t, p.Prev); got != want {
		t.Errorf("result\n got %s\nwant %s", got, want)
	}
	must(t, p.Check(c))
	must(t, p.Del(c))
	must(t, p.Del(with(conf{"addresses": list{conf{"address": "x"}}}))) // nothing that could fail
	must(t, p.Node.GC(c))
	must(t, p.Node.Status(c))
}

// CHECK finds out that an address is missing, which that of the reference does not.
func TestCheckFindsMissingAddress(t *testing.T) {
	c := with(dual)
	for name, prev := range map[string]string{
		"fd00::2/64":                         `[{"address":"10.1.0.2/24","gateway":"10.1.0.1"}]`,
		"10.1.0.2/24 with gateway 10.1.0.1":  `[{"address":"10.1.0.3/24","gateway":"10.1.0.1"},{"address":"fd00::2/64"}]`,
		"10.1.0.2/24 with gateway 10.1.0.1 ": `[]`,
		"10.1.0.2/24":                        `[{"address":"10.1.0.2/16","gateway":"10.1.0.1"},{"address":"fd00::2/64"}]`,
	} {
		p, theirs := pod(t, ours()), pod(t, plugintest.Reference{})
		p.Prev = []byte(`{"cniVersion":"1.1.0","ips":` + prev + `}`)
		theirs.Prev = p.Prev
		err := p.Check(c)
		if err == nil || !strings.Contains(err.Error(),
			"prevResult has no address "+strings.TrimSpace(name)) {
			t.Errorf("%s: %v", name, err)
		}
		t.Run("reference", func(t *testing.T) { must(t, theirs.Check(c)) })
	}
	p := pod(t, ours())
	p.Prev = []byte(`{"cniVersion":"1.1.0","ips":[{"address":"10.1.0.2/24"},` +
		`{"address":"fd00::2/64"}]}`)
	if err := p.Check(c); err == nil || !strings.Contains(err.Error(), "10.1.0.1") {
		t.Errorf("missing gateway: %v", err)
	}
	// The bridge fills in a gateway that is not configured.
	p.Prev = []byte(`{"cniVersion":"1.1.0","ips":[{"address":"fd00::2/64","gateway":"fd00::1"},` +
		`{"address":"10.1.0.2/24","gateway":"10.1.0.1"}]}`)
	must(t, p.Check(c))
	p.Prev = nil
	if err := p.Check(c); plugintest.Code(err) != 7 || !strings.Contains(err.Error(), "prevResult") {
		t.Errorf("no prevResult: %v", err)
	}
}

func TestRequests(t *testing.T) {
	for _, c := range []struct {
		args string
		more conf
		want string
	}{
		{"", nil, "10.1.0.2/24 via 10.1.0.1, fd00::2/64 via <nil>"},
		{
			"IP=10.2.0.2/24, fd02::2/64;GATEWAY=10.2.0.1,fd02::1", nil,
			"10.1.0.2/24 via 10.1.0.1, fd00::2/64 via <nil>, 10.2.0.2/24 via 10.2.0.1, fd02::2/64 via " +
				"fd02::1",
		},
		{
			"IgnoreUnknown=1;K8S_POD_NAME=x;GATEWAY=10.1.0.9", nil,
			"10.1.0.2/24 via 10.1.0.1, fd00::2/64 via <nil>",
		},
		{
			"IP=10.2.0.2/24",
			conf{"args": conf{"cni": conf{"ips": list{"10.3.0.2/24"}}}},
			"10.3.0.2/24 via <nil>",
		},
		{"", conf{
			"args":          conf{"cni": conf{"ips": list{"10.3.0.2/24"}}},
			"runtimeConfig": conf{"ips": list{"10.4.0.2/24", "fd04::2/64"}},
		}, "10.4.0.2/24 via <nil>, fd04::2/64 via <nil>"},
		{
			"",
			conf{"args": conf{"cni": conf{"ips": list{}}}, "runtimeConfig": conf{"ips": list{}}},
			"10.1.0.2/24 via 10.1.0.1, fd00::2/64 via <nil>",
		},
	} {
		for name, runner := range map[string]plugintest.Runner{
			"ours": ours(), "reference": plugintest.Reference{},
		} {
			p := pod(t, runner)
			p.Args = c.args
			result, err := p.Add(with(dual).With(c.more))
			must(t, err)
			var got []string
			for _, ip := range result.IPs {
				got = append(got, fmt.Sprintf("%s via %s", ip.Address.String(), ip.Gateway))
			}
			if got := strings.Join(got, ", "); got != c.want {
				t.Errorf("%s, %q %v:\n got %s\nwant %s", name, c.args, c.more, got, c.want)
			}
		}
	}
}

func TestBadInput(t *testing.T) {
	p := pod(t, ours())
	one := func(a conf) conf { return conf{"addresses": list{a}} }
	for _, c := range []struct {
		ipam  conf
		args  string
		more  conf
		code  uint
		words string
	}{
		{one(conf{}), "", nil, 7, `ipam.addresses[0].address ""`},
		{one(conf{"address": "10.1.0.2"}), "", nil, 7, `ipam.addresses[0].address "10.1.0.2"`},
		{one(conf{"address": "10.1.0.2/33"}), "", nil, 7, `ipam.addresses[0].address "10.1.0.2/33"`},
		{one(conf{"address": 10}), "", nil, 7, "addresses"},
		{conf{"addresses": "10.1.0.2/24"}, "", nil, 7, "10.1.0.2/24"},
		{
			one(conf{"address": "10.1.0.2/24", "gateway": "router"}), "", nil, 7,
			`ipam.addresses[0].gateway "router"`,
		},
		{
			one(conf{"address": "10.1.0.2/24", "gateway": "fd00::1"}), "", nil, 7,
			`ipam.addresses[0].gateway "fd00::1"`,
		},
		{conf{"routes": list{conf{"dst": "x"}}}, "", nil, 7, `ipam.routes[0].dst "x"`},
		{dual, "IP=10.1.0.2", nil, 7, `CNI_ARGS IP "10.1.0.2"`},
		{dual, "IP=10.1.0.2/24,", nil, 7, `CNI_ARGS IP ""`},
		{dual, "GATEWAY=x", nil, 7, `CNI_ARGS GATEWAY "x"`},
		{dual, "COLOUR=red", nil, 4, "COLOUR=red"},
		{dual, "", conf{"args": conf{"cni": conf{"ips": list{"x"}}}}, 7, `args.cni.ips[0] "x"`},
		{
			dual, "",
			conf{"runtimeConfig": conf{"ips": list{"10.1.0.2/24", "10.1.0.3"}}},
			7,
			`runtimeConfig.ips[1] "10.1.0.3"`,
		},
		{dual, "", conf{
			"runtimeConfig": conf{"ips": list{"10.1.0.2/24", "10.1.0.3/24"}}, "cniVersion": "0.2.0",
		}, 7, `cniVersion "0.2.0"`},
	} {
		p.Args = c.args
		_, err := p.Call("ADD", with(c.ipam).With(c.more))
		if plugintest.Code(err) != c.code || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%v %q %v: code %d: %v, want %d: %s",
				c.ipam, c.args, c.more, plugintest.Code(err), err, c.code, c.words)
		}
	}
}

func TestUnknownKeys(t *testing.T) {
	p := pod(t, ours())
	for key, ipam := range map[string]conf{
		"colour": {"colour": "red"},
		"addresses[0].netmask": {"addresses": list{
			conf{"address": "10.1.0.2/24", "netmask": "255.255.255.0"},
		}},
		"dns.server":    {"dns": conf{"server": "10.1.0.53"}},
		"routes[0].via": {"routes": list{conf{"dst": "0.0.0.0/0", "via": "10.1.0.1"}}},
	} {
		_, err := p.Call("ADD", with(ipam))
		if err == nil || !strings.Contains(err.Error(), "unknown keys") ||
			!strings.Contains(err.Error(), key) {
			t.Errorf("%s: %v", key, err)
		}
	}
}

func pick[T any](r *rand.Rand, values ...T) T { return values[r.IntN(len(values))] }

// The result is that of the reference, or both fail.
func TestDifferential(t *testing.T) {
	scripts, err := strconv.Atoi(os.Getenv("BRAID_DIFFERENTIAL"))
	if err != nil {
		scripts = 120
	}
	mine, theirs := pod(t, ours()), pod(t, plugintest.Reference{})
	good := 0
	for seed := range scripts {
		r := rand.New(rand.NewPCG(uint64(seed), 3))
		ipam := conf{}
		var addresses list
		for range r.IntN(4) {
			a := conf{
				"address": pick(r, "10.1.0.2/24", "10.2.0.2/16", "10.3.0.0/32", "FD00::2/64", "fd00:0::3/128",
					"10.1.0.2"),
			}
			gateway := pick(r, "", "10.1.0.1", "10.99.0.1", "fd00::1")
			if strings.Contains(gateway, ":") == strings.Contains(a["address"].(string), ":") {
				a["gateway"] = gateway
			}
			addresses = append(addresses, a)
		}
		maps.Copy(ipam, pick(r, conf{}, conf{"addresses": addresses}, conf{"addresses": addresses}))
		maps.Copy(ipam, pick(r, conf{}, conf{
			"routes": list{conf{"dst": "10.5.0.1/16", "gw": "10.1.0.9"}, conf{"dst": "::/0", "table": 7}},
		}, conf{"dns": conf{"domain": "a.example"}}))
		c := with(ipam).With(conf{"cniVersion": pick(r, "0.2.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")})
		maps.Copy(c, pick(r, conf{}, conf{}, conf{
			"runtimeConfig": conf{
				"ips": pick(r, list{"10.4.0.2/24"}, list{"fd04::2/64", "10.4.0.3/24"}, list{"x"}),
			},
		}))
		maps.Copy(c, pick(r, conf{}, conf{}, conf{"args": conf{"cni": conf{"ips": list{"10.6.0.2/24"}}}}))
		args := pick(r, "", "", "IP=10.1.0.8/24", "IP=10.1.0.8/24,fd08::8/64;GATEWAY=10.1.0.7",
			"GATEWAY=10.1.0.6", "X=y", "IgnoreUnknown=true;X=y")
		mine.Args, theirs.Args = args, args
		a, aerr := mine.Call("ADD", c)
		b, berr := theirs.Call("ADD", c)
		if (aerr == nil) != (berr == nil) || aerr == nil && sorted(t, a) != sorted(t, b) {
			t.Errorf("%d: %v %q:\nours      %s %v\nreference %s %v", seed, c, args, a, aerr, b, berr)
		}
		if aerr != nil {
			continue
		}
		good++
		version := c["cniVersion"].(string)
		if slices.Contains([]string{"0.4.0", "1.0.0", "1.1.0"}, version) {
			mine.Prev = a
			must(t, errors.Join(mine.Check(c), mine.Del(c)))
		}
	}
	if good < scripts/2 {
		t.Errorf("only %d of %d results were compared", good, scripts)
	}
}

// DEL needs none of the keys: nothing is kept.
func TestDelWithoutEachKey(t *testing.T) {
	n := plugintest.New(t, ours())
	c := conf{"type": "static", "ipam": conf{
		"type": "static", "addresses": []any{conf{"address": "10.1.0.2/24"}},
		"routes": []any{conf{"dst": "10.9.0.0/16"}}, "dns": conf{"domain": "x"},
	}}
	plugintest.WithoutEachKey[static.Conf](t, "ipam", []conf{c},
		func(t *testing.T, key string, with, without conf) {
			p := n.Pod("a")
			if _, err := p.Add(with); err != nil {
				t.Fatal(err)
			}
			p.Prev = nil
			if err := p.Del(without); err != nil {
				t.Errorf("without %s: %v", key, err)
			}
		})
}
