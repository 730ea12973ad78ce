package main

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// TestM32ArgsAreRequests: what a pod asks for by cni-args is held to what the keys of the
// annotation are held to, in any spelling: it gets what it asks for or does not start.
func TestM32ArgsAreRequests(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		config, asks, field string
		code                uint
	}{
		"no IPAM": {
			`{"type":"macvlan","master":"nic0"}`,
			`"cni-args":{"ips":["10.32.0.9/24"]}`, "cni-args.ips", 7,
		},
		"no IPAM, spelt": {
			`{"type":"macvlan","master":"nic0"}`,
			`"cni-args":{"IPs":["10.32.0.9/24"]}`, "cni-args.ips", 7,
		},
		"other address":    {`{"type":"ignorant"}`, `"cni-args":{"ips":["10.9.0.10/24"]}`, "ips", 7},
		"other MAC":        {`{"type":"ignorant"}`, `"cni-args":{"mac":"02:00:00:00:00:01"}`, "mac", 7},
		"other MAC, spelt": {`{"type":"ignorant"}`, `"cni-args":{"Mac":"02:00:00:00:00:01"}`, "mac", 7},
		"no address": {
			`{"type":"ignorant"}`, `"cni-args":{"ips":["10.9.0.9/24","x"]}`,
			"cni-args.ips[1]", 7,
		},
		"zone": {
			`{"type":"ignorant"}`, `"cni-args":{"ips":["fe80::1%eth0"]}`,
			"cni-args.ips[0]", 7,
		},
		"IPv4 as IPv6": {
			`{"type":"ignorant"}`, `"cni-args":{"ips":["::ffff:10.9.0.9/120"]}`,
			"cni-args.ips[0]", 7,
		},
		"two wishes": {
			`{"type":"ignorant"}`,
			`"ips":["10.9.0.9/24"],"cni-args":{"ips":["10.9.0.8/24"]}`, "cni-args.ips", 7,
		},
		"two MACs": {
			`{"type":"ignorant"}`,
			`"mac":"02:00:00:00:00:01","cni-args":{"mac":"02:00:00:00:00:02"}`, "cni-args.mac", 7,
		},
		"claim and address": {
			`{"type":"ignorant"}`,
			`"ipam-claim-reference":"c","cni-args":{"ips":["10.9.0.9/24"]}`, "ipam-claim-reference", 7,
		},
		"tuning, not honour": {
			`{"type":"ignorant"},{"type":"tuning"},{"type":"ignorant2"}`,
			`"cni-args":{"mac":"02:00:00:00:00:01"}`, "mac", 7,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.script("ignorant", ignorant)
			h.script("ignorant2", `[ "$CNI_COMMAND" != ADD ] || nsenter --net=$CNI_NETNS ip link set `+
				`$CNI_IFNAME address 02:00:00:00:00:07; `+passOn2)
			h.nad("a", `{"cniVersion":"1.0.0","plugins":[`+test.config+`]}`)
			p := h.pod("p", `[{"name":"a",`+test.asks+`}]`)
			h.fails("ADD", p, test.code, test.field)
			h.must("DEL", p)
			h.clean(p)
		})
	}
}

// passOn2 is the rest of a plugin that prints the result of the one before it.
const passOn2 = `if [ "$CNI_COMMAND" = ADD ]; then sed 's/.*"prevResult":\({.*}\),` +
	`"\(runtimeConfig\|type\)":.*/\1/'; fi`

// TestM32ArgsAsBefore: what plugins can do goes on, and so does what is some plugin's own.
func TestM32ArgsAsBefore(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.nad("static", staticNAD(""))
	h.nad("local", h.macvlan(32, ""))
	h.nad("tuned", fmt.Sprintf(`{"cniVersion":"1.0.0","plugins":[%s,{"type":"tuning","dataDir":%q}]}`,
		h.macvlan(33, ""), h.path("tuning")))
	h.fake("fake", "")
	h.nad("own", `{"cniVersion":"1.0.0","type":"fake"}`)
	p := h.pod("p", `[{"name":"static","cni-args":{"ips":["10.32.1.9/24"]}},{"name":"local","cni-args":{"ips":["10.32.0.77"]}},
		{"name":"tuned","cni-args":{"mac":"02:00:00:00:00:09"}},{"name":"own","cni-args":{"ips":"all","mac":"auto","x":1}},
		{"name":"local","ips":["10.32.0.78"],"cni-args":{"ips":["10.32.0.78"]}}]`)
	h.add(p)
	same(t, "static", addressesOf(p, "net1"), []string{"10.32.1.9/24"})
	same(t, "host-local", addressesOf(p, "net2"), []string{"10.32.0.77/24"})
	same(t, "MAC", mac(p, "net3"), "02:00:00:00:00:09")
	same(t, "both", addressesOf(p, "net5"), []string{"10.32.0.78/24"})
	if got := h.noted("fake", "ADD", p, "net4", "json"); !strings.Contains(got, `"ips":"all"`) {
		t.Errorf("the binary got %s", got)
	}
	h.must("CHECK", p)
	h.must("DEL", p)
	h.clean(p)
}

