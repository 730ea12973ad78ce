package selection

import (
	"fmt"
	"strings"
	"testing"
	"unicode"

	"github.com/braid-cni/braid/pkg/failure"
)

// S9, "networks annotation, both formats".
func TestS9BothForms(t *testing.T) {
	both := []Selection{{Namespace: "pods", Name: "net-a"}, {Namespace: "other", Name: "net-b"}}
	want(t, "net-a,other/net-b", both...)
	want(t, `[{"name":"net-a"},{"name":"net-b","namespace":"other"}]`, both...)
	want(t, "\n\t[\n  {\"name\": \"net-a\"},\r\n  {\"name\": \"net-b\", \"namespace\": "+
		"\"other\"}\n]\n", both...)
	for _, nothing := range []string{"", " ", "\n\t \r\n", "[]", " [ ] "} {
		if got := good(t, nothing); got != nil {
			t.Errorf("Parse(%q) = %+v, want nil", nothing, got)
		}
	}
	bad(t, `{"name":"net-a"}`, "networks", "wrap it in a list", `name\":\"net-a`)
	for text, say := range map[string]string{
		`[{"name":"a"}`:               "line 1 column 13: unexpected end of JSON input",
		"[\n {\"name\": \"a\"},\n]":   "line 3 column 1: ",
		"[{\"name\":\"a\"}] trailing": "line 1 column 16: ",

		"[\n{\"name\":\"a\"} # the first\n]": `line 2 column 14: a "#" comment, and JSON has no comments`,

		"[{\"name\":\"a\"} // the first\n]": `line 1 column 15: a "//" comment, and JSON has no comments`,

		"[{\"name\":\"\xff\"}]":                             "line 1 column 11: byte 0xff is not UTF-8",
		strings.Repeat("[", 100) + strings.Repeat("]", 100): "nested more than",
	} {
		e, err := Parse(text, "pods")
		if err == nil {
			t.Errorf("Parse(%q) = %+v, want an error", text, e)
		} else if !strings.Contains(err.Error(), say) {
			t.Errorf("Parse(%q): %q does not contain %q", text, err, say)
		}
	}
	bad(t, `["a"]`, "networks[0]", `\"a\"`, "is a string, not an object")
	bad(t, `[{"name":"a"},null]`, "networks[1]", "is null, not an object")
}

// S10, "short form, with namespace and @interface".
func TestS10ShortForm(t *testing.T) {
	want(t, "a", Selection{Namespace: "pods", Name: "a"})
	want(t, "ns/a", Selection{Namespace: "ns", Name: "a"})
	want(t, "a@eth1", Selection{Namespace: "pods", Name: "a", Interface: "eth1"})
	want(t, " ns/a.b@eth1 ,\n\tc ", Selection{Namespace: "ns", Name: "a.b", Interface: "eth1"},
		Selection{Namespace: "pods", Name: "c"})
	for text, say := range map[string]string{
		",":          "an empty element",
		"x, ,":       "",
		"x,/a":       `"/a": namespace ""`,
		"x,ns/":      `"ns/": name ""`,
		"x,ns/a/b":   `"ns/a/b": name "a/b"`,
		"x,a@":       `"a@": interface "" is empty`,
		"x,a@b\x8bc": `interface "b\x8bc"`,
		"x,a@b c":    `interface "b c" contains ' '`,
		"x,Net":      `name "Net"`,
		"x,a b":      `name "a b"`,
		"x,a_b":      `name "a_b"`,
		"x,-a":       `name "-a"`,
		"x,a..b":     `name "a..b"`,
		"x,a.b/c":    `namespace "a.b"`,
		"x,../a":     `namespace ".."`,
		"x,a\x00b":   `name "a\x00b"`,
		"x,a\x1b[2J": `a\x1b[2J`,
		"x,\"a\"":    `name "\"a\""`,
	} {
		field := "networks[1]"
		if text == "," {
			field = "networks[0]"
		}
		bad(t, text, field, say, "[namespace/]name[@interface]")
	}
}

