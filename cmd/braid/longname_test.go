package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// longNAD makes a NAD of a name that is too long for the name of its manifest.
func (h *host) longNAD(file, name, config string) {
	h.t.Helper()
	data, err := json.Marshal(map[string]any{
		"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
		"metadata": map[string]any{"name": name, "namespace": "default"},
		"spec":     map[string]any{"config": config},
	})
	if err != nil {
		h.t.Fatal(err)
	}
	h.write("manifests/"+file, string(data))
}

// longName is a name of so many characters that an object can have.
func longName(first string, length int) string {
	return first + strings.Repeat("-23456789.a", length/11+1)[:length-len(first)-1] + "z"
}

// TestR20LongNames: a NAD's name may have 253 characters, a container ID has 64 and an interface's
// name 15.
func TestR20LongNames(t *testing.T) {
	t.Parallel()
	for _, length := range []int{173, 174, 186, 220, 253} {
		t.Run(fmt.Sprint(length), func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.fake("meta", passOn)
			h.script("device", pluginDeviceInfo)
			long, cluster, device := longName("a", length), longName("b", length), longName("c", length)
			h.longNAD("c.yaml", device,
				strings.Replace(h.macvlan(13, `,"capabilities":{"CNIDeviceInfoFile":true}`), `"macvlan"`,
					`"device"`, 1))
			h.longNAD("a.yaml", long, fmt.Sprintf(`{"cniVersion":"1.0.0","plugins":[
				{"type":"bridge","bridge":"cni0","ipMasq":true,"ipam":{"type":"host-local","dataDir":%q,"subnet":"10.11.0.0/24"}},
				{"type":"portmap","capabilities":{"portMappings":true}},{"type":"sbr"},
				{"type":"meta"}]}`, h.path("leases")))
			h.longNAD("b.yaml", cluster,
				`{"cniVersion":"1.0.0","plugins":[`+h.whereabouts("macvlan", `"range":"10.12.0.0/24"`, "")+`]}`)
			p := h.pod("p", `[{"name":"`+long+`","interface":"fifteen-letters"},{"name":"`+cluster+
				`"},{"name":"`+device+`"}]`)
			p.id = strings.Repeat("0123456789abcdef", 4)
			mapped := []any{map[string]any{"hostPort": 8080, "containerPort": 80, "protocol": "tcp"}}
			h.conf["runtimeConfig"] = map[string]any{"portMappings": mapped}
			h.add(p)
			h.has(p, "eth0", "fifteen-letters", "net2", "net3")
			same(t, "name that the plugin gets", h.stdin("meta", "ADD", p, "fifteen-letters")["name"],
				any(long))
			same(t, "name in network-status", h.status(p)[1].Name, "default/"+long)
			same(t, "device information", h.status(p)[3].DeviceInfo != nil, true)
			h.must("CHECK", p)
			h.valid(p)
			h.must("GC", nil)
			h.must("CHECK", p)
			h.must("DEL", p)
			same(t, "name on DEL", h.stdin("meta", "DEL", p, "fifteen-letters")["name"], any(long))
			same(t, "result of ADD on DEL",
				h.stdin("meta", "DEL", p, "fifteen-letters")["prevResult"] != nil, true)
			h.clean(p)

			// Nothing but libcni's cache is left of the node's state.
			h.add(p)
			h.remove("state", "sandboxes", p.id+".json")
			h.remove("manifests", "Pod-default-p.yaml")
			h.must("DEL", p)
			h.clean(p)
		})
	}
}
