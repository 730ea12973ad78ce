package e2e_test

import (
	"strings"
	"testing"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
)

// misconfigurations are pods with a mistake each, with the reason of the event and words that it
// has. NS is the namespace of the pods, and OTHER is another one.
var misconfigurations = []struct {
	pod, networks, reason string
	says                  []string
}{
	{
		"annotation", `[{"name": "plain", "ips": "10.1.1.1"}]`, "InvalidAnnotation",
		[]string{nadv1.NetworksAnnotation, "ips"},
	},
	{
		"annotation-name", "plain,Not_A_Name!", "InvalidAnnotation",
		[]string{nadv1.NetworksAnnotation, "Not_A_Name!"},
	},
	{
		"not-found", "missing", "NADNotFound",
		[]string{"NS/missing", "create it", "kubectl get net-attach-def -n NS"},
	},
	{"forbidden", "OTHER/theirs", "NADForbidden", []string{"OTHER/theirs", "globalNamespaces"}},
	{
		"invalid", "truncated", "NADInvalid",
		[]string{"NS/truncated", "line 1 column 41", "unexpected end of JSON"},
	},
	{"comment", "comment", "NADInvalid", []string{"NS/comment", "JSON has no comments", "line 2"}},
	{
		"capability", `[{"name": "plain", "bandwidth": {"ingressRate": 1000000}}]`, "MissingCapability",
		[]string{"NS/plain", "macvlan", `"capabilities": {"bandwidth": true}`},
	},
	{
		"interface-twice", "plain@data0,plain@data0", "InvalidAnnotation",
		[]string{"NS/plain", "data0", "an interface of its own"},
	},
	{
		"interface-taken", "plain@eth0", "InterfaceConflict",
		[]string{"NS/plain", "eth0", "the default network has this name", "another name"},
	},
	{
		"no-binary", "no-binary", "PluginNotFound",
		[]string{"NS/no-binary", "no-such-plugin", "install the plugin in /opt/cni/bin"},
	},
	{
		"failed", "no-master", "PluginFailed",
		[]string{"NS/no-master", "plugin macvlan", `master interface "absent0"`},
	},
	{
		"device", "no-device", "DeviceUnavailable",
		[]string{"NS/no-device", "example.com/nic", "resources.requests"},
	},
}

// TestU19Misconfigurations: of each kind of mistake, kubectl describe pod shows the reason, the NAD
// or plugin, and what to do.
func TestU19Misconfigurations(t *testing.T) {
	w := newWorkspace(t)
	ns := strings.NewReplacer("OTHER", w.newNamespace("u19-other"), "NS", w.namespace)
	w.nad(ns.Replace("OTHER/theirs"), macvlan("10.19.1.0/24"))
	w.nad("plain", macvlan("10.19.2.0/24"))
	w.nad("truncated", `{"cniVersion": "1.0.0", "type": "macvlan"`)
	w.nad("comment", "{\n  \"cniVersion\": \"1.0.0\", # the version\n  \"type\": \"macvlan\"\n}")
	w.nad("no-binary", `{"cniVersion": "1.0.0", "type": "no-such-plugin"}`)
	w.nad("no-master", `{"cniVersion": "1.0.0", "type": "macvlan", "master": "absent0", `+
		`"ipam": {"type": "host-local", "subnet": "10.19.4.0/24"}}`)
	consumes := strings.Replace(macvlan("10.19.5.0/24"), "{",
		`{"capabilities": {"deviceID": true}, `, 1)
	w.nad("no-device", consumes, nadv1.ResourceNameAnnotation, "example.com/nic")

	for _, test := range misconfigurations {
		w.create(w.pod(test.pod, ns.Replace(test.networks)))
	}
	for _, test := range misconfigurations {
		t.Run(test.pod, func(t *testing.T) {
			w := *w
			w.t = t
			w.refused(test.pod, test.reason)
			out, err := w.cluster.Kubectl(w.ctx, "describe", "pod", test.pod, "--namespace="+w.namespace)
			w.must(err)
			line := eventLine(out, test.reason)
			for _, word := range append(test.says, "pod NS/"+test.pod) {
				if word = ns.Replace(word); !strings.Contains(line, word) {
					t.Errorf("kubectl describe pod does not say %q but:\n%s", word, line)
				}
			}
			t.Log(line)
		})
	}
}

// eventLine is the line of an event that kubectl describe prints of Braid.
func eventLine(description, reason string) string {
	for line := range strings.Lines(description) {
		fields := strings.Fields(line)
		if len(fields) > 4 && fields[0] == "Warning" && fields[1] == reason {
			return strings.Join(fields, " ")
		}
	}
	return "no event " + reason + ":\n" + description
}
