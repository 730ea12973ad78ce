package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/braid-cni/braid/e2e/corpus"
)

// files writes files to a directory of the test's own.
func files(t *testing.T, texts map[string]string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	for name, text := range texts {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o700); err != nil { //nolint:gosec // some are plugins
			t.Fatal(err)
		}
	}
	return dir
}

// plans are those that the command prints.
func plans(t *testing.T, stdout string) (all []planned) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(stdout))
	d.DisallowUnknownFields()
	if err := d.Decode(&all); err != nil {
		t.Fatalf("%v: %s", err, stdout)
	}
	return all
}

// inShort are the plans' pods, each with its interfaces and what was found.
func inShort(all []planned) (short []string) {
	for _, p := range all {
		text := p.Kind + " " + p.Namespace + "/" + p.Name + ":"
		for _, a := range p.Attachments {
			text += " " + a.Interface
			if a.NAD != "" {
				text += "=" + a.NAD
			}
		}
		for _, f := range p.Findings {
			text += fmt.Sprint(" ", f.Verdict, " ", f.Reason)
		}
		short = append(short, text)
	}
	return short
}

func TestPlanFiles(t *testing.T) {
	file := filepath.Join(files(t, map[string]string{"objects.yaml": lintObjects}), "objects.yaml")
	code, stdout, stderr := call(t, "braidctl plan "+file+" -o json")
	want := []string{
		"Pod lint/fine: eth0 net1=lint/good warning PolicyAudited",
		"Pod lint/warned: eth0 net1=lint/good warning PolicyAudited warning IgnoredKey",
		"Pod lint/follows: refused NADInvalid",
		"Pod lint/lost: warning NotChecked",
		"Deployment lint/many: refused NADForbidden",
	}
	if diff := cmp.Diff(want, inShort(plans(t, stdout))); diff != "" || code != exitFound {
		t.Errorf("exit code %d, %s (-want +got):\n%s", code, stderr, diff)
	}
	code, _, stderr = call(t, "braidctl plan "+file+"/none.yaml")
	if code != exitFailed || !strings.Contains(stderr, "none.yaml") {
		t.Errorf("a file that there is not: exit code %d, %s", code, stderr)
	}
}

// Of files without pods, one is shown that names the NAD.
func TestPlanNADs(t *testing.T) {
	nads, _, _ := strings.Cut(lintObjects, "apiVersion: v1\n")
	dir := files(t, map[string]string{"nads.yaml": nads})
	code, stdout, _ := call(t, "braidctl plan "+dir+" -o json")
	want := []string{
		"Pod lint/any: eth0 net1=lint/good warning PolicyAudited", "Pod lint/any: refused NADInvalid",
		"Pod lint/any: eth0 net1=lint/on-disk warning PolicyAudited",
		"Pod lint/any: eth0 net1=lint/unscheduled warning PolicyAudited",
	}
	if diff := cmp.Diff(want, inShort(plans(t, stdout))); diff != "" || code != exitFound {
		t.Errorf("exit code %d (-want +got):\n%s", code, diff)
	}
}

