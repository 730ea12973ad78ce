package samples_test

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	authorizationv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

var rewrite = flag.Bool("update", false, "write the table of rights into README.md")

// accounts are the columns of the table of rights, as README.md has it.
var accounts = []string{"braid-agent", "braid-cni", "braid-controller", "braid"}

// TestREADMERights: the table of README.md is what an API server that has conf/rbac answers to
// `kubectl auth can-i --list --namespace kube-system` of each account, less what every account may
// do. `go test ./conf -run TestREADMERights -update` writes it.
func TestREADMERights(t *testing.T) {
	a := &nodeAccounts{t: t, api: cluster.Get(t)}
	files, err := os.ReadDir("rbac")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.Name() != "admission.yaml" { // it grants nothing
			a.apply("rbac/" + f.Name())
		}
	}
	rows := map[string]map[string]string{} // verbs by what they are for and by account
	nobody := a.rights("default")
	for _, account := range accounts {
		for what, verbs := range a.rights(account) {
			if nobody[what] != verbs {
				if rows[what] == nil {
					rows[what] = map[string]string{}
				}
				rows[what][account] = verbs
			}
		}
	}
	var b strings.Builder
	fmt.Fprintf(&b, "| | `%s` |\n|%s\n", strings.Join(accounts, "` | `"),
		strings.Repeat("---|", len(accounts)+1))
	for _, what := range slices.Sorted(maps.Keys(rows)) {
		fmt.Fprintf(&b, "| %s |", what)
		for _, account := range accounts {
			fmt.Fprintf(&b, " %s |", rows[what][account])
		}
		b.WriteString("\n")
	}
	const begin, end = "<!-- rights: written by a test -->\n", "<!-- end of rights -->\n"
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(readme), begin)
	got, after, closed := strings.Cut(rest, end)
	if !ok || !closed {
		t.Fatal("README.md has no place for the table")
	}
	if *rewrite {
		err := os.WriteFile("README.md", []byte(before+begin+b.String()+end+after), 0o644)
		if err != nil { //nolint:gosec // for all to read
			t.Fatal(err)
		}
	} else if got != b.String() {
		t.Errorf("README.md has\n%s\nand the API server says\n%s", got, b.String())
	}
}

// rights are the verbs of an account of kube-system, by what they are for.
func (a *nodeAccounts) rights(account string) map[string]string {
	a.t.Helper()
	path, err := a.api.Kubeconfig("system:serviceaccount:kube-system:"+account,
		"system:serviceaccounts")
	if err != nil {
		a.t.Fatal(err)
	}
	client, err := a.api.ClientOf(path)
	if err != nil {
		a.t.Fatal(err)
	}
	ask := &authorizationv1.SelfSubjectRulesReview{
		Spec: authorizationv1.SelfSubjectRulesReviewSpec{Namespace: "kube-system"},
	}
	answer, err := client.AuthorizationV1().SelfSubjectRulesReviews().
		Create(a.t.Context(), ask, metav1.CreateOptions{})
	if err != nil {
		a.t.Fatal(err)
	}
	verbs := map[string][]string{}
	for _, rule := range answer.Status.ResourceRules {
		for _, group := range rule.APIGroups {
			for _, resource := range rule.Resources {
				what := resource
				if group != "" {
					what += "." + group
				}
				if len(rule.ResourceNames) > 0 {
					what += " " + strings.Join(rule.ResourceNames, ", ")
				}
				verbs[what] = append(verbs[what], rule.Verbs...)
			}
		}
	}
	all := map[string]string{}
	for what, list := range verbs {
		slices.Sort(list)
		all[what] = strings.Join(slices.Compact(list), ", ")
	}
	return all
}
