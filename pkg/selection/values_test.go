package selection

import (
	"encoding/json"
	"reflect"
	"testing"
)

// S13, "ips".
func TestS13Ips(t *testing.T) {
	for keys, ips := range map[string][]string{
		`"ips":["10.2.2.42/24","2001:db8::5/64"]`: {"10.2.2.42/24", "2001:db8::5/64"},
		`"ips":["10.2.2.42"]`:                     {"10.2.2.42"},
		`"ips":["2001:DB8::5","::1/128"]`:         {"2001:DB8::5", "::1/128"}, // as written
		`"ips":null`:                              nil,
	} {
		if got := one(t, keys).IPs; !reflect.DeepEqual(got, ips) {
			t.Errorf("%s: %q, want %q", keys, got, ips)
		}
	}
	for value, say := range map[string]string{
		`10.0.0.256`: "is no IP address", `10.0.0`: "is no IP address", `010.0.0.1`: "is no IP address",
		``:          "is no IP address",
		` 10.0.0.1`: "is no IP address", `10.0.0.1/33`: "prefix length", `10.0.0.1/`: "prefix length",
		`10.0.0.1/-1`: "prefix length",
		`/24`:         "prefix length", `fe80::1%eth0`: "has a zone", `fe80::1%eth0/64`: "prefix length",
		`::ffff:10.0.0.1`:     "in IPv6 form",
		`::ffff:10.0.0.1/100`: "in IPv6 form", `2001:db8::/129`: "prefix length",
		`localhost`: "is no IP address",
	} {
		badOne(t, `"ips":["10.0.0.1","`+value+`"]`, "ips[1]", value, say,
			"at least one IPv4 or IPv6 address")
	}
	badOne(t, `"ips":[]`, "ips", "the list is empty")
	badOne(t, `"ips":"10.0.0.1"`, "ips", "is a string, not a list")
	badOne(t, `"ips":[1]`, "ips[0]", `"1" is a number, not a string`)
	badOne(t, `"ips":[null]`, "ips[0]", "is null, not a string")
}

// S14, "mac: six bytes".
func TestS14Mac(t *testing.T) {
	for _, mac := range []string{"02:23:45:67:89:01", "AA:bb:cc:dd:ee:ff", "02-23-45-67-89-01"} {
		if got := one(t, `"mac":"`+mac+`"`).MAC; got != mac {
			t.Errorf("mac %q, want it as written, %q", got, mac)
		}
	}
	for mac, say := range map[string]string{
		"02:23:45:67:89:01:02:03":                                     "has 8 bytes, not 6",
		"80:00:11:22:33:44:55:66:77:88:99:aa:bb:cc:dd:ee:ff:00:11:22": "has 20 bytes, not 6",
		"02:23:45:67:89":                                              "is no hardware address",
		"02:23:45:67:89:0g":                                           "is no hardware address",
		"":                                                            "is no hardware address",
		"02:23:45:67:89:01 ":                                          "is no hardware address",
	} {
		badOne(t, `"mac":"`+mac+`"`, "mac", mac, say, "six bytes")
	}
	badOne(t, `"mac":1`, "mac", "is a number, not a string")
}

// S15, "infiniband-guid: eight bytes".
func TestS15InfinibandGUID(t *testing.T) {
	const guid = "24:8a:07:03:00:8d:ae:2f"
	if got := one(t, `"infiniband-guid":"`+guid+`"`).InfinibandGUID; got != guid {
		t.Errorf("infiniband-guid %q, want %q", got, guid)
	}
	badOne(t, `"infiniband-guid":"02:23:45:67:89:01"`, "infiniband-guid", "has 6 bytes, not 8",
		"eight bytes")
	badOne(t, `"infiniband-guid":"x"`, "infiniband-guid", `"x" is no hardware address`)
	badOne(t, `"infiniband-guid":{}`, "infiniband-guid", "is an object, not a string")
}

// S17, "interface: a valid name, once".
func TestS17Interface(t *testing.T) {
	for _, name := range []string{"net1", "eth0.100", "a", "fifteen-bytes-1", "v@1", "_-+,"} {
		if got := one(t, `"interface":"`+name+`"`).Interface; got != name {
			t.Errorf("interface %q, want %q", got, name)
		}
	}
	for name, say := range map[string]string{
		``: `"" is empty`, `sixteen-bytes-12`: "has 16 bytes", `.`: "is reserved", `..`: "is reserved",
		`all`:     "is reserved",
		`default`: "is reserved", `lo`: "is reserved", `a/b`: "contains '/'", `a:1`: "contains ':'",
		`a b`:  "contains ' '",
		`a\tb`: `contains '\t'`, `a\u0000`: `contains '\x00'`, `a\u0007`: `contains '\a'`,
		`net%d`: "contains '%'", `a\u00a0b`: "contains",
		`\u202ea`: `contains '\u202e'`, `\u00e0`: "use ASCII",
	} {
		badOne(t, `"interface":"`+name+`"`, "interface", say)
	}
	badOne(t, `"interface":1`, "interface", "is a number, not a string")

	bad(t, `[{"name":"a"},{"name":"b","interface":"eth5"},{"name":"c"},{"name":"d","namespace":"ns",`+
		`"interface":"eth5"}]`,
		"networks[3].interface", "NAD ns/d", `"eth5" is taken by networks[1] (pods/b)`)
	bad(t, "a@x,a@x", "networks[1].interface", `"x" is taken by networks[0] (pods/a)`)
}