// TestM32ForgedResult: the author of a NAD does not tell its first plugin what was made before it.
func TestM32ForgedResult(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	h.fake("fake", "")
	forged := `"prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"eth0",` +
		`"sandbox":"/proc/1/ns/net"}],"ips":[{"address":"10.1.0.1/16","interface":0}]}`
	h.nad("a", `{"cniVersion":"1.0.0","plugins":[{"type":"fake",`+forged+`},{"type":"fake",`+
		strings.ToUpper(forged[:13])+forged[13:]+`}]}`)
	h.nad("ports", `{"cniVersion":"1.0.0","type":"portmap",`+
		`"runtimeConfig":{"portMappings":[{"hostPort":8032,"containerPort":53,"protocol":"tcp"}]},`+
		forged+`}`)
	p := h.pod("p", "a")
	h.add(p)
	if got := h.noted("fake", "ADD", p, "net1", "json"); strings.Contains(got, "10.1.0.1") {
		t.Errorf("the binary got %s", got)
	}
	h.must("DEL", p)
	h.clean(p)
	h.warned(p, "IgnoredKey: default/a net1 prevResult fake",
		"MiscasedKey: default/a net1 plugins[1].PREVRESULT")
	p = h.pod("ports", "ports")
	h.fails("ADD", p, 7, "prevResult")
	if rules := h.nft(); strings.Contains(rules, "8032") {
		t.Errorf("rules: %s", rules)
	}
	h.must("DEL", p)
	h.clean(p)
}

// TestM35LogsAndEvents: what a NAD, a pod or a plugin says acts on nobody's terminal, and adds no
// line to the log.
func TestM35LogsAndEvents(t *testing.T) {
	t.Parallel()
	const evil, escaped = "\x1b]0;owned\x07\x7f\u009b31m\u202e\u2066\u200b\ntime=1 level=ERROR " +
		"msg=forged\r\t", `\u001b]0;owned\u0007\u007f\u009b31m\u202e\u2066\u200b\ntime=1 level=ERROR ` +
		`msg=forged\r\t`
	h := newHost(t)
	h.script("says", `cat >/dev/null; [ "$CNI_COMMAND" != ADD ] || { cat <<'END'
{"cniVersion":"1.0.0","code":120,"msg":"`+escaped+`","details":"`+escaped+`"}
END
exit 1; }`)
	h.script("cries", `cat >/dev/null; [ "$CNI_COMMAND" != ADD ] || { printf `+
		`'\033]0;owned\007\nforged\n' >&2; exit 1; }`)
	h.fake("fake", "")
	h.nad("says", `{"type":"says"}`)
	h.nad("cries", `{"type":"cries"}`)
	h.nad("keys", `{"type":"fake","logFile":"`+escaped+`","prevResult":{}}`)
	h.nad("known", strings.Replace(h.macvlan(35, ""), "{", `{"`+escaped+`":1,`, 1))
	for i, networks := range []string{
		"says", "cries", "keys", "known", `[{"name":"known","` + escaped + `":1}]`,
		`[{"name":"` + escaped + `"}]`, evil, `[{"name":"known","mac":"` + escaped + `"}]`,
	} {
		p := h.pod(fmt.Sprint("p", i), networks)
		if _, failed := h.call("ADD", p); failed != nil {
			printable(t, "the CNI error", failed.Msg+failed.Details)
		}
		for _, e := range h.events(p) {
			printable(t, "an event", e.Message)
		}
		h.must("DEL", p)
	}
	for line := range strings.Lines(h.log()) {
		printable(t, "the log", strings.TrimSuffix(line, "\n"))
		if !strings.HasPrefix(line, "time=2") {
			t.Errorf("a line of the log is %q", line)
		}
	}
	if n := strings.Count(h.log(), "owned"); n < 8 {
		t.Errorf("the log has %d texts of theirs:\n%s", n, h.log())
	}
}

// printable fails the test if a text is not fit for a terminal, or is more than a line.
func printable(t *testing.T, what, text string) {
	t.Helper()
	if strings.ContainsFunc(text, func(c rune) bool { return !strconv.IsPrint(c) }) {
		t.Errorf("%s has %q", what, text)
	}
}
