package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/braid-cni/braid/pkg/api/ipam/v1alpha1"
	"github.com/braid-cni/braid/pkg/kube/manifests"
	"github.com/braid-cni/braid/pkg/plan"
	"github.com/braid-cni/braid/pkg/record"
)

// evil is a text that sets a terminal's title, clears it, turns the order of characters around, and
// has a line that looks as if it were the command's own.
const evil = "\x1b]0;owned\x07\x1b[2J\u009b31m\x7f\u202e\u2066\u200b\nforged line\r\tx"

// fitForTerminal fails the test if the output has more than printable lines, or one that an object
// has made.
func fitForTerminal(t *testing.T, what, text string) {
	t.Helper()
	if strings.ContainsFunc(text, func(r rune) bool {
		return !strconv.IsPrint(r) && r != '\n' && r != '\t'
	}) {
		t.Errorf("%s prints %q", what, text)
	}
	if strings.HasPrefix(text, "forged") || strings.Contains(text, "\nforged") {
		t.Errorf("%s has a line of an object's: %q", what, text)
	}
}

// hostileFiles are manifests whose every text is evil, as far as it gets.
func hostileFiles(t *testing.T) (dir string) {
	t.Helper()
	nad := func(name, config string) map[string]any {
		return map[string]any{
			"apiVersion": "k8s.cni.cncf.io/v1", "kind": "NetworkAttachmentDefinition",
			"metadata": map[string]any{
				"name": name, "namespace": "x" + evil,
				"annotations": map[string]any{"k8s.v1.cni.cncf.io/resourceName": evil},
			},
			"spec": map[string]any{"config": config},
		}
	}
	text := string(mustJSON(t, evil))
	objects := []any{
		nad("n"+evil, `{"type":`+text+`}`), nad("empty", ""), nad("broken", evil),
		nad("deep", strings.Repeat("[", 100_000)),
	}
	for i, config := range []string{
		`{"cniVersion":T,"type":"macvlan"}`, `{"name":T,"type":"macvlan"}`,
		`{"type":"macvlan","master":T,T:T,"Mode":T}`, `{"type":"fake","delegate":{"type":T}}`,
		`{"type":"macvlan","ipam":{"type":"host-local","subnet":T,"dataDir":T,"resolvConf":T,` +
			`"routes":[{"dst":T,"gw":T}]}}`, `{"type":"macvlan","mode":T}`,
		`{"type":"macvlan","ipam":{"type":"whereabouts","range":T,"log_file":T,"log_level":T,` +
			`"network_name":T}}`, `{"type":"tuning","sysctl":{T:T},"dataDir":T,"mac":T}`,
		`{"type":"macvlan","ipam":{"type":"static","addresses":[{"address":T,"gateway":T}],` +
			`"dns":{"nameservers":[T],"domain":T,"search":[T]}}}`,
		`{"type":"macvlan","capabilities":{T:true,"mac":T}}`,
		`{"plugins":[{"type":"bridge","bridge":T,"vlanTrunk":[{"id":T}],T:1},{"type":"portmap",` +
			`"backend":T}]}`, `{"type":"any","args":{"cni":T}}`,
	} {
		objects = append(objects, nad(fmt.Sprint("n", i), strings.ReplaceAll(config, "T", text)))
	}
	for i, networks := range []string{
		evil, "a@" + evil, evil + "/a", "empty,n0", `[{"name":` + text + `}]`,
		`[{"name":"a",` + text + `:1,"ips":[` + text + `],"mac":` + text + `}]`,
		`[{"name":"a","mac":` + text + `}]`, `[{"name":"a","cni-args":{` + text + `:` + text + `}}]`,
		`[{"name":"a","cni-args":{"ips":[` + text + `]}}]`, `[{"name":"a",` + text + `:1}]`,
	} {
		objects = append(objects, map[string]any{
			"apiVersion": "v1", "kind": "Pod",
			"metadata": map[string]any{
				"name": fmt.Sprint("p", i, evil), "namespace": "x" + evil,
				"annotations": map[string]any{
					"k8s.v1.cni.cncf.io/networks": networks, "v1.multus-cni.io/default-network": evil,
				},
			},
		})
	}
	dir = t.TempDir()
	for i, o := range objects {
		err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("%02d.json", i)), mustJSON(t, o), 0o600)
		if err != nil {
			t.Fatal(err)
		}
	}
	broken := filepath.Join(dir, "evil\x1b[2J\nforged\u202e.yaml")
	if err := os.WriteFile(broken, []byte("{\x1b"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

func mustJSON(t *testing.T, value any) []byte {
	t.Helper()
	data, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestM35Objects: what people wrote into objects does not act on the terminal of who looks at them,
// and adds no line to what is said of them.
func TestM35Objects(t *testing.T) {
	dir := hostileFiles(t)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("HOME", "/nowhere")
	t.Setenv("KUBECONFIG", "")
	calls := [][]string{
		{"lint", dir},
		{"lint", evil},
		{evil},
		{"plan", evil},
		{"ipam", "list", "--manifests", dir + evil},
		{"lint", "-o", evil, dir},
		{"owed", evil},
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		calls = append(calls, []string{"lint", path}, []string{"lint", "-o", "json", path},
			[]string{"plan", path}, []string{"plan", "-o", "json", path})
	}
	said := 0
	for _, args := range calls {
		var out, errs strings.Builder
		run(t.Context(), append([]string{"braidctl"}, args...), &out, &errs)
		said += out.Len() + errs.Len()
		fitForTerminal(t, fmt.Sprintf("%.80q", args), out.String())
		fitForTerminal(t, fmt.Sprintf("%.80q", args), errs.String())
	}
	if said < 10_000 {
		t.Errorf("all calls print %d bytes", said)
	}
}

// TestM35State: nor does what the node and the cluster remember of them.
func TestM35State(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state")
	sandbox, err := record.New(dir).Lock(t.Context(), "c1")
	if err != nil {
		t.Fatal(err)
	}
	err = sandbox.Save(&record.Record{
		Pod: record.Pod{Namespace: evil, Name: evil},
		Attachments: []record.Attachment{{
			Attachment: plan.Attachment{Name: evil, Network: "n", IfName: "net1"}, State: record.Owed,
			Refusal: &record.Refusal{Since: time.Now(), Text: evil},
		}},
	})
	sandbox.Unlock()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range []string{"table", "json"} {
		code, stdout, stderr := call(t, "braidctl owed -o "+o+" --state-dir "+dir)
		if code != exitFound || !strings.Contains(stdout, "owned") {
			t.Errorf("code %d: %s%s", code, stdout, stderr)
		}
		fitForTerminal(t, "owed "+o, stdout+stderr)
	}
	objects := t.TempDir()
	store, err := manifests.New(objects)
	if err != nil {
		t.Fatal(err)
	}
	block := aBlock("evil", "10.35.0.0/28", "", v1alpha1.Allocation{
		Address: "10.35.0.2", Network: "n", ContainerID: "c", IfName: "net1", Pod: evil,
	})
	if _, err := store.CreateBlock(t.Context(), block); err != nil {
		t.Fatal(err)
	}
	for _, o := range []string{"table", "json"} {
		code, stdout, stderr := call(t,
			"braidctl ipam list -o "+o+" --state-dir /none --manifests "+objects)
		if code != exitOK || !strings.Contains(stdout, "owned") {
			t.Errorf("code %d: %s%s", code, stdout, stderr)
		}
		fitForTerminal(t, "ipam list "+o, stdout+stderr)
	}
}