// S18, "cni-args become args.cni; the pod's win".
func TestS18CNIArgs(t *testing.T) {
	got := one(t, `"cni-args":{"spoofchk":"on","n":12345678901234567890,"deep":{"A":[1.50,null]}}`).
		CNIArgs
	args := map[string]json.RawMessage{
		"spoofchk": json.RawMessage(`"on"`), "n": json.RawMessage(`12345678901234567890`),
		"deep": json.RawMessage(`{"A":[1.50,null]}`),
	}
	if !reflect.DeepEqual(got, args) {
		t.Errorf("cni-args %s, want %s", got, args)
	}
	// as the ecosystem's client writes an absent one
	if got := one(t, `"cni-args":null`).CNIArgs; got != nil {
		t.Errorf("cni-args null is %v, want nil", got)
	}
	if got := one(t, `"cni-args":{}`).CNIArgs; got == nil || len(got) != 0 {
		t.Errorf("cni-args {} is %#v, want an empty map", got)
	}
	for value, say := range map[string]string{
		`[]`: "a list", `"a=b"`: "a string", `1`: "a number", `true`: "a boolean",
	} {
		badOne(t, `"cni-args":`+value, "cni-args", "is "+say+", not an object")
	}
}

// S21, "default-route: gateways, once of a family".
func TestS21DefaultRoute(t *testing.T) {
	if got := one(t, `"mac":null`).DefaultRoute; got != nil {
		t.Errorf("without default-route: %#v, want nil", got)
	}
	if got := one(t, `"default-route":[]`).DefaultRoute; got == nil || len(got) != 0 {
		t.Errorf("default-route []: %#v, want an empty list", got)
	}
	got := one(t, `"default-route":["10.0.0.1","2001:db8::1"]`).DefaultRoute
	if !reflect.DeepEqual(got, addrs("10.0.0.1", "2001:db8::1")) {
		t.Errorf("default-route: %v", got)
	}
	good(t, `[{"name":"a","default-route":["10.0.0.1"]},{"name":"b"},{"name":"c",`+
		`"default-route":["2001:db8::1"]}]`)
	for value, say := range map[string]string{
		`"10.0.0.1/24"`: "is no IP address", `"fe80::1%eth0"`: "has a zone", `"gw"`: "is no IP address",
		`7`: "is a number", `""`: "is no IP address",
		`"0.0.0.0"`: "is no address of a gateway", `"::"`: "is no address of a gateway",
		`"ff02::2"`: "is no address of a gateway",
	} {
		badOne(t, `"default-route":["10.0.0.1",`+value+`]`, "default-route[1]", say,
			"without prefix length")
	}
	badOne(t, `"default-route":"10.0.0.1"`, "default-route", "is a string, not a list")
	for _, pair := range []struct{ first, second, family string }{
		{`["10.0.0.1"]`, `["10.0.0.2"]`, "IPv4"},
		{`["2001:db8::1"]`, `["2001:db8::2"]`, "IPv6"},
		{`[]`, `[]`, "IPv4"},
		{`[]`, `["2001:db8::2"]`, "IPv6"},
		{`["10.0.0.1"]`, `[]`, "IPv4"},
		{`["10.0.0.1"]`, `["2001:db8::2","10.0.0.1"]`, "IPv4"},
	} {
		bad(t, `[{"name":"a","default-route":`+pair.first+`},{"name":"b"},{"name":"c","default-route":`+
			pair.second+`}]`,
			"networks[2].default-route", "NAD pods/c", "the "+pair.family+" default route",
			"networks[0] (pods/a)")
	}
}

// S23, "ipam-claim-reference is a string, not with ips (its effect: S46)".
func TestS23IPAMClaim(t *testing.T) {
	got := one(t, `"ipam-claim-reference":"vm123.tenantblue"`).IPAMClaim
	if got != "vm123.tenantblue" {
		t.Errorf("ipam-claim-reference %q", got)
	}
	badOne(t, `"ipam-claim-reference":"vm1","ips":["10.0.0.1"]`, "ipam-claim-reference",
		`"vm1" is given together with ips`)
	badOne(t, `"ipam-claim-reference":""`, "ipam-claim-reference", `"" is no DNS-1123 name`)
	badOne(t, `"ipam-claim-reference":"a/b"`, "ipam-claim-reference", `"a/b"`)
	badOne(t, `"ipam-claim-reference":["a"]`, "ipam-claim-reference", "is a list, not a string")
}
