package nft_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/netns"
	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/pkg/nft"
)

func open(t testing.TB, n *nettest.Namespace) *nft.Conn {
	t.Helper()
	ns, err := netns.Open(n.Path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(ns.Close)
	c, err := nft.Open(ns)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// command runs nft in a namespace.
func command(t testing.TB, n *nettest.Namespace, args ...string) string {
	t.Helper()
	var out []byte
	err := n.Run(func() (err error) {
		out, err = exec.CommandContext(t.Context(), "nft", args...).CombinedOutput()
		return err
	})
	if err != nil {
		t.Fatalf("nft %v: %v, %s", args, err, out)
	}
	return string(out)
}

func ruleset(t testing.TB, n *nettest.Namespace) string { return command(t, n, "list", "ruleset") }

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func prefix(s string) netip.Prefix { return netip.MustParsePrefix(s) }

func natTable() *nft.Table {
	return &nft.Table{Family: nft.INet, Name: "braid_test", Chains: []nft.Chain{
		{Name: "ports"},
		{Name: "sources"},
		{
			Name: "prerouting", Hook: nft.PreroutingNAT(),
			Rules: []nft.Expr{nft.Join(nft.ToThisNode(), nft.Jump("ports"))},
		},
		{Name: "output", Hook: nft.OutputNAT(), Rules: []nft.Expr{nft.Jump("ports"), nft.Return()}},
		{Name: "postrouting", Hook: nft.PostroutingNAT(), Rules: []nft.Expr{nft.Jump("sources")}},
	}}
}

func bridgeTable() *nft.Table {
	return &nft.Table{Family: nft.Bridge, Name: "braid_test", Chains: []nft.Chain{
		{Name: "prerouting", Hook: nft.BridgePrerouting(-300)},
	}}
}

func tag(network, id, ifname string) attachment.ID {
	return attachment.ID{Network: network, ContainerID: id, IfName: ifname}
}

const (
	tcp = unix.IPPROTO_TCP
	udp = unix.IPPROTO_UDP
)

func to(s string) nft.Expr { return nft.TranslateTo(netip.MustParseAddrPort(s)) }

// toPort is a simple rule that is told by a number.
func toPort(number uint16) nft.Rule {
	return nft.NewRule("ports", nft.Protocol(tcp), nft.Port(number), to("10.0.0.1:80"))
}

// example is a rule and what nft says to it.
type example struct {
	rule nft.Rule
	says string
}

// every has each expression.
func every() []example {
	return []example{
		{
			nft.NewRule("ports", nft.IP(netip.MustParseAddr("10.0.0.1")), nft.Protocol(tcp), nft.Port(80),
				to("10.0.0.1:8080")),
			"meta nfproto ipv4 tcp dport 80 dnat ip to 10.0.0.1:8080",
		},
		{
			nft.NewRule("ports", nft.IP(netip.MustParseAddr("fd00::1")), nft.Protocol(udp), nft.Port(53),
				to("[fd00::1]:5353")),
			"meta nfproto ipv6 udp dport 53 dnat ip6 to [fd00::1]:5353",
		},
		{
			nft.NewRule("ports", nft.Destination(nft.Is, prefix("192.0.2.1/32")),
				nft.Protocol(unix.IPPROTO_SCTP), nft.Port(80), to("10.0.0.1:80")),
			"ip daddr 192.0.2.1 sctp dport 80 dnat ip to 10.0.0.1:80",
		},
		{
			nft.NewRule("ports", nft.Source(nft.IsNot, prefix("10.0.0.5/23")), nft.Drop()),
			"ip saddr != 10.0.0.0/23 drop",
		},
		{
			nft.NewRule("ports", nft.Source(nft.Is, prefix("fd00::/7")), nft.Return()),
			"ip6 saddr fc00::/7 return",
		},
		{
			nft.NewRule("ports", nft.Source(nft.Is, prefix("0.0.0.0/0")), nft.Return()),
			"ip saddr 0.0.0.0/0 return",
		},
		{
			nft.NewRule("ports", nft.Destination(nft.IsNot, prefix("2001:db8::1/128")), nft.Return()),
			"ip6 daddr != 2001:db8::1 return",
		},
		{nft.NewRule("ports", nft.InputInterface(nft.Is, "eth0.5"), nft.Drop()), `iifname "eth0.5" drop`},
		{
			nft.NewRule("ports", nft.InputInterface(nft.IsNot, "fifteen-letters"), nft.Drop()),
			`iifname != "fifteen-letters" drop`,
		},
		{
			nft.NewRule("sources", nft.DestinationTranslated(), nft.Masquerade()),
			"ct status dnat masquerade",
		},
		{
			nft.NewRule("sources", nft.Protocol(tcp), nft.OriginalPort(80), nft.Masquerade()),
			"meta l4proto tcp ct original proto-dst 80 masquerade",
		},
	}
}

var comment = regexp.MustCompile(` comment "[^"]*"`)

func TestNftReadsIt(t *testing.T) {
	n := nettest.New(t)
	c := open(t, n)
	a := tag("net", "cid", "net1")
	var all []nft.Rule
	for _, e := range every() {
		all = append(all, e.rule)
	}
	must(t, c.Set(t.Context(), natTable(), a, all...))
	spoof := nft.NewRule("prerouting", nft.InputInterface(nft.Is, "veth0"),
		nft.SourceMAC(nft.IsNot, []byte{2, 0, 0, 0, 0, 1}), nft.Drop())
	must(t, c.Set(t.Context(), bridgeTable(), a, spoof))
	got := comment.ReplaceAllString(ruleset(t, n), "")
	for _, e := range every() {
		if !strings.Contains(got, "\t"+e.says+"\n") {
			t.Errorf("nft does not say %q", e.says)
		}
	}
	for _, want := range []string{
		"table inet braid_test {",
		"type nat hook prerouting priority dstnat; policy accept;\n\t\tfib daddr type local jump ports\n",
		"type nat hook output priority -100; policy accept;\n\t\tjump ports\n\t\treturn\n",
		"type nat hook postrouting priority srcnat; policy accept;\n\t\tjump sources\n",
		"table bridge braid_test {",
		"type filter hook prerouting priority dstnat; policy accept;\n\t\tiifname \"veth0\" ether " +
			"saddr != 02:00:00:00:00:01 drop\n",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("nft does not say %q", want)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
	must(t, errors.Join(c.Check(t.Context(), natTable(), a, all...),
		c.Check(t.Context(), bridgeTable(), a, spoof)))
	nettest.NoThreadIn(t, n)
}

// Each rule is told from each other one.
func TestCheckTellsRulesApart(t *testing.T) {
	c := open(t, nettest.New(t))
	a := tag("net", "cid", "net1")
	for i, have := range every() {
		must(t, c.Set(t.Context(), natTable(), a, have.rule))
		for j, want := range every() {
			if err := c.Check(t.Context(), natTable(), a, want.rule); (err == nil) != (i == j) {
				t.Errorf("%s checked for %s: %v", have.says, want.says, err)
			}
		}
	}
	must(t, c.Set(t.Context(), natTable(), a, toPort(1), toPort(2)))
	for name, rules := range map[string][]nft.Rule{
		"one less": {toPort(1)}, "one more": {toPort(1), toPort(2), toPort(3)},
		"order": {toPort(2), toPort(1)}, "none": nil,
		"longer":  {nft.NewRule("ports", toPort(1).Expr, nft.Drop()), toPort(2)},
		"shorter": {nft.NewRule("ports", toPort(1).Expr[:2]), toPort(2)},
	} {
		if err := c.Check(t.Context(), natTable(), a, rules...); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	err := c.Check(t.Context(), natTable(), tag("net", "cid", "net2"), toPort(1), toPort(2))
	if err == nil {
		t.Error("rules of another attachment are taken for this one's")
	}
}

func TestSetDeleteKeep(t *testing.T) {
	n := nettest.New(t)
	c := open(t, n)
	table := natTable()
	a1, a2 := tag("net", "a", "net1"), tag("net", "a", "net2")
	b, other := tag("net", "b", "net1"), tag("other", "a", "net1")
	has := func(numbers ...uint16) {
		t.Helper()
		got := ""
		for _, m := range regexp.MustCompile(`dport (\d+)`).FindAllStringSubmatch(ruleset(t, n), -1) {
			got += m[1] + " "
		}
		if want := strings.Trim(fmt.Sprint(numbers), "[]"); strings.TrimSpace(got) != want {
			t.Errorf("rules of ports %s, want %s", got, want)
		}
	}
	must(t, c.Set(t.Context(), table, a1, toPort(1), toPort(2)))
	must(t, c.Set(t.Context(), table, a2, toPort(3)))
	must(t, c.Set(t.Context(), table, b, toPort(4)))
	must(t, c.Set(t.Context(), table, other, toPort(5)))
	has(1, 2, 3, 4, 5)
	must(t, c.Set(t.Context(), table, a1, toPort(6)))
	must(t, c.Set(t.Context(), table, a1, toPort(6)))
	has(3, 4, 5, 6)
	must(t, c.Keep(t.Context(), table, "net", []attachment.ID{a1, a2, b}))
	has(3, 4, 5, 6)
	for range 2 {
		must(t, c.Keep(t.Context(), table, "net", []attachment.ID{a2, b, tag("net", "c", "net1")}))
		has(3, 4, 5)
	}
	for range 2 {
		must(t, c.Delete(t.Context(), table, a2))
		has(4, 5)
	}
	must(t, c.Set(t.Context(), table, b))
	has(5)
	must(t, c.Check(t.Context(), table, other, toPort(5)))
	must(t, c.Keep(t.Context(), table, "other", nil))
	if got := ruleset(t, n); got != "" {
		t.Errorf("left:\n%s", got)
	}
	must(t, errors.Join(c.Delete(t.Context(), table, b), c.Keep(t.Context(), table, "net", nil)))
}

// What somebody has added to the table, or taken from it, does not keep rules from being removed.
func TestTableThatIsNotAsItWasMade(t *testing.T) {
	a := tag("net", "a", "net1")
	for name, c := range map[string]struct {
		change []string
		left   string
	}{
		"further chain": {[]string{"add", "chain", "inet", "braid_test", "mine"}, "chain mine"},
		"further rule": {[]string{
			"add", "rule", "inet", "braid_test", "ports", "tcp", "dport", "9", "drop",
		}, "tcp dport 9 drop"},
		"chain gone": {[]string{"delete chain inet braid_test output"}, "chain postrouting"},
	} {
		t.Run(name, func(t *testing.T) {
			n := nettest.New(t)
			conn := open(t, n)
			must(t, conn.Set(t.Context(), natTable(), a, toPort(1)))
			if name == "chain gone" {
				command(t, n, "flush chain inet braid_test output")
			}
			command(t, n, c.change...)
			err := conn.Check(t.Context(), natTable(), a, toPort(1))
			if (err == nil) != (name == "further chain") {
				t.Errorf("CHECK: %v", err)
			}
			must(t, conn.Delete(t.Context(), natTable(), a))
			if got := ruleset(t, n); strings.Contains(got, "dport 1 ") || !strings.Contains(got, c.left) {
				t.Errorf("left:\n%s", got)
			}
			must(t, conn.Set(t.Context(), natTable(), a, toPort(1)))
		})
	}
}

// A refused rule leaves everything as it was, and the error says which it was. Another attachment's
// Set leaves fixed rules alone that are right, makes those anew that are not, and takes no rules
// away that are not its own.
func TestFixedRules(t *testing.T) {
	n := nettest.New(t)
	conn := open(t, n)
	a, b := tag("net", "a", "net1"), tag("net", "b", "net1")
	list := func() string { return command(t, n, "-a", "list", "table", "inet", "braid_test") }
	set := func(of attachment.ID, port uint16) {
		must(t, conn.Set(t.Context(), natTable(), of, toPort(port)))
	}
	set(a, 1)
	handle := regexp.MustCompile(`jump (ports|sources).* handle \d+`)
	before := handle.FindAllString(list(), -1)
	set(b, 2)
	if after := handle.FindAllString(list(), -1); len(before) != 3 || !slices.Equal(before, after) {
		t.Errorf("%q, were %q", after, before)
	}
	for _, change := range []string{
		"flush chain inet braid_test output", "insert rule inet braid_test output drop",
		"add rule inet braid_test output drop",
		"flush chain inet braid_test output; add rule inet braid_test output return; add rule inet " +
			"braid_test output jump ports",
	} {
		command(t, n, change)
		if conn.Check(t.Context(), natTable(), b, toPort(2)) == nil {
			t.Errorf("%s: CHECK finds nothing", change)
		}
		set(a, 1)
		must(t, conn.Check(t.Context(), natTable(), b, toPort(2)))
	}
	command(t, n, "add rule inet braid_test ports tcp dport 9 drop")
	set(a, 1)
	got := list()
	if !strings.Contains(got, "tcp dport 9 drop") || !strings.Contains(got, "dport 2 ") {
		t.Errorf("taken away:\n%s", got)
	}
}

func TestAllOrNothing(t *testing.T) {
	n := nettest.New(t)
	c := open(t, n)
	a := tag("net", "a", "net1")
	wrong := nft.NewRule("ports", nft.Masquerade()) // not where packets arrive
	check := func() {
		t.Helper()
		before := ruleset(t, n)
		err := c.Set(t.Context(), natTable(), a, toPort(1), wrong, toPort(2))
		if !errors.Is(err, unix.EOPNOTSUPP) || !strings.Contains(err.Error(), "add rule to chain ports") {
			t.Errorf("error %v", err)
		}
		if got := ruleset(t, n); got != before {
			t.Errorf("rules:\n%s\nwant:\n%s", got, before)
		}
	}
	check()
	must(t, c.Set(t.Context(), natTable(), a, toPort(3)))
	check()
	// The connection goes on.
	must(t, c.Check(t.Context(), natTable(), a, toPort(3)))
	err := c.Set(t.Context(), natTable(), a, nft.NewRule("nowhere", nft.Drop()))
	if !errors.Is(err, unix.ENOENT) {
		t.Errorf("a chain that is not there: %v", err)
	}
}

// Attachments come and go, in a table that is made and removed all the time.
func TestParallel(t *testing.T) {
	n := nettest.New(t)
	var wg sync.WaitGroup
	for i := range uint16(12) {
		c, a := open(t, n), tag("net", fmt.Sprint(i), "net1")
		rules := []nft.Rule{
			toPort(100*i + 1), toPort(100*i + 2),
			nft.NewRule("sources", nft.Protocol(tcp), nft.OriginalPort(i), nft.Masquerade()),
		}
		wg.Go(func() {
			for range 15 {
				err := errors.Join(
					c.Set(t.Context(), natTable(), a, rules...), c.Check(t.Context(), natTable(), a, rules...),
					c.Set(t.Context(), natTable(), a, rules[1:]...),
					c.Check(t.Context(), natTable(), a, rules[1:]...),
					c.Delete(t.Context(), natTable(), a))
				if err != nil {
					t.Errorf("%d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	if got := ruleset(t, n); got != "" {
		t.Errorf("left:\n%s", got)
	}
}

func TestTags(t *testing.T) {
	n := nettest.New(t)
	c := open(t, n)
	long := strings.Repeat("n", 250)
	tags := []attachment.ID{
		tag("net", "a", "net1"), tag("net", "an", "et1"), tag("neta", "n", "et1"), tag("", "", ""),
		tag(long, strings.Repeat("c", 64), "fifteen-letters"),
		tag(long, strings.Repeat("c", 63)+"d", "fifteen-letters"), tag("q\"'\\; }", "é\n", "%s"),
	}
	for i, a := range tags {
		must(t, c.Set(t.Context(), natTable(), a, toPort(uint16(i+1))))
	}
	for _, m := range comment.FindAllString(ruleset(t, n), -1) {
		if len(m) > len(` comment ""`)+127 {
			t.Errorf("%d bytes are too long for nft: %s", len(m), m)
		}
	}
	for i, a := range tags {
		must(t, c.Check(t.Context(), natTable(), a, toPort(uint16(i+1))))
		must(t, c.Delete(t.Context(), natTable(), a))
	}
	if got := ruleset(t, n); got != "" {
		t.Errorf("left:\n%s", got)
	}
}

func TestClosedLeavesNothingOpen(t *testing.T) {
	n := nettest.New(t)
	ns, err := netns.Open(n.Path)
	must(t, err)
	defer ns.Close()
	count := func() int {
		list, err := os.ReadDir("/proc/self/fd")
		must(t, err)
		return len(list)
	}
	before := count()
	for range 20 {
		c, err := nft.Open(ns)
		must(t, err)
		must(t, c.Delete(t.Context(), natTable(), tag("", "", "")))
		c.Close()
		c.Close()
		if err := c.Delete(t.Context(), natTable(), tag("", "", "")); err == nil {
			t.Error("a closed connection works")
		}
	}
	if after := count(); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}

// In the user-mode kernel nf_tables is a module, which is taken away here.
func TestKernelWithoutNftables(t *testing.T) {
	if os.Getenv(nettest.UML) != "1" {
		t.Skip("needs kernel: nf_tables-module")
	}
	must(t, os.WriteFile("/proc/sys/kernel/modprobe", []byte("/bin/false"), 0))
	must(t, unix.DeleteModule("nf_tables", 0))
	n := nettest.New(t)
	c := open(t, n)
	a := tag("net", "a", "net1")
	for what, err := range map[string]error{
		"Set":   c.Set(t.Context(), natTable(), a, toPort(1)),
		"Check": c.Check(t.Context(), natTable(), a, toPort(1)),
	} {
		if !errors.Is(err, nft.ErrUnsupported) {
			t.Errorf("%s: %v", what, err)
		}
	}
	must(t, errors.Join(c.Delete(t.Context(), natTable(), a),
		c.Keep(t.Context(), natTable(), "net", nil)))
}

// BenchmarkSetDelete is an attachment with two rules that comes and goes, beside others.
func BenchmarkSetDelete(b *testing.B) {
	for _, others := range []int{1, 10, 100, 1000} {
		b.Run(fmt.Sprint("others=", others), func(b *testing.B) {
			c := open(b, nettest.New(b))
			for i := range others {
				must(b, c.Set(b.Context(), natTable(), tag("net", fmt.Sprint(i), "net1"), toPort(1), toPort(2)))
			}
			a := tag("net", "cid", "net1")
			for b.Loop() {
				must(b, c.Set(b.Context(), natTable(), a, toPort(80), toPort(81)))
				must(b, c.Delete(b.Context(), natTable(), a))
			}
		})
	}
}
