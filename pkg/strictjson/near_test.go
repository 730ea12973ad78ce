package strictjson_test

import (
	"testing"

	"github.com/braid-cni/braid/pkg/strictjson"
)

func TestNear(t *testing.T) {
	known := []string{
		"name", "namespace", "ips", "mac", "vlan", "address", "policy", "rangeStart", "default-route",
		"gateway",
	}
	for key, want := range map[string]string{
		"Name": "name", "NAMESPACE": "namespace", "ip": "ips", "IP": "ips", "ipss": "ips", "mca": "mac",
		"amc": "mac", "max": "mac",
		"vlans": "vlan", "addresses": "address", "policies": "policy", "default_route": "default-route",
		"rangestart":  "rangeStart",
		"rangesStart": "rangeStart", "gateways": "gateway", "gatway": "gateway", "Gatway": "gateway",

		// known, or something else
		"name": "", "gateway": "", "": "", "mode": "", "macs2": "", "ranges": "", "range": "", "cma": "",
		"interface":     "",
		"defaultRoutes": "", "rangeEnd": "", "description": "",
	} {
		if got := strictjson.Near(key, known); got != want {
			t.Errorf("%q: %q, want %q", key, got, want)
		}
	}
	if got := strictjson.Near("names", []string{"name", "names"}); got != "" {
		t.Errorf("a known key is a slip of %q", got)
	}
}
