package portmap_test

import (
	"errors"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// M23, GHSA-jv3w-x3r3-g6rm: what goes through the node to the same port elsewhere is none of its
// business.
func TestM23OnlyTheNodesAddresses(t *testing.T) {
	for name, runner := range runners() {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t, runner)
			p := w.pod("a", 2)
			serve(t, p.Namespace, ":80", "pod")
			serve(t, w.other, ":8080", "other")
			add(t, p, chain(p, 2, conf{"backend": "nftables"}, twoPorts()...))
			for _, network := range both() {
				expect(t, w.client, network, "192.0.2.1:8080", "pod saw 192.0.2.2")
				expect(t, w.client, network, "198.51.100.2:8080", "other saw 192.0.2.2")
				expect(t, w.client, network, "[2001:db8:2::2]:8080", "other saw 2001:db8:1::2")
				expect(t, w.Host, network, "198.51.100.2:8080", "other saw 198.51.100.1")
				expect(t, w.Host, network, "[2001:db8:2::2]:8080", "other saw 2001:db8:2::1")
				expect(t, p.Namespace, network, "198.51.100.2:8080", "other saw 10.1.0.2")
			}
		})
	}
}

func TestHostIP(t *testing.T) {
	w := newWorld(t, ours())
	p := w.pod("a", 2)
	serve(t, p.Namespace, ":80", "pod")
	at := func(number int, ip string) conf { return port("tcp", number, 80).With(conf{"hostIP": ip}) }
	c := chain(p, 2, nil, at(8080, "192.0.2.9"), at(8081, "0.0.0.0"), at(8082, "::"),
		at(8083, "2001:db8:1::9"), at(8084, "::ffff:192.0.2.9"))
	add(t, p, c)
	for _, port := range []string{":8080", ":8081", ":8082", ":8083", ":8084"} {
		serve(t, w.Host, port, "node")
	}
	v4, v6 := "pod saw 192.0.2.2", "pod saw 2001:db8:1::2"
	not4, not6 := "node saw 192.0.2.2", "node saw 2001:db8:1::2"
	for _, want := range []struct {
		port                   string
		first, ninth           string // at 192.0.2.1 and .9
		firstOfIP6, ninthOfIP6 string // at 2001:db8:1::1 and ::9
	}{
		{"8080", not4, v4, not6, not6},
		{"8081", v4, v4, not6, not6},
		{"8082", not4, not4, v6, v6},
		{"8083", not4, not4, not6, v6},
		{"8084", not4, v4, not6, not6},
	} {
		expect(t, w.client, "tcp", "192.0.2.1:"+want.port, want.first)
		expect(t, w.client, "tcp", "192.0.2.9:"+want.port, want.ninth)
		expect(t, w.client, "tcp", "[2001:db8:1::1]:"+want.port, want.firstOfIP6)
		expect(t, w.client, "tcp", "[2001:db8:1::9]:"+want.port, want.ninthOfIP6)
	}
	if err := errors.Join(p.Check(c), p.Del(c)); err != nil {
		t.Error(err)
	}
}

// Answers to a pod's neighbour would go to it directly, not by the node: so the pod must see the
// node.
func TestHairpin(t *testing.T) {
	w := newWorld(t, ours())
	p, neighbour := w.pod("a", 2), w.pod("b", 3)
	serve(t, p.Namespace, ":80", "pod")
	add(t, p, chain(p, 2, nil, twoPorts()...))
	for _, network := range both() {
		expect(t, p.Namespace, network, "192.0.2.1:8080", "pod saw 10.1.0.1")
		expect(t, p.Namespace, network, "[2001:db8:1::1]:8080", "pod saw fd00:1::1")
		expect(t, neighbour.Namespace, network, "192.0.2.1:8080", "pod saw 10.1.0.1")
		expect(t, neighbour.Namespace, network, "10.1.0.1:8080", "pod saw 10.1.0.1")
		expect(t, neighbour.Namespace, network, "[2001:db8:1::1]:8080", "pod saw fd00:1::1")
		// Not by the mapping.
		expect(t, neighbour.Namespace, network, "10.1.0.2:80", "pod saw 10.1.0.3")
	}
}

