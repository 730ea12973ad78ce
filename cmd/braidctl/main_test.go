package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/braid-cni/braid/e2e/lab"
	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	"github.com/braid-cni/braid/pkg/attachment"
	"github.com/braid-cni/braid/pkg/ipam/alloc"
	"github.com/braid-cni/braid/pkg/ipam/block"
	"github.com/braid-cni/braid/pkg/kube"
	"github.com/braid-cni/braid/pkg/kube/manifests"
	"github.com/braid-cni/braid/pkg/nodeid"
	"github.com/braid-cni/braid/pkg/reap"
)

var cluster = lab.NewShared(lab.NewAPI)

func TestMain(m *testing.M) { os.Exit(cluster.Main(m)) }

// call runs a command line; without a kubeconfig of the machine that it runs on.
func call(t *testing.T, line string) (code int, stdout, stderr string) {
	t.Helper()
	t.Setenv("HOME", "/nowhere")
	t.Setenv("KUBECONFIG", "")
	var out, errs bytes.Buffer
	code = run(t.Context(), strings.Fields(line), &out, &errs)
	return code, out.String(), errs.String()
}

// squeeze makes one blank of several, and lines of a text.
func squeeze(text string) (lines []string) {
	for line := range strings.Lines(text) {
		lines = append(lines, strings.Join(strings.Fields(line), " "))
	}
	return lines
}

func TestHelp(t *testing.T) {
	for line, want := range map[string]struct {
		code int
		says []string
	}{
		"braidctl": {
			2,
			[]string{"usage: braidctl COMMAND", "lint", "ipam list", "ipam tend", "ipam audit"},
		},
		"/bin/kubectl-braid help": {0, []string{"usage: kubectl braid COMMAND"}},
		"braidctl ipam --help":    {0, []string{"ipam list"}},
		"braidctl ipam":           {2, []string{`"ipam" is no command`}},
		"braidctl ipam erase":     {2, []string{`"ipam erase" is no command`}},
		"braidctl --version":      {0, []string{"braidctl devel"}},
		"braidctl ipam list --help": {
			0,
			[]string{"usage: braidctl ipam list [flags]", "-manifests", "-o format"},
		},
		"kubectl-braid ipam audit -h": {
			0,
			[]string{"usage: kubectl braid ipam audit", "Exits with 0", "orphan"},
		},
		"braidctl ipam list -o yaml":  {2, []string{`"yaml" for flag -o`}},
		"braidctl ipam list --colour": {2, []string{"-colour"}},
		"braidctl ipam list all":      {2, []string{`"all"`}},
		"braidctl lint":               {2, []string{"name files, or -A"}},
		"braidctl lint -A x.yaml":     {2, []string{"name files, or -A"}},
		"braidctl lint --help": {
			0,
			[]string{"usage: braidctl lint FILE...|-A [flags]", "object: field: what: remedy"},
		},
		"braidctl lint /no/x.yaml": {2, []string{"/no/x.yaml"}},
		"braidctl plan":            {2, []string{"name a pod, or files"}},
		"braidctl plan --help": {0, []string{
			"usage: braidctl plan POD...|FILE... [flags]", "object: field: what: remedy", "-plugin-dir",
			"-n namespace",
		}},
		"braidctl plan /no/x.yaml":              {2, []string{"/no/x.yaml"}},
		"braidctl ipam list --manifests /none":  {2, []string{"/none"}},
		"braidctl ipam audit --kubeconfig /no":  {2, []string{"/no"}},
		"braidctl ipam list --kubeconfig /no/x": {2, []string{"/no/x"}},
	} {
		code, stdout, stderr := call(t, line)
		if code != want.code {
			t.Errorf("%s: exit code %d, want %d", line, code, want.code)
		}
		for _, text := range want.says {
			if !strings.Contains(stdout+stderr, text) {
				t.Errorf("%s: does not say %q:\n%s%s", line, text, stdout, stderr)
			}
		}
	}
}

