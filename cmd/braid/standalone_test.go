package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/pkg/nettest"
	"github.com/braid-cni/braid/plugins/builtin"
)

// standalone calls braid under the name of a plugin, in the node's namespace.
func (h *host) standalone(kind, command string, p *pod, stdin string) (string, *types.Error) {
	h.t.Helper()
	return h.standaloneTo(os.Stderr, kind, command, p, stdin)
}

// standaloneTo is standalone with stderr in a file.
func (h *host) standaloneTo(
	stderr *os.File, kind, command string, p *pod, stdin string,
) (string, *types.Error) {
	h.t.Helper()
	link := h.path("links", kind)
	if err := os.MkdirAll(filepath.Dir(link), 0o700); err != nil {
		h.t.Fatal(err)
	}
	if err := os.Symlink(h.braid, link); err != nil && !os.IsExist(err) {
		h.t.Fatal(err)
	}
	var stdout bytes.Buffer
	cmd := exec.Command(link)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, stderr
	cmd.Env = append(os.Environ(), asPlugin+"=1", "GORACE=atexit_sleep_ms=0", "CNI_COMMAND="+command,
		"CNI_PATH="+h.path("links"),
		aloneState+"="+h.path("state"), aloneManifests+"="+h.path("manifests"), "NODENAME="+nodeName)
	if p != nil {
		cmd.Env = append(cmd.Env, "CNI_CONTAINERID="+p.id, "CNI_NETNS="+p.Path, "CNI_IFNAME=net1")
	}
	cmd.Env = append(cmd.Env, h.env...)
	if err := h.node.Run(cmd.Run); err == nil {
		return stdout.String(), nil
	}
	failed := &types.Error{}
	if err := json.Unmarshal(stdout.Bytes(), failed); err != nil || failed.Msg == "" {
		h.t.Fatalf("%s %s: no CNI error on stdout but %q", kind, command, stdout.String())
	}
	return "", failed
}

// Under the name of a plugin braid is that plugin, for runtimes and tools that call it directly.
// Its IPAM plugin needs no binary either.
func TestStandalonePlugins(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p := &pod{Namespace: nettest.New(t), id: "id-p"}
	before := p.Snapshot()
	conf := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"net","type":"macvlan","master":%q,
		"ipam":{"type":"host-local","dataDir":%q,"subnet":"10.11.0.0/24"}}`, nic, h.path("leases"))
	out, failed := h.standalone("macvlan", "ADD", p, conf)
	if failed != nil {
		t.Fatal(failed)
	}
	var result struct {
		CNIVersion string
		IPs        []struct{ Address string }
	}
	err := json.Unmarshal([]byte(out), &result)
	if err != nil || result.CNIVersion != "1.0.0" || len(result.IPs) != 1 ||
		result.IPs[0].Address != "10.11.0.2/24" {
		t.Errorf("ADD printed %s: %v", out, err)
	}
	h.has(p, "net1")
	with := strings.TrimSuffix(conf, "}") + `,"prevResult":` + out + "}"
	if _, failed := h.standalone("macvlan", "CHECK", p, with); failed != nil {
		t.Error("CHECK:", failed)
	}
	for range 2 {
		if _, failed := h.standalone("macvlan", "DEL", p, with); failed != nil {
			t.Error("DEL:", failed)
		}
		same(t, "the pod", p.Snapshot(), before)
		same(t, "leases", h.leases(), nil)
	}
}

func TestStandaloneRefusals(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p := &pod{Namespace: nettest.New(t), id: "id-p"}
	for kind := range builtin.Plugins(builtin.Node{}) {
		out, failed := h.standalone(kind, "VERSION", nil, `{"cniVersion":"1.1.0"}`)
		if failed != nil || !strings.Contains(out, `"1.1.0"`) || !strings.Contains(out, `"0.3.0"`) {
			t.Errorf("%s VERSION: %s, %v", kind, out, failed)
		}
	}
	for kind, unknown := range map[string]string{
		"macvlan": `"masters":1`, "portmap": `"backend":"iptables"`,
	} {
		conf := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"net","type":%q,%s}`, kind, unknown)
		_, failed := h.standalone(kind, "ADD", p, conf)
		key := strings.Split(unknown, `"`)[1]
		if failed == nil || failed.Code != types.ErrInvalidNetworkConfig ||
			!strings.Contains(failed.Msg, key) {
			t.Errorf("%s: %v", unknown, failed)
		}
		if _, failed := h.standalone(kind, "DEL", p, conf); failed != nil { // or the pod would never go
			t.Errorf("DEL after that: %v", failed)
		}
	}
}

// TestU14PluginsInProcess: the profile's types need no binary on the node.
func TestU14PluginsInProcess(t *testing.T) {
	t.Parallel()
	inProcessOnly(t, "macvlan", "portmap")
}

// There is no NAT in the user-mode kernel.
func TestU14IPvlanInProcess(t *testing.T) {
	nettest.NeedsLink(t, "ipvlan")
	t.Parallel()
	inProcessOnly(t, "ipvlan")
}

// inProcessOnly attaches a pod to a network on the node's NIC and to a bridge. No plugin is
// installed.
func inProcessOnly(t *testing.T, kind string, more ...string) {
	t.Helper()
	h := newHost(t)
	h.conf["binDir"], h.env = h.path("none"), []string{"CNI_PATH=" + h.path("none")}
	h.nad("a", fmt.Sprintf(`{"cniVersion":"1.0.0","plugins":[{"type":%q,"master":%q,
		"ipam":{"type":"static","addresses":[{"address":"10.14.0.2/24","gateway":"10.14.0.1"}]}},
		{"type":"sbr"},{"type":"tuning","dataDir":%q,"sysctl":{"net.ipv4.conf.IFNAME.arp_filter":"1"}}]}`, kind, nic, h.path("tuning")))
	chain, ports := "", ""
	for _, meta := range more {
		chain += fmt.Sprintf(`,{"type":%q,"capabilities":{"portMappings":true}}`, meta)
		ports = `,"portMappings":[{"hostPort":8014,"containerPort":80,"protocol":"tcp"}]`
	}
	h.nad("b", fmt.Sprintf(`{"cniVersion":"1.0.0","plugins":[{"type":"bridge",`+
		`"ipam":{"type":"host-local","dataDir":%q,"subnet":"10.15.0.0/24"}}%s]}`,
		h.path("leases"), chain))
	h.nad("c", `{"cniVersion":"1.0.0","type":"bridge","bridge":"cni0","ipam":{"type":"whereabouts",`+
		`"range":"10.16.0.0/24"}}`)
	p := h.pod("p", `[{"name":"a"},{"name":"b"`+ports+`},{"name":"c"}]`)
	h.must("ADD", p)
	h.has(p, "eth0", "net1", "net2", "net3")
	h.must("CHECK", p)
	h.must("DEL", p)
	h.clean(p)
	log := h.log()
	for _, ran := range append(more, kind, "bridge", "host-local", "sbr", "static", "tuning",
		"whereabouts") {
		if !strings.Contains(log, "path=builtin:"+ran) {
			t.Errorf("the log does not say that %s ran in-process", ran)
		}
	}
}
