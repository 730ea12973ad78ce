package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/braid-cni/braid/pkg/lint"
)

const policyObjects = `
apiVersion: v1
kind: Namespace
metadata: {name: team-a, labels: {braid-cni.io/tenant: ""}}
---
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: lan, namespace: team-a}
spec: {config: '{"cniVersion":"1.0.0","type":"macvlan","master":"ens224","vlan":7}'}
---
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: host, namespace: team-b}
spec: {config: '{"cniVersion":"1.0.0","type":"host-device","device":"ens192"}'}
---
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: harmless, namespace: team-b}
spec: {config: '{"cniVersion":"1.0.0","type":"bridge","bridge":"br-b","ipam":{"type":"host-local","subnet":"10.9.0.0/24"}}'}
---
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: operators, namespace: default}
spec: {config: '{"cniVersion":"1.0.0","plugins":[{"type":"host-device","device":"ens192"},{"type":"portmap","capabilities":{"portMappings":true}}]}'}
---
apiVersion: v1
kind: Pod
metadata:
  name: p
  namespace: team-b
  annotations:
    k8s.v1.cni.cncf.io/networks: '[{"name":"host"},{"name":"operators","namespace":"default","portMappings":[{"hostPort":22,"containerPort":22}]}]'
`

// TestPolicyReport: what is refused, what is audited, by which rule, and what would allow it.
func TestPolicyReport(t *testing.T) {
	dir := files(t, map[string]string{"objects.yaml": policyObjects, "conf/braid.conflist": `{"cniVersion":"1.1.0","name":"braid","plugins":[{"type":"braid",
		"clusterNetwork":"/etc/cni/net.d/x.conflist","braid":{"policy":[{"namespaces":["team-c"]}]}}]}`})
	objects, config := dir+"/objects.yaml", " --config "+dir+"/conf/braid.conflist "
	code, stdout, stderr := call(t, "braidctl policy report"+config+objects)
	for _, line := range []string{
		`refused: networkattachmentdefinition team-a/lan (` + objects + ` (document 2)): ` +
			`plugins[0].master: the master is "ens224", and of masters none may be used: tenant's default`,
		`refused: networkattachmentdefinition team-a/lan (` + objects + ` (document 2)): ` +
			`plugins[0].vlan: the VLAN is 7, and of VLANs none may be used: tenant's default`,
		`audited: networkattachmentdefinition team-b/host (` + objects +
			` (document 3)): plugins[0].type: the plugin "host-device" is a binary, ` +
			`and of binaries none may run: tenant's default`,
		`audited: networkattachmentdefinition team-b/host (` + objects + ` (document 3)): ` +
			`plugins[0].device: the master is "ens192", and of masters none may be used: tenant's default`,
		`audited: pod team-b/p (` + objects +
			` (document 6)) network default/operators: portMappings[0].hostPort: the port of the node is ` +
			`22, and of ports 1024-65535 may be asked for: tenant's default`,
		`to allow all of that, add to "braid": {"policy": [...]}: {"namespaces": ["team-a"], ` +
			`"masters": ["ens224"], "vlans": ["7"]}`,
		`to allow all of that, add to "braid": {"policy": [...]}: {"namespaces": ["team-b"], ` +
			`"exec": ["host-device"], "masters": ["ens192"], "hostPorts": {"ports":["1024-65535","22"],` +
			`"loopback":false}}`,
	} {
		if rest := strings.Replace(stdout, line+"\n", "", 1); rest == stdout {
			t.Errorf("no line %s", line)
		} else {
			stdout = rest
		}
	}
	if stdout != "" || code != exitFound {
		t.Errorf("exit code %d, %s; more lines:\n%s", code, stderr, stdout)
	}

	_, stdout, _ = call(t, "braidctl policy report -o json"+config+objects)
	var violations []lint.Violation
	if err := json.Unmarshal([]byte(stdout), &violations); err != nil || len(violations) != 5 {
		t.Errorf("%d violations, %v: %s", len(violations), err, stdout)
	}
	// What lint would have refused is what is enforced.
	_, stdout, _ = call(t, "braidctl lint -o json"+config+objects)
	want := map[string]int{
		"NetworkAttachmentDefinition team-a/lan refused PolicyRefused":  2,
		"NetworkAttachmentDefinition team-b/host warning PolicyAudited": 2,
		"Pod team-b/p warning PolicyAudited":                            1,
	}
	for _, v := range verdicts(t, stdout) {
		if want[v]--; want[v] < 0 {
			t.Errorf("lint: %s", v)
		}
	}
	for v, left := range want {
		if left > 0 {
			t.Errorf("lint does not say %s", v)
		}
	}
	// The rules that it says allow all.
	dir = files(t, map[string]string{"braid.conflist": `{"cniVersion":"1.1.0","name":"braid","plugins":[{"type":"braid",
		"clusterNetwork":"/etc/cni/net.d/x.conflist","braid":{"policyDefault":"enforce","policy":[{"namespaces": ["team-a"], "masters": ["ens224"], "vlans": ["7"]},
		{"namespaces": ["team-b"], "exec": ["host-device"], "masters": ["ens192"], "hostPorts": {"ports":["1024-65535","22"],"loopback":false}}]}}]}`})
	code, stdout, stderr = call(t, "braidctl policy report --config "+dir+"/braid.conflist "+objects)
	if code != exitOK || stdout != "" {
		t.Errorf("exit code %d, %s%s", code, stdout, stderr)
	}
}