// S11, "JSON form: name required, empty namespace is the pod's".
func TestS11Name(t *testing.T) {
	want(t, `[{"name":"a","namespace":""}]`, Selection{Namespace: "pods", Name: "a"})
	want(t, `[{"name":"a.b-c.9","namespace":null}]`, Selection{Namespace: "pods", Name: "a.b-c.9"})
	long := strings.Repeat("a", 253)
	want(t, `[{"name":"`+long+`"}]`, Selection{Namespace: "pods", Name: long})
	for _, keys := range []string{`{}`, `{"name":""}`, `{"name":null}`, `{"namespace":"ns"}`} {
		bad(t, `[{"name":"a"},`+keys+`]`, "networks[1].name", "the name is missing")
	}
	bad(t, `[{"name":"`+long+`a"}]`, "networks[0].name", "at most 253 bytes", "...")
	bad(t, `[{"name":7}]`, "networks[0].name", `"7" is a number, not a string`)
	bad(t, `[{"name":"../etc"}]`, "networks[0].name", `"../etc"`)
	bad(t, `[{"Name":"a"}]`, "networks[0].Name", "write name")
	badOne(t, `"namespace":"`+strings.Repeat("n", 64)+`"`, "namespace", "at most 63 bytes")
	badOne(t, `"namespace":"a/b"`, "namespace", `"a/b"`)
	badOne(t, `"namespace":["a"]`, "namespace", "is a list, not a string")
}

// S12, "keys without a period are reserved".
func TestS12ReservedKeys(t *testing.T) {
	want(t, `[{"name":"a","org.example.key":{"any":[1]},"x.y":null}]`,
		Selection{Namespace: "pods", Name: "a"})
	badOne(t, `"IPs":["10.0.0.1"]`, "IPs", "write ips")
	warned(t, `"vlan":5`, "vlan", `the key "vlan" is ignored`, "use one of name, namespace, ips")
	warned(t, `"":1`, `""`, `the key "" is ignored`)
	warned(t, `"a\nb":1`, `"a\nb"`, `the key "a\nb" is ignored`)
	badOne(t, `"mac":"02:00:00:00:00:01","mac":"02:00:00:00:00:02"`, "mac", "twice", "line 1 column ")
	badOne(t, `"cni-args":{"a":{"b":1,"b":2}}`, "cni-args.a.b", "twice")
}

// S24, "the same network more than once".
func TestS24SameNetworkTwice(t *testing.T) {
	a := Selection{Namespace: "pods", Name: "net-a"}
	want(t, "net-a,net-a,pods/net-a", a, a, a)
	want(t, `[{"name":"net-a"},{"name":"net-a"}]`, a, a)
}

// U9, "annotation: both forms, namespaces, repetition".
func TestU9Annotation(t *testing.T) {
	gke := []Selection{
		{Namespace: "default", Name: "gke-network-1"}, {Namespace: "default", Name: "gke-network-2"},
	}
	want(t, "default/gke-network-1,default/gke-network-2", gke...)
	want(t, "default/gke-network-1, default/gke-network-1", gke[0], gke[0])
	want(t, "gke-network-1", Selection{Namespace: "pods", Name: "gke-network-1"})
	want(t, `[{"name":"gke-network-1","namespace":"default"},{"namespace":"default",`+
		`"name":"gke-network-2"}]`, gke...)
}

