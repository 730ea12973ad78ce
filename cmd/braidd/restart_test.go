package main

import (
	"os"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/pkg/conf"
)

// missing looks, again and again, whether there is a file, until the function that it returns is
// called, which reports whether it was ever away.
func missing(path string) (ever func() bool) {
	end, away := make(chan struct{}), make(chan bool)
	go func() {
		gone := false
		for {
			select {
			case <-end:
				away <- gone
				return
			case <-time.After(time.Millisecond):
			}
			if _, err := os.Stat(path); err != nil {
				gone = true
			}
		}
	}()
	return func() bool {
		close(end)
		return <-away
	}
}

// TestM8RestartOfTheAgent: while the agent is away, and when it comes back, the configuration is
// there, so that no pod starts with eth0 alone.
func TestM8RestartOfTheAgent(t *testing.T) {
	a := newAgentNode(t, "node-m8")
	path := a.path("conf/00-braid.conflist")
	stop := a.start()
	a.await("ready", a.ready)
	before, err := os.ReadFile(path)
	must(t, err)
	ever := missing(path)
	for range 3 {
		must(t, stop())
		if now, err := os.ReadFile(path); err != nil || string(now) != string(before) {
			t.Errorf("without an agent the configuration is %q, %v", now, err)
		}
		stop = a.start()
		a.await("ready", a.ready)
	}
	if ever() {
		t.Error("the configuration was away")
	}
	if now, err := os.ReadFile(path); err != nil || string(now) != string(before) {
		t.Errorf("the configuration is\n%s, %v\nwant\n%s", now, err, before)
	}
	must(t, stop())
}

// TestM9HalfWrittenDefaultNetwork: a default network that is being written is waited for, and is no
// reason to write less than a whole configuration.
func TestM9HalfWrittenDefaultNetwork(t *testing.T) {
	a := newAgentNode(t, "node-m9")
	network, path := a.path("conf/10-pods.conflist"), a.path("conf/00-braid.conflist")
	whole, err := os.ReadFile(network)
	must(t, err)
	says := func() bool {
		c := a.report().Condition
		return c != nil && c.Status == metav1.ConditionFalse &&
			strings.Contains(c.Message, "10-pods.conflist")
	}
	must(t, os.WriteFile(network, whole[:len(whole)/2], 0o600))
	stop := a.start()
	a.await("half of it is named", says)
	if _, err := os.Stat(path); err == nil {
		t.Error("there is a configuration, although there is no default network")
	}
	must(t, os.WriteFile(network, whole, 0o600))
	a.await("ready", a.ready)
	for _, n := range []int{0, 1, len(whole) / 3, len(whole) - 1} {
		must(t, os.WriteFile(network, whole[:n], 0o600))
		a.await("what is left of it is named", says)
		cfg, err := conf.LoadFile(path)
		must(t, err)
		if cfg.ClusterNetwork != network {
			t.Errorf("%d bytes of the default network: the configuration has %q", n, cfg.ClusterNetwork)
		}
		must(t, os.WriteFile(network, whole, 0o600))
		a.await("ready again", a.ready)
	}
	must(t, stop())
}
