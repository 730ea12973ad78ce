package portmap_test

import (
	"net"
	"strings"
	"testing"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/plugin/plugintest"
)

// limited is a world whose attachments are a tenant's.
func limited(t *testing.T) *world {
	t.Helper()
	w := newWorld(t, ours())
	w.Limits = &attachment.Limits{Namespace: "team"}
	return w
}

// refuses is an ADD that has to fail for that reason, with a text that has all the words, and to
// leave the node as it is.
func (w *world) refuses(p *plugintest.Pod, c conf, reason failure.Reason, words ...string) {
	w.t.Helper()
	before := w.state()
	_, err := p.Add(c)
	if err == nil || failure.ReasonOf(err) != reason {
		w.t.Errorf("%v: reason %q, want %q", err, failure.ReasonOf(err), reason)
	}
	for _, word := range words {
		if err != nil && !strings.Contains(err.Error(), word) {
			w.t.Errorf("the error does not say %q: %v", word, err)
		}
	}
	w.is(before)
}

// A tenant's ports are none of loopback addresses, whoever listens there or will.
func TestM29NoLoopback(t *testing.T) {
	w := limited(t)
	p := w.pod("a", 2)
	for _, address := range []string{"127.0.0.1", "127.0.0.53", "::1", "::ffff:127.0.0.1"} {
		for _, protocol := range []string{"tcp", "udp", "sctp"} {
			w.refuses(p, chain(p, 2, nil,
				conf{"hostPort": 8080, "containerPort": 80, "protocol": protocol, "hostIP": address}),
				failure.NodeProtected, "hostIP", "8080", "node's own")
		}
	}
	serve(t, p.Namespace, ":80", "pod")
	for _, hostIP := range []string{"", "0.0.0.0"} {
		c := chain(p, 2, nil, conf{
			"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": hostIP,
		})
		add(t, p, c)
		if err := p.Check(c); err != nil {
			t.Error(err)
		}
		// What comes later is the node's all the same.
		stop := serve(t, w.Host, "127.0.0.1:8080", "node")
		expect(t, w.client, "tcp", "192.0.2.1:8080", "pod saw 192.0.2.2")
		expect(t, w.Host, "tcp", "192.0.2.1:8080", "pod saw 192.0.2.1")
		expect(t, w.Host, "tcp", "127.0.0.1:8080", "node saw 127.0.0.1")
		if got := get(t, w.Host, "net/ipv4/conf/br0/route_localnet"); got != "0" {
			t.Errorf("route_localnet is %s", got)
		}
		stop()
		if err := p.Del(c); err != nil {
			t.Fatal(err)
		}
	}
	// An operator's rule may allow it.
	w.Limits.LoopbackPorts = true
	add(t, p, chain(p, 2, nil, port("tcp", 8080, 80)))
	expect(t, w.Host, "tcp", "127.0.0.1:8080", "pod saw 10.1.0.1")
}

