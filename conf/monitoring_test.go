package samples_test

import (
	"encoding/json"
	"errors"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/braid-cni/braid/pkg/agent/metrics"
	"github.com/braid-cni/braid/pkg/engine"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/policy"
)

// agentMetrics are the series of an agent that has measured everything once, by the names of
// metrics as a query has them, with their labels.
func agentMetrics(t *testing.T) map[string][]string {
	t.Helper()
	m := metrics.New("v1")
	m.Ready(true)
	m.CredentialExpires(time.Unix(1, 0))
	m.Unattached(1)
	m.Drifted("renamed")
	m.Reconciled()
	m.Fallbacks("refused", 1)
	m.Accepted()
	m.Queue(1, 1)
	m.Owed(1)
	m.Synced("pods", true)
	m.Waiting("events", func() int { return 1 })
	m.Addresses(map[string]metrics.Space{"10.0.0.0/24": {Blocks: 1, Free: 2}})
	m.Room(map[string]uint64{"default/a": 2})
	m.Violations(func() map[engine.Violation]uint64 {
		return map[engine.Violation]uint64{{Key: "types", Effect: policy.Audit}: 1}
	})
	o := m.Observer(metrics.ModeAgent)
	for _, verb := range []engine.Verb{engine.Add, engine.Update} {
		o.Operation(t.Context(), engine.Operation{
			Verb: verb, Duration: time.Second, Err: errors.New("no luck"),
		})
		o.Attachment(t.Context(), engine.Attachment{
			Operation: engine.Operation{Verb: verb}, Planned: &plan.Attachment{},
			Plugins: []string{"bridge"},
		})
	}
	families, err := m.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	labels := map[string][]string{}
	for _, f := range families {
		var names []string
		for _, l := range f.GetMetric()[0].GetLabel() {
			names = append(names, l.GetName())
		}
		for _, suffix := range []string{"", "_count", "_sum", "_bucket"} {
			if (suffix == "") == (f.GetMetric()[0].GetHistogram() == nil) {
				labels[f.GetName()+suffix] = names
			}
		}
	}
	return labels
}

// used are the labels that a query groups or chooses by.
func used(query string) (labels []string) {
	for _, m := range regexp.MustCompile(`by \(([^)]*)\)|\{([^}]*)\}`).
		FindAllStringSubmatch(query, -1) {
		for part := range strings.SplitSeq(m[1]+m[2], ",") {
			name := regexp.MustCompile(`^\s*[a-z_]+`).FindString(part)
			name = strings.TrimSpace(name)
			if name != "" && !slices.Contains([]string{"le", "instance", "job"}, name) {
				labels = append(labels, name)
			}
		}
	}
	return labels
}

// holdsQuery fails the test unless each metric of a query is an agent's, with the query's labels.
func holdsQuery(t *testing.T, what, query string, real map[string][]string, seen map[string]bool) {
	t.Helper()
	names := regexp.MustCompile(`\b(braid|go|process)_[a-z_]+`).FindAllString(query, -1)
	if len(names) == 0 {
		t.Errorf("%s: there is no metric of Braid in %s", what, query)
	}
	for _, name := range names {
		has, ok := real[name]
		if !ok {
			t.Errorf("%s: there is no metric %s", what, name)
			continue
		}
		seen[name] = true
		for _, label := range used(query) {
			if !slices.Contains(has, label) {
				t.Errorf("%s: %s has no label %s", what, name, label)
			}
		}
	}
}

// TestDashboard: each query of the dashboard, and what its legend names, is of metrics that an
// agent has. All metrics of Braid are on it.
func TestDashboard(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("monitoring/dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var dashboard struct {
		Panels []struct {
			Title   string
			GridPos struct{ X, Y, W, H int }
			Targets []struct{ Expr, LegendFormat string }
		}
	}
	if err := json.Unmarshal(raw, &dashboard); err != nil {
		t.Fatal(err)
	}
	metrics, seen, places := agentMetrics(t), map[string]bool{}, map[[2]int]string{}
	for _, p := range dashboard.Panels {
		at := [2]int{p.GridPos.X, p.GridPos.Y}
		if len(p.Targets) == 0 || places[at] != "" || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %q has %d queries, and is where %q is", p.Title, len(p.Targets), places[at])
		}
		places[at] = p.Title
		for _, target := range p.Targets {
			holdsQuery(t, p.Title, target.Expr, metrics, seen)
			for _, m := range regexp.MustCompile(`\{\{(\w+)\}\}`).
				FindAllStringSubmatch(target.LegendFormat, -1) {
				if !slices.Contains(used(target.Expr), m[1]) {
					t.Errorf("%s: the legend names %s, which the query does not group by", p.Title, m[1])
				}
			}
		}
	}
	for name := range metrics {
		base := strings.TrimSuffix(strings.TrimSuffix(strings.TrimSuffix(name, "_sum"), "_count"),
			"_bucket")
		if strings.HasPrefix(name, "braid_") && !seen[name] && !seen[base+"_bucket"] &&
			!seen[base+"_count"] {
			t.Errorf("metric %s is not on the dashboard", name)
		}
	}
}

// TestAlerts: each alert is of metrics that an agent has, and says what to do.
func TestAlerts(t *testing.T) {
	t.Parallel()
	raw, err := os.ReadFile("monitoring/alerts.yaml")
	if err != nil {
		t.Fatal(err)
	}
	var object struct {
		Spec struct {
			Groups []struct {
				Rules []struct {
					Alert, Expr, For    string
					Labels, Annotations map[string]string
				}
			}
		}
	}
	if err := yaml.Unmarshal(raw, &object); err != nil {
		t.Fatal(err)
	}
	metrics := agentMetrics(t)
	for _, rule := range object.Spec.Groups[0].Rules {
		holdsQuery(t, rule.Alert, rule.Expr, metrics, map[string]bool{})
		if !slices.Contains([]string{"warning", "critical"}, rule.Labels["severity"]) ||
			rule.Annotations["summary"] == "" || rule.Annotations["description"] == "" {
			t.Errorf("%s: labels %v, annotations %v", rule.Alert, rule.Labels, rule.Annotations)
		}
	}
}
