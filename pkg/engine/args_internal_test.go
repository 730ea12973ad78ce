package engine

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/braid-cni/braid/pkg/failure"
)

func TestParseArgs(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args string
		want [][2]string
	}{
		{"", nil},
		{";;", nil},
		{"B=2;A=1", [][2]string{{"B", "2"}, {"A", "1"}}},
		{";A=1;;A=2;", [][2]string{{"A", "1"}, {"A", "2"}}},
		{"A=;B=x=y", [][2]string{{"A", ""}, {"B", "x=y"}}},
		{"A=1;K8S_POD_NAME=p", [][2]string{{"IgnoreUnknown", "1"}, {"A", "1"}, {"K8S_POD_NAME", "p"}}},
		{
			"K8S_POD_NAME=p;IgnoreUnknown=false",
			[][2]string{{"K8S_POD_NAME", "p"}, {"IgnoreUnknown", "false"}},
		},
		{"A=" + strings.Repeat("x", maxArgs-2), [][2]string{{"A", strings.Repeat("x", maxArgs-2)}}},
	} {
		got, err := parseArgs(test.args)
		if err != nil {
			t.Errorf("%.40q: %v", test.args, err)
		}
		if diff := cmp.Diff(test.want, got, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%.40q, -want +got:\n%s", test.args, diff)
		}
	}
	for _, args := range []string{
		"A", "=1", "A=1;B", "A=1\nB=2", "A=\x7f", "\x00=1", "A=" + strings.Repeat("x", maxArgs),
	} {
		got, err := parseArgs(args)
		if failure.ReasonOf(err) != failure.InvalidEnvironment ||
			!strings.Contains(err.Error(), "CNI_ARGS") {
			t.Errorf("%.40q: %q, %v", args, got, err)
		}
	}
}

func TestPodOf(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		args, namespace, name string
		invalid               bool
	}{
		{args: ""},
		{args: "A=1;K8S_POD_UID=u"},
		{args: "K8S_POD_NAMESPACE=ns;K8S_POD_NAME=a.b-c", namespace: "ns", name: "a.b-c"},
		{args: "K8S_POD_NAME=p;K8S_POD_NAME=q;K8S_POD_NAMESPACE=ns", namespace: "ns", name: "p"},
		{args: "K8S_POD_NAMESPACE=ns", invalid: true},
		{args: "K8S_POD_NAME=p", invalid: true},
		{args: "K8S_POD_NAMESPACE=a.b;K8S_POD_NAME=p", invalid: true},
		{args: "K8S_POD_NAMESPACE=..;K8S_POD_NAME=p", invalid: true},
		{args: "K8S_POD_NAMESPACE=ns;K8S_POD_NAME=../../etc/passwd", invalid: true},
		{args: "K8S_POD_NAMESPACE=ns;K8S_POD_NAME=P", invalid: true},
		{args: "K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p_q", invalid: true},
		{args: "K8S_POD_NAMESPACE=ns;K8S_POD_NAME=" + strings.Repeat("p", 254), invalid: true},
	} {
		args, err := parseArgs(test.args)
		if err != nil {
			t.Fatal(err)
		}
		namespace, name, err := podOf(args)
		invalid := failure.ReasonOf(err) == failure.InvalidEnvironment
		if invalid != test.invalid || err != nil != test.invalid {
			t.Errorf("%.60q: %v", test.args, err)
		}
		if namespace != test.namespace || name != test.name {
			t.Errorf("%.60q: pod %q of %q", test.args, name, namespace)
		}
	}
}