// No port that somebody listens on: of whatever protocol, family and address.
func TestM29NoPortThatIsListenedOn(t *testing.T) {
	w := limited(t)
	p := w.pod("a", 2)
	listen := func(network, address string) (stop func()) {
		err := w.Host.Run(func() error {
			if strings.HasPrefix(network, "udp") {
				c, err := (&net.ListenConfig{}).ListenPacket(t.Context(), network, address)
				if err == nil {
					stop = func() { c.Close() } //nolint:errcheck // the test is over
				}
				return err
			}
			l, err := (&net.ListenConfig{}).Listen(t.Context(), network, address)
			if err == nil {
				stop = func() { l.Close() } //nolint:errcheck // the test is over
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return stop
	}
	for name, c := range map[string]struct{ network, address, protocol, hostIP string }{
		"wildcard":                {"tcp4", "0.0.0.0:10250", "tcp", ""},
		"both families":           {"tcp", "[::]:10250", "tcp", ""},
		"both families for IPv4":  {"tcp", "[::]:10250", "tcp", "192.0.2.1"},
		"IPv6 alone":              {"tcp6", "[2001:db8:1::1]:10250", "tcp", "::"},
		"one address":             {"tcp4", "192.0.2.9:10250", "tcp", ""},
		"loopback":                {"tcp4", "127.0.0.1:10250", "tcp", ""},
		"loopback, all asked for": {"tcp4", "127.0.0.1:10250", "tcp", "0.0.0.0"},
		"UDP":                     {"udp4", "0.0.0.0:10250", "udp", ""},
		"UDP of both families":    {"udp", "[::]:10250", "udp", "192.0.2.1"},
		"written as IPv6":         {"tcp4", "192.0.2.1:10250", "tcp", "::ffff:192.0.2.1"},
	} {
		t.Run(name, func(t *testing.T) {
			stop := listen(c.network, c.address)
			defer stop()
			w.refuses(p, chain(p, 2, nil,
				conf{"hostPort": 10250, "containerPort": 80, "protocol": c.protocol, "hostIP": c.hostIP}),
				"", "10250", "a process of the node that listens on")
		})
	}
	// What is not the port's is not in its way.
	defer listen("udp4", "0.0.0.0:10250")()
	defer listen("tcp4", "192.0.2.9:10250")()
	add(t, p, chain(p, 2, nil,
		conf{"hostPort": 10250, "containerPort": 80, "protocol": "tcp", "hostIP": "192.0.2.1"}))
}

// Whoever has a port keeps it: a tenant, and the operator whose mapping covers loopback addresses.
func TestM29NoPortOfAnother(t *testing.T) {
	w := limited(t)
	mine, p, q := w.Limits, w.pod("first", 2), w.pod("second", 3)
	for name, c := range map[string]struct {
		first, second   *attachment.Limits
		firstIP, hostIP string
		free            bool
	}{
		"tenants":            {mine, &attachment.Limits{Namespace: "rival"}, "", "", false},
		"operator first":     {nil, mine, "", "", false},
		"tenant first":       {mine, nil, "", "", false},
		"one address of all": {nil, mine, "", "192.0.2.1", false},
		"all of one address": {
			mine, &attachment.Limits{Namespace: "rival"}, "192.0.2.1",
			"0.0.0.0", false,
		},
		"two addresses": {
			mine, &attachment.Limits{Namespace: "rival"}, "192.0.2.1",
			"192.0.2.9", true,
		},
		"operator's loopback afterwards": {mine, nil, "0.0.0.0", "127.0.0.1", true},
		"operator's loopback before":     {nil, mine, "127.0.0.1", "192.0.2.1", true},
	} {
		t.Run(name, func(t *testing.T) {
			mapping := func(ip string) conf {
				return conf{"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": ip}
			}
			w.Limits = c.first
			first := chain(p, 2, nil, mapping(c.firstIP))
			add(t, p, first)
			w.Limits = c.second
			second := chain(q, 3, nil, mapping(c.hostIP))
			_, err := q.Add(second)
			if (err == nil) != c.free || err != nil && !strings.Contains(err.Error(), `net1 first"`) {
				t.Errorf("%v", err)
			}
			if err := q.Del(second); err != nil {
				t.Error(err)
			}
			w.Limits = c.first
			for _, err := range []error{p.Check(first), p.Del(first)} {
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
}

// An operator's rule has ranges.
func TestM29Range(t *testing.T) {
	w := limited(t)
	w.Limits.HostPorts = []attachment.Ports{{First: 1024, Last: 2000}, {First: 8080, Last: 8080}}
	p := w.pod("a", 2)
	for _, number := range []int{22, 1023, 2001, 8079, 8081} {
		w.refuses(p, chain(p, 2, nil, port("tcp", number, 80)), failure.PolicyRefused, "hostPort", "team")
	}
	add(t, p, chain(p, 2, nil, port("tcp", 1024, 80), port("udp", 2000, 80), port("tcp", 8080, 80)))
}