func TestMasqAll(t *testing.T) {
	w := newWorld(t, ours())
	p := w.pod("a", 2)
	serve(t, p.Namespace, ":80", "pod")
	c := chain(p, 2, conf{"masqAll": true}, twoPorts()...)
	add(t, p, c)
	for _, network := range both() {
		expect(t, w.client, network, "192.0.2.1:8080", "pod saw 10.1.0.1")
		expect(t, w.client, network, "[2001:db8:1::1]:8080", "pod saw fd00:1::1")
		expect(t, w.Host, network, "127.0.0.1:8080", "pod saw 10.1.0.1")
		// Not by the mapping.
		expect(t, w.client, network, "10.1.0.2:80", "pod saw 192.0.2.2")
	}
	if err := p.Check(c); err != nil {
		t.Error(err)
	}
}

func TestWithoutSNAT(t *testing.T) {
	w := newWorld(t, ours())
	p := w.pod("a", 2)
	serve(t, p.Namespace, ":80", "pod")
	c := chain(p, 2, conf{"snat": false, "masqAll": true}, twoPorts()...)
	add(t, p, c)
	expect(t, w.client, "tcp", "192.0.2.1:8080", "pod saw 192.0.2.2")
	if got := rules(t, w.Host); strings.Contains(got, "masquerade ") {
		t.Errorf("rules:\n%s", got)
	}
	if got := get(t, w.Host, "net/ipv4/conf/br0/route_localnet"); got != "0" {
		t.Errorf("route_localnet is %s", got)
	}
	if err := p.Check(c); err != nil {
		t.Error(err)
	}
}

// Conditions of both languages, each true for one of the client's two addresses.
func TestConditions(t *testing.T) {
	w := newWorld(t, ours())
	p := w.pod("a", 2)
	serve(t, p.Namespace, ":80", "pod")
	for _, words := range []list{
		{"ip", "saddr", "192.0.2.3"},
		{"ip saddr != 192.0.2.2"},
		{"-s", "192.0.2.3/32"},
		{"!", "-s", "192.0.2.2"},
		{"-s", "192.0.2.0/24", "!", "-s", "192.0.2.2", "-i", "nic0", "-d", "192.0.2.1"},
		{"-s", "192.0.2.0/24", "!", "-s", "192.0.2.0/31", "!", "-s", "192.0.2.2/32"},
		{"iifname", "nic0", "ip", "daddr", "192.0.2.0/24", "ip", "saddr", "==", "192.0.2.3"},
		{"ip", "saddr", "192.0.2.3", "!", "--in-interface", "nic1", "!", "--destination", "192.0.2.9"},
		{"meta", "iifname", "!=", "\"nic1\"", "ip", "saddr", "192.0.2.3"},
	} {
		c := chain(p, 2, conf{"conditionsV4": words}, port("tcp", 8080, 80))
		add(t, p, c)
		stop := serve(t, w.Host, ":8080", "node")
		for address, who := range map[string]string{"192.0.2.3": "pod", "192.0.2.2": "node"} {
			want := who + " saw " + address
			if got := ask(t, w.client, "tcp", "192.0.2.1:8080", from(address+":0")); got != want {
				t.Errorf("%v: from %s: %q, want %q", words, address, got, want)
			}
		}
		expect(t, w.client, "tcp", "[2001:db8:1::1]:8080", "pod saw 2001:db8:1::2")
		stop()
		if err := errors.Join(p.Check(c), p.Del(c)); err != nil {
			t.Error(err)
		}
	}
}

