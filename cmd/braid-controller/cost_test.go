package main

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/braid-cni/braid/e2e/lab"
)

// asked is how often the API server has called a webhook.
func (h *hookedAPI) asked(webhook string) (n int) {
	h.t.Helper()
	metrics := string(h.ask(http.MethodGet, "/metrics", "").body)
	line := regexp.MustCompile(`(?m)^apiserver_admission_webhook_request_total\{[^}]*name="` +
		regexp.QuoteMeta(webhook) + `"[^}]*\} (\d+)`)
	for _, m := range line.FindAllStringSubmatch(metrics, -1) {
		count, err := strconv.Atoi(m[1])
		if err != nil {
			h.t.Fatal(err)
		}
		n += count
	}
	return n
}

// TestRequestsOfPods: a pod without networks costs no request of anybody, and one with networks one
// call of the webhook, which answers from what it knows.
func TestRequestsOfPods(t *testing.T) {
	h := newHookedAPI(t, "requests")
	h.start()
	h.nad("data", plainNAD, "pool=data").says(t, "a NAD", 201)
	a, _ := h.pod("first", "data", "") // until the NAD is known it is asked for
	a.says(t, "the first pod", 201)
	const pods = 20
	for networks, want := range map[string]int{"": 0, "data": pods} {
		before := h.asked("pods.admission.braid-cni.io")
		requests, err := h.RequestsDuring(t.Context(),
			"system:serviceaccount:kube-system:braid-controller", func() error {
				for i := range pods {
					a, _ := h.pod(fmt.Sprintf("p%s-%d", networks, i), networks, "")
					a.says(t, "a pod", 201)
				}
				return nil
			})
		if err != nil {
			t.Fatal(err)
		}
		if got := h.asked("pods.admission.braid-cni.io") - before; got != want {
			t.Errorf("%d pods with networks %q: the webhook was called %d times, want %d",
				pods, networks, got, want)
		}
		for _, request := range requests {
			switch request.Resource { // of its other work are secrets, webhooks and a Lease
			case "pods", "nodes", "namespaces", "network-attachment-definitions":
				t.Errorf("pods with networks %q: the controller made the request %+v", networks, request)
			}
		}
	}
}

const (
	manyNADs, manyNodes = 5000, 200
	// mostMemory is in KiB.
	mostMemory = 150 << 10
)

// TestMemoryOfManyObjects: with 5,000 NADs and 200 nodes the controller that is shipped, at work as
// leader and at admission, has less than 150 MiB.
func TestMemoryOfManyObjects(t *testing.T) {
	h := newHookedAPI(t, "many")
	h.unhooked() // it is not measured how the objects are made
	eventually(t, "nobody judges NADs", func() bool {
		a := h.nad("first", manyConfig(0), "pool=data")
		return a.code == http.StatusCreated || a.code == http.StatusConflict
	})
	defer func() {
		h.unhooked()
		h.ask(http.MethodDelete,
			"/apis/k8s.cni.cncf.io/v1/namespaces/many/network-attachment-definitions", "")
		h.ask(http.MethodDelete, "/api/v1/nodes?labelSelector=many=yes", "")
	}()
	h.makeMany()
	h.webhooks()

	dir := t.TempDir()
	err := lab.Build(t.Context(), dir, "github.com/braid-cni/braid/cmd/braid-controller")
	if err != nil {
		t.Fatal(err)
	}
	h.binary = filepath.Join(dir, "braid-controller")
	i := h.start("--interval", "1s", "--adopt-whereabouts")
	most := 0
	for n := range 300 {
		a, _ := h.pod(fmt.Sprint("p", n), fmt.Sprintf("n%d,n%d", n, n+1), "")
		a.says(t, "a pod", 201)
		if n%10 == 0 {
			h.nad(fmt.Sprint("n", n), manyConfig(n)+" ", "pool=data").says(t, "a NAD", 200)
		}
		most = max(most, memory(t, i.Process.Pid, "VmRSS"))
	}
	for range 50 { // passes of the leader
		time.Sleep(100 * time.Millisecond)
		most = max(most, memory(t, i.Process.Pid, "VmRSS"))
	}
	t.Logf("with %d NADs and %d nodes: at most %d KiB, now %d KiB",
		manyNADs, manyNodes, most, memory(t, i.Process.Pid, "VmRSS"))
	if most >= mostMemory {
		t.Errorf("the controller has %d KiB, which is not below %d", most, mostMemory)
	}
}

func manyConfig(n int) string {
	return fmt.Sprintf(`{"cniVersion": "1.0.0", "name": "network-%d", "plugins": [
		{"type": "macvlan", "master": "ens224", "mode": "bridge", "mtu": 9000,
		"ipam": {"type": "whereabouts", "range": "10.%d.%d.0/28", "exclude": ["10.%[2]d.%[3]d.0/30"],
		"routes": [{"dst": "172.31.0.0/16"}], "gateway": "10.%[2]d.%[3]d.14"}},
		{"type": "tuning", "sysctl": {"net.ipv4.conf.IFNAME.arp_filter": "1"}}, {"type": "sbr"}]}`,
		n, n/256, n%256)
}

// makeMany makes the NADs and nodes, each as large as those of clusters.
func (h *hookedAPI) makeMany() {
	h.t.Helper()
	work := make(chan func(), 16)
	var workers sync.WaitGroup
	for range 16 {
		workers.Go(func() {
			for do := range work {
				do()
			}
		})
	}
	for n := range manyNADs {
		work <- func() { h.nad(fmt.Sprint("n", n), manyConfig(n), "pool=data").says(h.t, "a NAD", 201) }
	}
	var images []string
	for n := range 50 { // as many as a kubelet reports
		images = append(images,
			fmt.Sprintf(`{"names": ["registry.example.com/team/project/image-%d@sha256:%064d", `+
				`"registry.example.com/team/project/image-%[1]d:v1.2.3"], "sizeBytes": 12345678}`, n, n))
	}
	for n := range manyNodes {
		work <- func() {
			name := fmt.Sprint("many-", n)
			body := fmt.Sprintf(`{"metadata": {"name": %q, "labels": {"many": "yes", "pool": "data"}, `+
				`"annotations": {"braid-cni.io/node-interfaces": "[%s]"}}}`,
				name, strings.Repeat(" ", 1<<10))
			h.ask(http.MethodPost, "/api/v1/nodes", body).says(h.t, "a node", 201)
			h.ask(http.MethodPatch, "/api/v1/nodes/"+name+"/status",
				`{"status": {"images": [`+strings.Join(images, ",")+`]}}`).says(h.t, "its status", 200)
		}
	}
	close(work)
	workers.Wait()
}

// memory is a value of a process's status, in KiB.
func memory(t *testing.T, pid int, key string) int {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^` + key + `:\s+(\d+) kB$`).FindSubmatch(status)
	if m == nil {
		t.Fatalf("no %s in\n%s", key, status)
	}
	kib, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return kib
}