func aBlock(space, cidr, node string, list ...v1alpha1.Allocation) *v1alpha1.IPBlock {
	b := &v1alpha1.IPBlock{
		ObjectMeta: metav1.ObjectMeta{
			Name: space + "-" + strings.NewReplacer(".", "-", "/", "-").Replace(cidr),
		},
		Spec: v1alpha1.IPBlockSpec{Space: space, CIDR: cidr, Allocations: list},
	}
	if node != "" {
		b.Spec.Owner = &v1alpha1.Node{NodeName: node, NodeUID: "u"}
	}
	return b
}

// examples are a block of each kind, as a store has them.
func examples(t *testing.T, store block.Store) {
	t.Helper()
	for _, b := range []*v1alpha1.IPBlock{
		aBlock("blue", "10.0.1.0/28", "node-2"), aBlock("blue", "10.0.0.0/28", "node-1"),
		aBlock("default", "10.0.0.16/28", "",
			v1alpha1.Allocation{
				Address: "10.0.0.30", Network: "n", ContainerID: "c", IfName: "net1", Pod: "default/p",
				Node: &v1alpha1.Node{NodeName: "node-1", NodeUID: "u"},
			},
			v1alpha1.Allocation{
				Address: "10.0.0.18", Claim: &v1alpha1.Claim{Namespace: "default", Name: "c", UID: "u"},
			},
			v1alpha1.Allocation{
				Address: "10.0.0.19", Network: reap.Network, ContainerID: "c", IfName: "net1", Pod: "default/w",
			}),
	} {
		made, err := store.CreateBlock(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		if b.Name == "blue-10-0-1-0-28" {
			made.Spec.Recall = &v1alpha1.Recall{By: "node-1", At: metav1.Now()}
			made.Status = v1alpha1.IPBlockStatus{Used: 3, Free: 13}
			if _, err := store.UpdateBlock(t.Context(), made); err != nil {
				t.Fatal(err)
			}
			if err := store.UpdateBlockStatus(t.Context(), made); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func testList(t *testing.T, flags string) {
	table := []string{
		"SPACE BLOCK OWNER USED FREE ADDRESS POD",
		"blue 10.0.0.0/28 node-1 - - - -",
		"blue 10.0.1.0/28 node-2 (recalled by node-1) 3 13 - -",
		"default 10.0.0.16/28 <shared> 3 13 10.0.0.18 IPAMClaim default/c",
		"default 10.0.0.16/28 <shared> 3 13 10.0.0.19 default/w (recorded by whereabouts)",
		"default 10.0.0.16/28 <shared> 3 13 10.0.0.30 default/p",
	}
	for more, want := range map[string][]string{
		"": table, "--space=default": {table[0], table[3], table[4], table[5]},
		"--node=node-1": table[:2], "--space=none": table[:1],
	} {
		code, stdout, stderr := call(t, "braidctl ipam list "+flags+" "+more)
		if diff := cmp.Diff(want, squeeze(stdout)); diff != "" || code != 0 || stderr != "" {
			t.Errorf("%q: exit code %d, %s (-want +got):\n%s", more, code, stderr, diff)
		}
	}
	var got []listed
	code, stdout, _ := call(t, "braidctl ipam list -o json "+flags)
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || code != 0 {
		t.Fatalf("exit code %d, %v: %s", code, err, stdout)
	}
	if len(got) != 3 || got[1].Owner != "node-2" || got[1].RecalledBy != "node-1" ||
		got[1].Used != 3 || len(got[2].Addresses) != 3 || got[2].Owner != "" {
		t.Errorf("JSON is %s", stdout)
	}
	_, stdout, _ = call(t, "braidctl ipam list -o json --space=none "+flags)
	if strings.TrimSpace(stdout) != "[]" {
		t.Errorf("JSON of nothing is %s", stdout)
	}
}

func TestListManifests(t *testing.T) {
	dir := t.TempDir()
	store, err := manifests.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	examples(t, store)
	testList(t, "--manifests "+dir)
	err = os.WriteFile(filepath.Join(dir, "ipblocks", "blue-10-0-2-0-28.json"), []byte("{"), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr := call(t, "braidctl ipam list --manifests "+dir)
	if code != 2 || stdout != "" || !strings.Contains(stderr, "blue-10-0-2-0-28.json") {
		t.Errorf("a broken block: %d, %s, %s", code, stdout, stderr)
	}
}

// On the node that owns a block, its own state says what is in use.
func TestListOnTheNode(t *testing.T) {
	dir, state := t.TempDir(), t.TempDir()
	store, err := manifests.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	w, err := alloc.NewWindow(netip.MustParsePrefix("10.0.3.0/24"), netip.Addr{}, netip.Addr{},
		nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	m := &block.Manager{
		Store: store, Nodes: store, Dir: filepath.Join(state, "ipam"), NodeName: "node-1",
		Log:  slog.New(slog.DiscardHandler),
		Boot: func() (string, error) { return "boot", nil },
	}
	for _, pod := range []string{"a", "b"} {
		h := block.Holder{
			ID:  attachment.ID{Network: "net", ContainerID: "c-" + pod, IfName: "net1"},
			Pod: "default/" + pod,
		}
		if _, err := m.Add(t.Context(), h, []block.Wish{{Space: "blue", Window: w}}, nil); err != nil {
			t.Fatal(err)
		}
	}
	code, stdout, stderr := call(t, "braidctl ipam list --manifests "+dir+" --state-dir "+state)
	want := []string{
		"SPACE BLOCK OWNER USED FREE ADDRESS POD",
		"blue 10.0.3.0/28 node-1 2 14 10.0.3.1 default/a",
		"blue 10.0.3.0/28 node-1 2 14 10.0.3.2 default/b",
	}
	if diff := cmp.Diff(want, squeeze(stdout)); diff != "" || code != 0 {
		t.Errorf("exit code %d, %s (-want +got):\n%s", code, stderr, diff)
	}
}

const whereaboutsCRD = `
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: ippools.whereabouts.cni.cncf.io}
spec:
  group: whereabouts.cni.cncf.io
  scope: Namespaced
  names: {kind: IPPool, listKind: IPPoolList, plural: ippools, singular: ippool}
  versions:
  - {name: v1alpha1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, x-kubernetes-preserve-unknown-fields: true}}}
`

func TestServer(t *testing.T) {
	server := cluster.Get(t)
	apply := func(text string) {
		t.Helper()
		if err := server.Apply(t.Context(), text); err != nil {
			t.Fatal(err)
		}
	}
	config, err := server.Kubeconfig(lab.UserAdmin)
	if err != nil {
		t.Fatal(err)
	}
	flags := "--kubeconfig " + config
	code, _, stderr := call(t, "braidctl ipam list "+flags)
	if code != 2 || !strings.Contains(stderr, "conf/crd") {
		t.Errorf("without the CRD: %d, %s", code, stderr)
	}
	crd, err := os.ReadFile("../../conf/crd/ipblocks.yaml")
	if err != nil {
		t.Fatal(err)
	}
	apply(string(crd))
	code, stdout, stderr := call(t, "braidctl ipam audit "+flags)
	if code != 0 || len(squeeze(stdout)) != 1 {
		t.Errorf("without whereabouts: %d, %s, %s", code, stdout, stderr)
	}
	api, err := kube.NewAPI(kube.APIOptions{Kubeconfig: config})
	if err != nil {
		t.Fatal(err)
	}
	defer api.Close()
	examples(t, api)
	testList(t, flags)

	apply(whereaboutsCRD)
	apply(`{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"}, ` +
		`"spec": {"containers": [{"name": "c", "image": "none"}]}}`)
	pool := func(allocations string) {
		apply(fmt.Sprintf(`{"apiVersion": "whereabouts.cni.cncf.io/v1alpha1", "kind": "IPPool", "metadata": {"name": "red-10.9.0.0-24", "namespace": "default"},
			"spec": {"range": "10.9.0.0/24", "allocations": {%s}}}`, allocations))
	}
	pool(`"1": {"id": "c1", "podref": "default/p", "ifname": "net1"}`)
	table := []string{
		"STATE NETWORK ADDRESS POD RECORD DETAIL",
		"ok red 10.9.0.1 default/p IPPool default/red-10.9.0.0-24 -",
	}
	code, stdout, _ = call(t, "braidctl ipam audit "+flags)
	if code != 0 || !cmp.Equal(table, squeeze(stdout)) {
		t.Errorf("all well: %d, %s", code, stdout)
	}
	pool(`"1": {"id": "c1", "podref": "default/p", "ifname": "net1"}, "2": {"id": "c2", ` +
		`"podref": "default/gone", "ifname": "net1"}`)
	table = append(table, "orphan red 10.9.0.2 default/gone IPPool default/red-10.9.0.0-24 the pod "+
		"is gone")
	code, stdout, _ = call(t, "braidctl ipam audit "+flags)
	if code != 1 || !cmp.Equal(table, squeeze(stdout)) {
		t.Errorf("an orphan: %d, %s", code, stdout)
	}
	var got []reap.Entry
	code, stdout, _ = call(t, "braidctl ipam audit --wrong -o json "+flags)
	err = json.Unmarshal([]byte(stdout), &got)
	if err != nil || code != 1 || len(got) != 1 || got[0].State != reap.Orphan {
		t.Errorf("what is wrong: %d, %v, %s", code, err, stdout)
	}
}

// TestR26TimerSharesABlock: a node without traffic shares its block when another node has asked for
// it.
func TestR26TimerSharesABlock(t *testing.T) {
	dir, state := t.TempDir(), t.TempDir()
	store, err := manifests.New(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"n1", "n2"} {
		node := `{"apiVersion":"v1","kind":"Node","metadata":{"name":"` + name + `"}}`
		if err := os.WriteFile(filepath.Join(dir, name+".json"), []byte(node), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w, err := alloc.NewWindow(netip.MustParsePrefix("10.0.0.0/16"), netip.MustParseAddr("10.0.0.0"),
		netip.MustParseAddr("10.0.0.63"), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	manager := func(name, dir string) *block.Manager {
		return &block.Manager{
			Store: store, Nodes: store, Dir: filepath.Join(dir, "ipam"), NodeName: name,
			Boot: nodeid.Boot(dir), Log: slog.New(slog.DiscardHandler), Patience: 1,
		}
	}
	owner, other := manager("n1", state), manager("n2", t.TempDir())
	holder := func(i int) block.Holder {
		return block.Holder{
			ID: attachment.ID{Network: "net", ContainerID: fmt.Sprint("c", i), IfName: "net1"},
		}
	}
	for i := range 4*block.Size - 1 { // all but that of the network
		_, err := owner.Add(t.Context(), holder(i),
			[]block.Wish{{Space: block.SpaceOf("", ""), Window: w}}, nil)
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := owner.Del(t.Context(), holder(5).ID); err != nil {
		t.Fatal(err)
	}
	line := "braidctl ipam tend --node-name n1 --state-dir " + state + " --manifests " + dir
	add := func() error {
		_, err := other.Add(t.Context(), holder(-1),
			[]block.Wish{{Space: block.SpaceOf("", ""), Window: w}}, nil)
		return err
	}
	for range 4 { // it may first ask for a block in which nothing is free
		if err = add(); err == nil {
			break
		}
		if code, out, errs := call(t, line); code != 0 || out != "" {
			t.Fatalf("code %d: %s%s", code, out, errs)
		}
	}
	if err != nil {
		t.Error(err)
	}
	code, _, errs := call(t, strings.Replace(line, dir, dir+"/none", 1))
	if code != 2 || !strings.Contains(errs, "ipam tend") {
		t.Errorf("code %d without manifests: %s", code, errs)
	}
}