// Packets of one UDP socket, which are one connection for the kernel, follow the rules as they come
// and go. It is so for the kernel because another pod's rules make it track connections all the
// time.
func TestUDPFollowsTheRules(t *testing.T) {
	w := newWorld(t, ours())
	p, other := w.pod("a", 2), w.pod("b", 3)
	add(t, other, chain(other, 3, nil, port("tcp", 9090, 80)))
	serve(t, p.Namespace, ":80", "pod")
	c := chain(p, 2, nil, port("udp", 8080, 80))
	v4, v6 := dial(t, w.client, "udp", "192.0.2.1:8080"), dial(t, w.client, "udp",
		"[2001:db8:1::1]:8080")
	defer v4.Close()
	defer v6.Close()
	see := func(name string) {
		t.Helper()
		for c, want := range map[net.Conn]string{
			v4: name + " saw 192.0.2.2", v6: name + " saw 2001:db8:1::2",
		} {
			if got, err := question(c); got != want {
				t.Errorf("%q, %v, want %q", got, err, want)
			}
		}
	}
	seeNode := func() {
		t.Helper()
		stop4, stop6 := serve(t, w.Host, "192.0.2.1:8080", "node"), serve(t, w.Host,
			"[2001:db8:1::1]:8080", "node")
		see("node")
		stop4()
		stop6()
	}
	seeNode()
	for name, release := range map[string]func() error{
		"DEL": func() error { return p.Del(c) },
		// R14: without mappings, and without prevResult.
		"DEL without mappings": func() error {
			_, err := p.Call("DEL", conf{"type": "portmap"})
			return err
		},
		"ADD without mappings": func() error {
			_, err := p.Add(c.With(conf{"runtimeConfig": conf{}}))
			return err
		},
		"ADD of other mappings": func() error {
			_, err := p.Add(chain(p, 2, nil, port("udp", 9090, 80)))
			return err
		},
	} {
		add(t, p, c)
		see("pod")
		if err := release(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		seeNode()
	}
}

// ::1 cannot be routed to a pod: the node's own server has it.
func TestLoopback6IsTheNodes(t *testing.T) {
	w := newWorld(t, ours())
	p := w.pod("a", 2)
	serve(t, p.Namespace, ":80", "pod")
	serve(t, w.Host, "[::1]:8080", "node")
	add(t, p, chain(p, 2, nil, twoPorts()...))
	for _, network := range both() {
		expect(t, w.Host, network, "[::1]:8080", "node saw ::1")
	}
}

// route_localnet, which the mappings need, opens the node's loopback addresses to its neighbours
// (as CVE-2020-8558): the table closes them.
func TestLoopbackStaysClosed(t *testing.T) {
	w := newWorld(t, ours())
	p := w.pod("a", 2)
	set(t, w.Host, "net/ipv4/conf/nic0/route_localnet", "1")
	local, public := packets(t, w, "127.0.0.1:5300"), packets(t, w, "192.0.2.1:5301")
	send := func(to string) {
		t.Helper()
		// A packet to a loopback address leaves if its interface is given.
		d := net.Dialer{
			LocalAddr: &net.UDPAddr{IP: net.IP{192, 0, 2, 2}},
			Control: func(_, _ string, raw syscall.RawConn) (err error) {
				cerr := raw.Control(func(fd uintptr) { err = unix.BindToDevice(int(fd), "eth0") })
				return errors.Join(cerr, err)
			},
		}
		err := w.client.Run(func() error {
			c, err := d.DialContext(t.Context(), "udp", to)
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Write([]byte("?"))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	arrives := func(c net.PacketConn, within time.Duration) bool {
		t.Helper()
		_ = c.SetReadDeadline(time.Now().Add(within))
		_, _, err := c.ReadFrom(make([]byte, 10))
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		return err == nil
	}
	send("127.0.0.1:5300")
	if !arrives(local, within) {
		t.Fatal("the client cannot reach the node's loopback address without the table, so that the " +
			"test shows nothing")
	}
	add(t, p, chain(p, 2, nil, twoPorts()...))
	send("127.0.0.1:5300")
	send("192.0.2.1:5301")
	// It was sent after the other.
	if !arrives(public, within) {
		t.Fatal("nothing arrives")
	}
	if arrives(local, time.Millisecond) {
		t.Error("the client reaches the node's loopback address")
	}
}

func packets(t *testing.T, w *world, address string) (c net.PacketConn) {
	t.Helper()
	err := w.Host.Run(func() (err error) {
		c, err = (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", address)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// The kernels that tests run on have no SCTP.
func TestSCTP(t *testing.T) {
	w := newWorld(t, ours())
	p := w.pod("a", 2)
	c := chain(p, 2, nil, port("SCTP", 8080, 80))
	add(t, p, c)
	for _, want := range []string{
		"meta nfproto ipv4 sctp dport 8080 dnat ip to 10.1.0.2:80",
		"ip daddr 10.1.0.2 sctp dport 80 ct original proto-dst 8080 masquerade",
	} {
		if got := rules(t, w.Host); !strings.Contains(got, want) {
			t.Errorf("lacks %q:\n%s", want, got)
		}
	}
	if err := p.Check(c); err != nil {
		t.Error(err)
	}
}
