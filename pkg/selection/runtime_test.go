package selection

import (
	"reflect"
	"testing"
)

// S19, "portMappings".
func TestS19PortMappings(t *testing.T) {
	got := one(t, `"portMappings":[{"hostPort":8080,"containerPort":80},{"hostPort":1,"containerPort":65535,"protocol":"SCTP"},
		{"hostPort":53,"containerPort":53,"protocol":"Udp","hostIP":"192.0.2.1"}]`).PortMappings
	mappings := []PortMapping{
		{HostPort: 8080, ContainerPort: 80, Protocol: "tcp"},
		{HostPort: 1, ContainerPort: 65535, Protocol: "sctp"},
		{HostPort: 53, ContainerPort: 53, Protocol: "udp", HostIP: "192.0.2.1"},
	}
	if !reflect.DeepEqual(got, mappings) {
		t.Errorf("portMappings\n got %+v\nwant %+v", got, mappings)
	}
	for value, at := range map[string]struct{ field, says string }{
		`{"containerPort":80}`:                                 {".hostPort", "the port is missing"},
		`{"hostPort":80}`:                                      {".containerPort", "the port is missing"},
		`{"hostPort":0,"containerPort":80}`:                    {".hostPort", `"0" is no port`},
		`{"hostPort":65536,"containerPort":80}`:                {".hostPort", `"65536" is no port`},
		`{"hostPort":80,"containerPort":-1}`:                   {".containerPort", `"-1" is no port`},
		`{"hostPort":"80","containerPort":80}`:                 {".hostPort", `is no port`},
		`{"hostPort":80.0,"containerPort":80}`:                 {".hostPort", `"80.0" is no port`},
		`{"hostPort":1e3,"containerPort":80}`:                  {".hostPort", `"1e3" is no port`},
		`{"hostPort":80,"containerPort":80,"protocol":"icmp"}`: {".protocol", `"icmp"`},
		`{"hostPort":80,"containerPort":80,"protocol":""}`:     {".protocol", "tcp, udp or sctp"},
		`{"hostPort":80,"containerPort":80,"protocol":6}`: {
			".protocol",
			"is a number, not a string",
		},
		`{"hostPort":80,"containerPort":80,"hostIP":"x"}`: {".hostIP", "is no IP address"},
		`{"hostport":80,"containerPort":80}`:              {".hostport", "write hostPort"},
		`80`:                                              {"", "is a number, not an object"},
		`null`:                                            {"", "is null, not an object"},
	} {
		badOne(t, `"portMappings":[{"hostPort":1,"containerPort":1},`+value+`]`,
			"portMappings[1]"+at.field, at.says)
	}
	badOne(t, `"portMappings":[]`, "portMappings", "the list is empty")
	badOne(t, `"portMappings":{}`, "portMappings", "is an object, not a list")
}

// S20, "bandwidth".
func TestS20Bandwidth(t *testing.T) {
	for value, want := range map[string]Bandwidth{
		`{"ingressRate":2048,"ingressBurst":300,"egressRate":8000,` +
			`"egressBurst":200}`: {2048, 300, 8000, 200},
		`{"egressRate":18446744073709551615}`: {EgressRate: 1<<64 - 1, EgressBurst: 1<<31 - 1},
		`{"ingressRate":1,"egressRate":null}`: {
			IngressRate:  1,
			IngressBurst: 524288,
		},
		`{"ingressRate":100000000,"egressRate":1000,"egressBurst":1}`: {100000000, 10000000, 1000, 1},
	} {
		if got := one(t, `"bandwidth":`+value).Bandwidth; got == nil || *got != want {
			t.Errorf("bandwidth %s: %+v, want %+v", value, got, want)
		}
	}
	for value, at := range map[string]struct{ field, says string }{
		`{}`:                                  {"", "nothing is limited"},
		`{"ingressRate":0}`:                   {".ingressRate", `"0" is no positive whole number`},
		`{"egressRate":-5}`:                   {".egressRate", `"-5"`},
		`{"egressRate":1.5}`:                  {".egressRate", `"1.5"`},
		`{"egressRate":"10M"}`:                {".egressRate", `10M`},
		`{"egressRate":18446744073709551616}`: {".egressRate", `"18446744073709551616"`},
		`{"ingressBurst":5}`:                  {".ingressBurst", "without ingressRate"},
		`{"ingressRate":5,"egressBurst":5}`:   {".egressBurst", "without egressRate"},
		`{"IngressRate":5}`:                   {".IngressRate", "write ingressRate"},
		`[]`:                                  {"", "is a list, not an object"},
	} {
		badOne(t, `"bandwidth":`+value, "bandwidth"+at.field, at.says)
	}
}
