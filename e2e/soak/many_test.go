package soak_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/braid-cni/braid/pkg/agent/client"
	"github.com/braid-cni/braid/pkg/agent/wire"
	"github.com/braid-cni/braid/pkg/nettest"
)

const (
	// manyNADs are in the cluster while manyPods are attached at once.
	manyNADs, manyPods = 5000, 500
	// mostResident is what the agent may have had resident, in KiB.
	mostResident = 80 << 10
	// appliers is how many requests there are at once where all are made as fast as can be.
	appliers = 16
)

// TestAgentIsSmall: with 5,000 NADs in the cluster and 500 pods at once, each with two of these
// networks beside the default one, the agent has never had more than 80 MB. It has the NADs once,
// although one asks for its capacity.
func TestAgentIsSmall(t *testing.T) {
	nettest.NeedsRoot(t)
	nads := make([]string, manyNADs)
	for i := range nads {
		nads[i] = manyNAD(i)
	}
	s := newThrough(t, manyPods, nads...)
	s.awaitSynced()
	if n := s.watches(); n != 1 {
		t.Errorf("NADs are watched %d times", n)
	}
	idle := s.status("VmRSS")
	for _, verb := range []string{"ADD", "DEL"} {
		start := time.Now()
		s.allAtOnce(verb)
		t.Logf("%d %ss at once took %v; the agent has %d KiB resident, had %d before, and %d at most",
			manyPods, verb, time.Since(start).Round(time.Second/10), s.status("VmRSS"), idle,
			s.status("VmHWM"))
	}
	if most := s.status("VmHWM"); most >= mostResident {
		t.Errorf("the agent has had %d KiB, which is not below %d", most, mostResident)
	}
	left, err := filepath.Glob(stateDir + "/sandboxes/*.json")
	must(t, err)
	if len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

// manyNAD is a NAD as large as those of clusters.
func manyNAD(i int) string {
	config := fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "network-%d", "plugins": [
		{"type": "macvlan", "master": "nic0", "mode": "bridge", "mtu": 1500, "ipam": {"type": "static",
		"addresses": [{"address": "10.52.%d.%d/16", "gateway": "10.52.0.1"}],
		"routes": [{"dst": "172.31.0.0/16", "gw": "10.52.0.1"}]}},
		{"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}}]}`, i, i/250, i%250+2)
	return fmt.Sprintf(`{"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
		"metadata": {"name": "many-%d", "namespace": "default", "labels": {"team": "network-%d"},
		"annotations": {"description": %q, "braid-cni.io/schedule": "%t"}}, "spec": {"config": %q}}`,
		i, i%50, strings.Repeat("what this network is for, ", 20), i == 0, config)
}

// atOnce does something for each of n, some at a time.
func atOnce(n int, do func(i int) error, t *testing.T) {
	t.Helper()
	next := make(chan int)
	var workers sync.WaitGroup
	for range appliers {
		workers.Go(func() {
			for i := range next {
				if err := do(i); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	workers.Wait()
	if t.Failed() {
		t.FailNow()
	}
}

// allAtOnce makes a call for each pod at once, as that many clients would.
func (s *through) allAtOnce(verb string) {
	s.Helper()
	var all sync.WaitGroup
	for i := range manyPods {
		hello := wire.Frame{
			Type: wire.Hello, Version: wire.Version, Oldest: wire.Version, Verb: wire.CNI,
			Environ: wire.Environ(s.environ(verb, fmt.Sprint("many-", i), i)),
			Stdin:   s.stdin(fmt.Sprintf("through,many-%d", i)), Millis: int(time.Minute.Milliseconds()) * 4,
		}
		all.Go(func() {
			for {
				result, err := (&client.Client{Socket: wire.Socket}).Do(&hello, s.netns(i))
				refused, ok := errors.AsType[*client.Error](err)
				switch {
				case ok && !refused.Sent && refused.Reason != client.Refuses: // the machine is busy
					continue
				case err != nil:
					s.Errorf("%s of %d: %v", verb, i, err)
				case result.Exit != 0:
					s.Errorf("%s of %d: %s%s", verb, i, result.Stdout, result.Stderr)
				}
				return
			}
		})
	}
	all.Wait()
}

// awaitSynced waits until the agent has the NADs in memory, which it looks at every ten seconds.
func (s *through) awaitSynced() {
	s.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		page, err := metricsPage(s.Context())
		if err == nil && strings.Contains(page, `braid_informer_synced{resource="nads"} 1`) {
			return
		}
		if time.Now().After(deadline) {
			s.Fatalf("the NADs are not in memory: %v\n%s", err, page)
		}
	}
}

// watches is how many watches of NADs there are.
func (s *through) watches() (n int) {
	s.Helper()
	page, err := s.server.Client().CoreV1().RESTClient().Get().AbsPath("/metrics").DoRaw(s.Context())
	must(s.T, err)
	for line := range strings.Lines(string(page)) {
		if strings.HasPrefix(line, "apiserver_longrunning_requests{") &&
			strings.Contains(line, `resource="network-attachment-definitions"`) &&
			strings.Contains(line, `verb="WATCH"`) {
			count, err := strconv.Atoi(strings.TrimSpace(line[strings.LastIndex(line, " "):]))
			must(s.T, err)
			n += count
		}
	}
	return n
}

// metricsPage is what the agent shows to Prometheus.
func metricsPage(ctx context.Context) (string, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet,
		"http://"+throughMetrics+"/metrics", nil)
	if err != nil {
		return "", err
	}
	answer, err := http.DefaultClient.Do(request)
	if err != nil {
		return "", err
	}
	defer answer.Body.Close()
	page, err := io.ReadAll(answer.Body)
	return string(page), err
}

// status is a value of the agent's process, in KiB.
func (s *through) status(key string) int {
	s.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.agent.PID()))
	must(s.T, err)
	found := regexp.MustCompile(`(?m)^` + key + `:\s+(\d+) kB$`).FindSubmatch(status)
	if found == nil {
		s.Fatalf("no %s in\n%s", key, status)
	}
	kib, err := strconv.Atoi(string(found[1]))
	must(s.T, err)
	return kib
}