const overlapping = `
apiVersion: v1
kind: Namespace
metadata: {name: team-a, labels: {braid-cni.io/tenant: ""}}
---
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: lan, namespace: team-a}
spec: {config: '{"cniVersion":"1.0.0","type":"macvlan","master":"ens224","ipam":{"type":"whereabouts","range":"10.9.0.0/16"}}'}
---
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: same, namespace: team-b}
spec: {config: '{"cniVersion":"1.0.0","type":"macvlan","master":"ens224","ipam":{"type":"host-local","ranges":[[{"subnet":"10.9.3.0/24"}]]}}'}
---
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: vlan, namespace: team-b}
spec: {config: '{"cniVersion":"1.0.0","type":"macvlan","master":"ens224","vlan":7,"ipam":{"type":"whereabouts","range":"10.9.0.0/16"}}'}
---
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: other, namespace: team-b}
spec: {config: '{"cniVersion":"1.0.0","type":"macvlan","master":"ens225","ipam":{"type":"whereabouts","range":"10.9.0.0/16"}}'}
---
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: shares, namespace: team-c}
spec: {config: '{"cniVersion":"1.0.0","type":"macvlan","master":"ens224","ipam":{"type":"whereabouts","range":"10.9.0.0/16","network_name":"team-a.default"}}'}
---
apiVersion: k8s.cni.cncf.io/v1
kind: NetworkAttachmentDefinition
metadata: {name: audited, namespace: free}
spec: {config: '{"cniVersion":"1.0.0","type":"bridge","bridge":"ens224","ipam":{"type":"whereabouts","range":"10.9.0.0/16"}}'}
`

// TestM30OneLinkTwoSpaces: two namespaces that may assign one address twice on one link are named,
// with what would separate them; and no others.
func TestM30OneLinkTwoSpaces(t *testing.T) {
	dir := files(t, map[string]string{"objects.yaml": overlapping, "conf/braid.conflist": `{"cniVersion":"1.1.0","name":"braid","plugins":[{"type":"braid",
		"clusterNetwork":"/etc/cni/net.d/x.conflist","braid":{"policy":[{"namespaces":["team-a"],"masters":["*"]},
		{"namespaces":["team-b"],"masters":["*"],"vlans":[7]},{"namespaces":["team-c"],"masters":["*"],"names":["team-a.*"]}]}}]}`})
	rest := " --config " + dir + "/conf/braid.conflist " + dir + "/objects.yaml"
	code, stdout, stderr := call(t, "braidctl policy report"+rest)
	const what = "addresses of 10.9.3.0/24 on ens224 are those of team-a/lan, too, which has " +
		"10.9.0.0/16 there"
	lines := strings.Split(strings.TrimSpace(stdout), "\n")
	if len(lines) != 2 || !strings.Contains(lines[0],
		"warning: networkattachmentdefinition team-b/same") || !strings.Contains(lines[0], what) ||
		!strings.Contains(lines[1],
			`to keep them apart, have rules of their own for team-b and team-a whose "prefixes", `+
				`"masters" or "vlans"`) ||
		!strings.Contains(lines[1], `"names": ["team-a.default"] in the rule for team-b`) {
		t.Errorf("%s%s", stdout, stderr)
	}
	if code != exitOK {
		t.Errorf("exit code %d for a warning", code)
	}
	_, stdout, _ = call(t, "braidctl lint -o json"+rest)
	found := 0
	for _, v := range verdicts(t, stdout) {
		if v == "NetworkAttachmentDefinition team-b/same warning AddressOverlap" {
			found++
		} else if strings.Contains(v, "AddressOverlap") {
			t.Errorf("lint: %s", v)
		}
	}
	if found != 1 {
		t.Errorf("lint: %s", stdout)
	}
}