// planNode is a node's configuration, its plugins, and a pod with networks of many kinds.
func planNode(t *testing.T) (dir string) {
	t.Helper()
	nad := func(name, config string) string {
		return "apiVersion: k8s.cni.cncf.io/v1\nkind: NetworkAttachmentDefinition\nmetadata: {name: " +
			name + ", namespace: web, annotations: {" +
			map[bool]string{
				true: "k8s.v1.cni.cncf.io/resourceName: v/nic",
			}[name == "nic"] + "}}\nspec: {config: '" + config + "'}\n---\n"
	}
	pod := `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"p","namespace":"web",` +
		`"annotations":{"k8s.v1.cni.cncf.io/networks":%q}}}`
	networks := `[{"name":"lan","ips":["10.1.0.7/24"],"mac":"02:00:00:00:00:07"},{"name":"own","interface":"own0","default-route":["192.0.2.1"]},
		{"name":"nic"},{"name":"disk"}]`
	dir = files(t, map[string]string{
		"bin/own": "#!/bin/sh\nexit 1\n", "bin/sriov": "#!/bin/sh\nexit 1\n",
		"net/pods.conf": `{"cniVersion":"1.0.0","name":"pods","type":"bridge",` +
			`"ipam":{"type":"host-local","ranges":[[{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.9"}]]}}`,
		"net/disk.conf": `{"cniVersion":"1.0.0","name":"disk","type":"macvlan","master":"eth1"}`,
		"objects/all.yaml": nad("lan", `{"cniVersion":"0.4.0","name":"wire","plugins":[{"type":"macvlan","capabilities":{"ips":true,"mac":true},
			"ipam":{"type":"static","routes":[{"dst":"0.0.0.0/0"},{"dst":"10.2.0.0/16","gw":"10.1.0.1"}]}},{"type":"tuning"}]}`) +
			nad("own", `{"cniVersion":"1.0.0","plugins":[{"type":"own","ipam":{"type":"dhcp"}},`+
				`{"type":"tuning"}]}`) + nad("nic", `{"cniVersion":"1.0.0","type":"sriov"}`) + nad("disk", ""),
		"objects/pod.json": fmt.Sprintf(pod, networks),
		"objects/gone/gone.yaml": nad("gone", `{"cniVersion":"1.0.0","plugins":[{"type":"bridge","ipam":{"type":"host-local","subnet":"10.0.0.0/24"}},
			{"type":"gone"},{"type":"tuning"}]}`),
	})
	config := fmt.Sprintf(`{"cniVersion":"1.0.0","name":"braid","type":"braid","clusterNetwork":"%[1]s/net/pods.conf","confDir":"%[1]s/net","binDir":"%[1]s/bin",
		"braid":{"policy":[{"namespaces":["web"],"all":true}]}}`, dir)
	if err := os.WriteFile(filepath.Join(dir, "braid.conf"), []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// On the node its networks and plugins are known, and what a pod gets is known but for what only an
// ADD finds out.
func TestPlanOnTheNode(t *testing.T) {
	dir := planNode(t)
	code, stdout, stderr := call(t, "braidctl plan "+dir+"/objects --config "+dir+"/braid.conf")
	text := strings.ReplaceAll(stdout, dir, "DIR")
	_, findings, _ := strings.Cut(text, "\npod ")
	want := `pod web/p (DIR/objects/pod.json)
  eth0: default network, network pods, CNI 1.0.0
    plugin bridge: in-process
    ipam host-local: in-process, 10.0.0.0/24 (from 10.0.0.9)
    addresses: unknown until the node attaches it
    default route: this network's, IPv6
  net1: NAD web/lan, network wire, CNI 0.4.0
    plugin macvlan: in-process
    ipam static: in-process
    plugin tuning: in-process
    addresses: 10.1.0.7/24, asked for
    mac: 02:00:00:00:00:07, asked for
    route: 10.2.0.0/16 via 10.1.0.1
    default route: left out, IPv4
  own0: NAD web/own, network own, CNI 1.0.0
    plugin own: DIR/bin/own
    ipam dhcp: run by the plugin itself
    plugin tuning: in-process
    addresses: unknown until the node attaches it
    default route: asked for, IPv4, via 192.0.2.1
  net3: NAD web/nic, network nic, CNI 1.0.0
    plugin sriov: DIR/bin/sriov
    addresses: unknown until the node attaches it
    device: of v/nic; which one, if any, the kubelet knows
  net4: NAD web/disk, network disk, CNI 1.0.0
    plugin macvlan: in-process
`
	diff := cmp.Diff(want, strings.TrimSuffix(text, "pod "+findings))
	if diff != "" || code != exitOK {
		t.Errorf("exit code %d, %s (-want +got):\n%s", code, stderr, diff)
	}
	if !strings.HasPrefix(findings,
		"web/p (DIR/objects/pod.json) network web/lan: plugins[0].ipam.routes[0]: warning: ") ||
		strings.Count(findings, "\n") != 1 {
		t.Errorf("found: %s", findings)
	}
}

// A plugin that is not installed is where it was looked for, and the rest of the chain is shown.
func TestPlanNotInstalled(t *testing.T) {
	dir := planNode(t)
	file, config := dir+"/objects/gone", " --config "+dir+"/braid.conf"
	for flags, want := range map[string]runner{
		config:                       {Type: "gone", Runs: notFound, Searched: []string{dir + "/bin"}},
		" --plugin-dir " + dir:       {Type: "gone", Runs: notFound, Searched: []string{dir}},
		" --plugin-dir /no" + config: {Type: "gone", Runs: notFound, Searched: []string{"/no"}},
		"":                           {Type: "gone", Runs: aBinary},
	} {
		code, stdout, stderr := call(t, "braidctl plan -o json "+file+flags)
		all := plans(t, stdout)
		chain := all[0].Attachments[1].Plugins
		if len(chain) != 3 || chain[0].IPAM.Runs != inProcess || chain[2].Runs != inProcess {
			t.Fatalf("%s: chain %+v", flags, chain)
		}
		diff := cmp.Diff(want, chain[1])
		if diff != "" || (code == exitFound) != (want.Runs == notFound) {
			t.Errorf("%s: exit code %d, %s (-want +got):\n%s", flags, code, stderr, diff)
		}
		short := inShort(all)[0]
		if (want.Runs == notFound) != strings.Contains(short, " refused PluginNotFound") {
			t.Errorf("%s: %s", flags, short)
		}
	}
}

// The default route goes where an ADD has it, by the node's policy.
func TestPlanDefaultRoute(t *testing.T) {
	const objects = `
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: a, namespace: web}
spec: {config: '{"cniVersion":"1.0.0","type":"bridge","ipam":{"type":"host-local","subnet":"10.0.0.0/24","routes":[{"dst":"0.0.0.0/0"}]}}'}
---
apiVersion: v1
kind: Pod
metadata: {name: p, namespace: web, annotations: {k8s.v1.cni.cncf.io/networks: '%s'}}
`
	for _, test := range []struct{ policy, networks, own, second, finding string }{
		{"keep", "a", "own IPv4 IPv6", "leftOut IPv4", "DefaultRouteKept"},
		{"take", "a", "own IPv6", "taken IPv4", "DefaultRouteTaken"},
		{"refuse", "a", "", "", "DefaultRouteRefused"},
		{"refuse", `[{"name":"a","default-route":[]}]`, "none", "asked IPv4 IPv6", ""},
		{"keep", `[{"name":"a","default-route":["10.0.0.1"]}]`, "own IPv6", "asked IPv4 10.0.0.1", ""},
	} {
		dir := files(t, map[string]string{
			"objects.yaml": fmt.Sprintf(objects, test.networks),
			"braid.conf": `{"cniVersion":"1.0.0","name":"b","type":"braid","delegates":[{"type":"x"}],` +
				`"binDir":"/no","braid":{"secondaryDefaultRoute":"` + test.policy + `"}}`,
		})
		_, stdout, stderr := call(t,
			"braidctl plan -o json "+dir+"/objects.yaml --config "+dir+"/braid.conf")
		if stderr != "" {
			t.Fatal(stderr)
		}
		p := plans(t, stdout)[0]
		var states []string
		for _, a := range p.Attachments {
			text := strings.Join(append([]string{a.DefaultRoute.State}, a.DefaultRoute.Families...), " ")
			for _, gw := range a.DefaultRoute.Gateways {
				text += " " + gw.String()
			}
			states = append(states, text)
		}
		var want []string
		if test.own != "" {
			want = []string{test.own, test.second}
		}
		if diff := cmp.Diff(want, states); diff != "" {
			t.Errorf("%s %s (-want +got):\n%s", test.policy, test.networks, diff)
		}
		if test.finding == "" != (len(p.Findings) == 0) ||
			len(p.Findings) > 0 && string(p.Findings[0].Reason) != test.finding {
			t.Errorf("%s %s: found %v", test.policy, test.networks, p.Findings)
		}
	}
}

// judgements are verdicts and reasons, each once.
func judgements(all ...[]string) []string {
	words := slices.Concat(all...)
	slices.Sort(words)
	return slices.Compact(words)
}

// lint and plan say the same of what users have.
func TestPlanCorpus(t *testing.T) {
	all, err := corpus.All()
	if err != nil {
		t.Fatal(err)
	}
	texts := map[string]string{}
	for _, f := range all {
		texts[f.Name+".yaml"] = string(f.Text)
	}
	dir := files(t, texts)
	for _, f := range all {
		for _, flags := range []string{"", " --plugin-dir /no"} {
			line := " -o json " + dir + "/" + f.Name + ".yaml" + flags
			lintCode, found, _ := call(t, "braidctl lint"+line)
			code, stdout, stderr := call(t, "braidctl plan"+line)
			var want, got []string
			for _, v := range verdicts(t, found) {
				words := strings.Fields(v)
				if words[0] == "NetworkAttachmentDefinition" || words[2] == "warning" {
					want = append(want, words[2]+" "+words[3])
				}
			}
			shown := plans(t, stdout)
			for _, p := range shown {
				for _, finding := range p.Findings {
					got = append(got, fmt.Sprint(finding.Verdict, " ", finding.Reason))
				}
			}
			if diff := cmp.Diff(judgements(want), judgements(got)); diff != "" || code != lintCode {
				t.Errorf("%s%s: exit codes %d and %d, %s (-lint +plan):\n%s",
					f.Name, flags, lintCode, code, stderr, diff)
			}
			if len(shown) != len(f.Pods) {
				t.Errorf("%s: %d plans, %d pods", f.Name, len(shown), len(f.Pods))
			}
		}
	}
}

// The help names each key of the JSON.
func TestPlanKeys(t *testing.T) {
	dir := planNode(t)
	_, stdout, _ := call(t, "braidctl plan -o json "+dir+"/objects "+dir+"/objects/gone --config "+dir+
		"/braid.conf --plugin-dir "+dir+"/bin")
	var all []map[string]any
	if err := json.Unmarshal([]byte(stdout), &all); err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	var walk func(any)
	walk = func(value any) {
		switch v := value.(type) {
		case []any:
			for _, e := range v {
				walk(e)
			}
		case map[string]any:
			for key, e := range v {
				seen[key] = true
				walk(e)
			}
		}
	}
	for _, p := range all {
		delete(p, "findings")
		walk(p)
	}
	for key := range seen {
		if !slices.Contains(strings.FieldsFunc(planText, func(r rune) bool {
			return strings.ContainsRune(" \n,:;.", r)
		}), key) {
			t.Errorf("the help does not name %q", key)
		}
	}
	if len(seen) < 18 {
		t.Errorf("only %d keys: %v", len(seen), seen)
	}
}

// Of a cluster: pods that are there, and new ones of files with the NADs that are there.
func TestPlanCluster(t *testing.T) {
	flags := " -o json --kubeconfig " + lintCluster(t)
	code, stdout, stderr := call(t, "braidctl plan -n lint fine warned follows lost"+flags)
	want := []string{
		"Pod lint/fine: eth0 net1=lint/good warning PolicyAudited",
		"Pod lint/warned: eth0 net1=lint/good warning PolicyAudited warning IgnoredKey",
		"Pod lint/follows: refused NADInvalid",
		"Pod lint/lost: refused NADNotFound",
	}
	if diff := cmp.Diff(want, inShort(plans(t, stdout))); diff != "" || code != exitFound {
		t.Errorf("exit code %d, %s (-want +got):\n%s", code, stderr, diff)
	}
	if code, stdout, _ := call(t, "braidctl plan --namespace=lint fine"+flags); code != exitFailed {
		t.Errorf("a flag that there is not: exit code %d, %s", code, stdout)
	}
	code, stdout, stderr = call(t, "braidctl plan fine"+flags)
	if code != exitFailed || stdout != "" || !strings.Contains(stderr, "fine") {
		t.Errorf("a pod that there is not: exit code %d, %s%s", code, stdout, stderr)
	}
	_, pods, _ := strings.Cut(lintObjects, "apiVersion: v1\n")
	dir := files(t, map[string]string{"pods.yaml": "apiVersion: v1\n" + pods})
	code, stdout, stderr = call(t, "braidctl plan "+dir+flags)
	want = append(want, "Deployment lint/many: refused NADForbidden")
	if diff := cmp.Diff(want, inShort(plans(t, stdout))); diff != "" || code != exitFound {
		t.Errorf("files: exit code %d, %s (-want +got):\n%s", code, stderr, diff)
	}
	code, stdout, stderr = call(t, "braidctl plan -n lint fine --kubeconfig /no/such")
	if code != exitFailed || stdout != "" || !strings.Contains(stderr, "/no/such") {
		t.Errorf("no way to the cluster: exit code %d, %s%s", code, stdout, stderr)
	}
}
