package main

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/braid-cni/braid/pkg/nettest"
)

// alonePod is a pod that a plugin is called for under its own name.
func (h *host) alonePod(id string) *pod {
	h.t.Helper()
	return &pod{Namespace: nettest.New(h.t), id: id}
}

// rest is what attachments may leave on the node.
func (h *host) rest() string {
	h.t.Helper()
	rest := h.node.Snapshot() + strings.Join(h.leases(), "\n")
	for _, dir := range []string{"state/standalone", "state/vlans", "tuning"} {
		rest += fmt.Sprintln(dir, globbed(h.t, h.path(dir, "*")))
	}
	return rest + h.nft()
}

// aloneConfs are configurations of all kinds of state, by type.
func (h *host) aloneConfs() map[string]string {
	ipam := fmt.Sprintf(`"ipam":{"type":"host-local","dataDir":%q,"subnet":"10.11.0.0/24"}`,
		h.path("leases"))
	return map[string]string{
		"macvlan": fmt.Sprintf(`"master":%q,%s`, nic, ipam),
		"bridge": fmt.Sprintf(`"bridge":"br7","isGateway":true,"ipMasq":true,"macspoofchk":true,%s`,
			ipam),
	}
}

// What ADD has made goes, whatever became of the configuration: DEL gets nothing of it, or another
// one.
func TestR13StandaloneDelWithAnotherConfiguration(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	for kind, keys := range h.aloneConfs() {
		conf := fmt.Sprintf(`{"cniVersion":"1.1.0","name":"net","type":%q`, kind)
		for _, now := range []string{
			conf, conf + fmt.Sprintf(`,"ipam":{"type":"host-local","dataDir":%q,"subnet":"10.12.0.0/24"}`,
				h.path("elsewhere")),
		} {
			first := h.alonePod("first") // makes what is shared and stays
			if _, failed := h.standalone(kind, "ADD", first, conf+","+keys+"}"); failed != nil {
				t.Fatal(failed)
			}
			if _, failed := h.standalone(kind, "DEL", first, conf+","+keys+"}"); failed != nil {
				t.Fatal(failed)
			}
			before := h.rest()
			for _, command := range []string{"DEL", "GC"} {
				p := h.alonePod("p")
				if _, failed := h.standalone(kind, "ADD", p, conf+","+keys+"}"); failed != nil {
					t.Fatal(failed)
				}
				if command == "DEL" {
					for range 2 {
						if _, failed := h.standalone(kind, "DEL", p, now+"}"); failed != nil {
							t.Error(failed)
						}
					}
					h.has(p)
				} else {
					p.Unmount()
					_, failed := h.standalone(kind, "GC", nil, now+`,"cni.dev/valid-attachments":[]}`)
					if failed != nil {
						t.Error(failed)
					}
				}
				h.eventually("after "+command+" of "+kind, before, h.rest)
			}
		}
	}
}

// eventually fails the test unless a state becomes what it should be: the kernel removes what was
// in a namespace in its own time.
func (h *host) eventually(what, want string, state func() string) {
	h.t.Helper()
	for end := time.Now().Add(20 * time.Second); time.Now().
		Before(end); time.Sleep(10 * time.Millisecond) {
		if state() == want {
			return
		}
	}
	same(h.t, what, strings.Split(state(), "\n"), strings.Split(want, "\n"))
}

// Two plugins of one type in a chain keep what is theirs apart, and a failed ADD leaves nothing to
// remember.
func TestR13StandaloneTuningTwice(t *testing.T) {
	t.Parallel()
	h := newHost(t)
	p := h.alonePod("p")
	p.Veth("net1", nettest.New(t), "wire")
	before := p.Links()
	conf := func(dir string, mtu int) string {
		return fmt.Sprintf(`{"cniVersion":"1.0.0","name":"net","type":"tuning","dataDir":%q,"mtu":%d,
			"prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"net1","sandbox":%q}]}}`, h.path(dir), mtu, p.Path)
	}
	for i, dir := range []string{"one", "two"} {
		if _, failed := h.standalone("tuning", "ADD", p, conf(dir, 1400-i)); failed != nil {
			t.Fatal(failed)
		}
	}
	if _, failed := h.standalone("tuning", "ADD", p, conf("three", -1)); failed == nil {
		t.Error("an MTU of -1 is taken")
	}
	same(t, "saved", len(globbed(t, h.path("state/standalone/*"))), 2)
	for range 2 {
		_, failed := h.standalone("tuning", "DEL", p,
			`{"cniVersion":"1.0.0","name":"net","type":"tuning"}`)
		if failed != nil {
			t.Error(failed)
		}
	}
	same(t, "links", p.Links(), before)
	for _, dir := range []string{"one", "two", "state/standalone"} {
		same(t, dir, globbed(t, h.path(dir, "*")), []string(nil))
	}
	// What was saved by nobody, or is damaged, does not keep a pod.
	if _, failed := h.standalone("tuning", "ADD", p, conf("one", 1400)); failed != nil {
		t.Fatal(failed)
	}
	for _, file := range globbed(t, h.path("state/standalone/*")) {
		err := os.WriteFile(strings.Replace(file, "-0000-", "-0001-", 1)+".tmp", []byte(`{"ki`), 0o600)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(`{"ki`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, failed := h.standalone("tuning", "DEL", p, conf("one", 1400)); failed != nil {
		t.Error(failed)
	}
	same(t, "links", p.Links(), before)
	same(t, "saved", globbed(t, h.path("state/standalone/*")), []string(nil))
}
