package metrics_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/braid-cni/braid/pkg/agent/metrics"
	"github.com/braid-cni/braid/pkg/engine"
	"github.com/braid-cni/braid/pkg/policy"
)

func TestServe(t *testing.T) {
	t.Parallel()
	m := metrics.New("v1")
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- m.Serve(ctx, listener) }()
	page := func() string {
		t.Helper()
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet,
			"http://"+listener.Addr().String()+"/metrics", nil)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		text, err := io.ReadAll(answer.Body)
		if err != nil || answer.StatusCode != http.StatusOK {
			t.Fatalf("%s, %v", answer.Status, err)
		}
		return string(text)
	}
	has := func(text string, lines ...string) {
		t.Helper()
		for _, line := range lines {
			if !strings.Contains(text, line+"\n") {
				t.Errorf("%q is not in\n%s", line, text)
			}
		}
	}
	has(page(), `braid_build_info{version="v1"} 1`, "braid_node_ready 0",
		"braid_credential_expiry_timestamp_seconds 0", "braid_unattached_pods 0")
	m.Ready(true)
	m.CredentialExpires(time.Unix(1234, 0))
	m.Unattached(2)
	m.Drifted("renamed")
	m.Drifted("renamed")
	has(page(), "braid_node_ready 1", "braid_credential_expiry_timestamp_seconds 1234",
		"braid_unattached_pods 2", `braid_installation_drifts_total{cause="renamed"} 2`)
	m.Accepted()
	m.Refused()
	m.Refused()
	m.Queue(3, 2)
	m.Fallbacks("slow", 2)
	m.Fallbacks("slow", 1)
	has(page(), `braid_calls_total{result="accepted"} 1`, `braid_calls_total{result="refused"} 2`,
		"braid_calls_waiting 3", "braid_calls_working 2", `braid_fallbacks_total{reason="slow"} 3`)
	m.Violations(func() map[engine.Violation]uint64 {
		return map[engine.Violation]uint64{
			{Key: "masters", Effect: policy.Audit}: 3, {Key: engine.NodeKey, Effect: policy.Enforce}: 1,
			{Key: "no such key", Effect: policy.Audit}: 9,
		}
	})
	text := page()
	has(text, `braid_policy_violations_total{effect="audit",key="masters"} 3`,
		`braid_policy_violations_total{effect="enforce",key="node"} 1`)
	if strings.Contains(text, "no such key") {
		t.Errorf("a key that no rule has is shown:\n%s", text)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