// The bounds of "Bad input": ten megabytes, too many elements, and values that would fill a log or
// drive a terminal.
func TestBounds(t *testing.T) {
	bad(t, strings.Repeat("a", 10<<20), "networks", "10485760 bytes", "262144")
	names := make([]string, MaxNetworks)
	for i := range names {
		names[i] = fmt.Sprintf("net-%d", i)
	}
	if got := good(t, strings.Join(names, ",")); len(got) != MaxNetworks {
		t.Errorf("%d selections, want %d", len(got), MaxNetworks)
	}
	bad(t, strings.Join(append(names, "more"), ","), "networks", "65 networks", "at most 64")
	bad(t, "["+strings.Repeat(`{"name":"a"},`, MaxNetworks)+`{"name":"a"}]`, "networks", "65 networks")
	bad(t, strings.Repeat(",", MaxSize-1), "networks")

	evil := strings.Repeat("\\u001b]0;evil\\u0007\\u202e", 5000)
	for _, key := range []string{
		"mac", "namespace", "interface", "infiniband-guid", "ipam-claim-reference", "x" + evil,
	} {
		element := `[{"name":"a","` + key + `":"` + evil + `"}]`
		var e *failure.Error
		if key[0] == 'x' {
			e = good(t, element)[0].Warnings[0]
		} else {
			e = bad(t, element, "networks[0]."+key)
		}
		if len(e.Error()) > 1000 {
			t.Errorf("%s: the error has %d bytes", key, len(e.Error()))
		}
		if i := strings.IndexFunc(e.Error(), func(r rune) bool { return !unicode.IsPrint(r) }); i >= 0 {
			t.Errorf("%s: %q in the error", key, e.Error()[i:])
		}
	}
}

// An annotation is not the place for thousands of events.
func TestR1WarningsAreBounded(t *testing.T) {
	var keys strings.Builder
	for i := range 1000 {
		fmt.Fprintf(&keys, `,"key-%d":1`, i)
	}
	warnings := good(t, `[{"name":"a"`+keys.String()+`}]`)[0].Warnings
	if len(warnings) != maxWarnings ||
		!strings.Contains(warnings[maxWarnings-1].Error(), "more such keys") {
		t.Errorf("%d warnings: %v", len(warnings), warnings)
	}
}

func TestR1Strays(t *testing.T) {
	warned(t, `"gateway":["10.0.0.1"]`, "gateway", `write "default-route"`)
	warned(t, `"gateways":["10.0.0.1"]`, "gateways", `write "default-route"`)
	warned(t, `"deviceID":"0000:00:01.0"`, "deviceID", "resourceName")
	for key, meant := range map[string]string{
		"IPS": "ips", "ip": "ips", "Mac": "mac", "macs": "mac", "interfaces": "interface",
		"interfacerequest": "interfaceRequest",
		"portMapping":      "portMappings", "default_route": "default-route", "cni_args": "cni-args",
		"namepsace": "namespace", "bandwidths": "bandwidth",
	} {
		badOne(t, `"`+key+`":null`, key, "write "+meant)
	}
	badOne(t, `"portMappings":[{"hostPorts":1,"containerPort":1}]`, "portMappings[0].hostPorts",
		"write hostPort")
	badOne(t, `"bandwidth":{"egresRate":1}`, "bandwidth.egresRate", "write egressRate")
	warned(t, `"portMappings":[{"hostPort":1,"containerPort":1,"gateway":1}]`,
		"portMappings[0].gateway", "use one of hostPort")
	warned(t, `"bandwidth":{"egressRate":1,"burst":5}`, "bandwidth.burst", "use one of ingressRate")
}

func TestR1InterfaceRequest(t *testing.T) {
	for _, keys := range []string{
		`"interfaceRequest":"eth1"`, `"interfaceRequest":"eth1","interface":"eth1"`,
		`"interfaceRequest":"eth1","interface":null`,
	} {
		if s := one(t, keys); s.Interface != "eth1" || len(s.Warnings) != 0 {
			t.Errorf("%s: %+v", keys, s)
		}
	}
	badOne(t, `"interfaceRequest":"eth1","interface":"eth2"`, "interfaceRequest",
		`"eth1" is not what interface says, "eth2"`)
	badOne(t, `"interfaceRequest":"a/b"`, "interfaceRequest", "'/'")
	bad(t, `[{"name":"a","interface":"eth1"},{"name":"a","interfaceRequest":"eth1"}]`,
		"networks[1].interface", "taken by networks[0]")
}
