package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"
)

// hostileHost is a node with a pod that is attached, and that nothing which is refused may touch.
func hostileHost(t *testing.T) (h *host, bystander *pod) {
	t.Helper()
	h = newHost(t)
	h.nad("a", h.macvlan(11, ""))
	bystander = h.pod("bystander", "a")
	h.must("ADD", bystander)
	return h, bystander
}

// nodeState is all of the node that braid may change: links, addresses, routes and rules of it and
// of pods, leases, records, cache.
func (h *host) nodeState(pods ...*pod) string {
	h.t.Helper()
	var b strings.Builder
	b.WriteString(h.node.Snapshot())
	for _, p := range pods {
		fmt.Fprintf(&b, "pod %s\n%s", p.name, p.Snapshot())
	}
	for _, dir := range []string{"state", "leases", "net.d", "manifests"} {
		err := filepath.WalkDir(h.path(dir), func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || strings.HasSuffix(path, ".events.jsonl") ||
				strings.HasPrefix(e.Name(), "hostile") {
				return err
			}
			data, err := os.ReadFile(path)
			fmt.Fprintf(&b, "file %s %x\n", path, sha256.Sum256(data))
			return err
		})
		if err != nil {
			h.t.Fatal(err)
		}
	}
	return b.String()
}

// refused runs a command, with stdin instead of the configuration if that is not nil, that has to
// fail with this code and a text that has all the words, in one line without control characters,
// and that changes nothing.
func (h *host) refused(
	command string, p *pod, stdin []byte, env []string, code uint, words []string, watched ...*pod,
) {
	h.t.Helper()
	before := h.nodeState(watched...)
	cmd := h.command(command, p, env...)
	if stdin != nil {
		cmd.Stdin = bytes.NewReader(stdin)
	}
	var stdout bytes.Buffer
	cmd.Stdout = &stdout
	if err := h.node.Run(cmd.Run); err == nil {
		h.t.Fatalf("%s succeeded: %s", command, stdout.String())
	}
	failed := &types.Error{}
	if err := json.Unmarshal(stdout.Bytes(), failed); err != nil {
		h.t.Fatalf("no CNI error on stdout: %v: %.300q", err, stdout.String())
	}
	if failed.Code != code {
		h.t.Errorf("code %d, want %d: %.500v", failed.Code, code, failed)
	}
	text := failed.Msg + " " + failed.Details
	for _, word := range words {
		if !strings.Contains(text, word) {
			h.t.Errorf("the error does not say %q: %.500q", word, text)
		}
	}
	if len(text) > 2000 || strings.ContainsFunc(text, func(c rune) bool {
		return c < ' ' || c == 0x7f
	}) {
		h.t.Errorf("the error has %d bytes or control characters: %.500q", len(text), text)
	}
	if diff := cmp.Diff(before, h.nodeState(watched...)); diff != "" {
		h.t.Errorf("the node was changed:\n%s", diff)
	}
}

// survives fails the test unless the pod is still attached, and can be deleted.
func (h *host) survives(p *pod) {
	h.t.Helper()
	h.has(p, "eth0", "net1")
	h.must("CHECK", p)
	h.must("DEL", p)
	h.clean(p)
}

// TestHostileAnnotation: what a user may write into a pod.
func TestHostileAnnotation(t *testing.T) {
	t.Parallel()
	h, bystander := hostileHost(t)
	const key = "k8s.v1.cni.cncf.io/networks"
	for name, c := range map[string]struct {
		networks string
		words    []string
	}{
		"path":               {"../../etc/passwd", []string{key, "etc"}},
		"path as name":       {`[{"name":"../a"}]`, []string{key, "name", `../a`}},
		"path as namespace":  {`[{"name":"a","namespace":"../kube-system"}]`, []string{key, "namespace"}},
		"path as interface":  {"a@../x", []string{key, "../x"}},
		"dots as interface":  {"a@..", []string{key}},
		"control characters": {"a\x1b[31m", []string{key}},
		"newline in name":    {`[{"name":"a\n"}]`, []string{key, "name"}},
		"NUL":                {`[{"name":"a\u0000"}]`, []string{key, "name"}},
		"unicode":            {"ａ", []string{key}},
		"homoglyph":          {"а", []string{key}},
		"truncated":          {`[{"name":"a"`, []string{key}},
		"not closed":         {`[{"name":"a"},`, []string{key}},
		"object":             {`{"name":"a"}`, []string{key}},
		"number":             {`[1]`, []string{key}},
		"null":               {`[null]`, []string{key}},
		"no name":            {`[{}]`, []string{key, "name"}},
		"key twice":          {`[{"name":"a","name":"b"}]`, []string{key, "name"}},
		"wrong type":         {`[{"name":"a","ips":"10.0.0.1"}]`, []string{key, "ips"}},
		"bad address":        {`[{"name":"a","ips":["10.0.0.1/64"]}]`, []string{key, "ips"}},
		"bad mac":            {`[{"name":"a","mac":"; rm -rf /"}]`, []string{key, "mac"}},
		"empty elements":     {"a,,", []string{key}},
		"the default's name": {`[{"name":"a","interface":"eth0"}]`, []string{"eth0"}},
		"loopback":           {"a@lo", []string{"lo"}},
		"a name twice":       {"a@x,a@x", []string{"x"}},
		"too long":           {"a@" + strings.Repeat("x", 16), []string{key}},
		"nested deep":        {strings.Repeat("[", 200_000), []string{key}},
		"half a megabyte":    {strings.Repeat("x", 500_000), []string{key}},
	} {
		t.Run(name, func(t *testing.T) {
			h := h.sub(t)
			p := h.pod("hostile", c.networks)
			code := types.ErrInvalidNetworkConfig
			if name == "the default's name" {
				code = types.ErrInvalidEnvironmentVariables
			}
			h.hide("manifests/Pod-default-hostile.yaml")
			h.refused("ADD", p, nil, nil, code, append(c.words, "default/hostile"), bystander, p)
		})
	}
	h.survives(bystander)
}

// sub is the host for a subtest.
func (h *host) sub(t *testing.T) *host {
	t.Helper()
	sub := *h
	sub.t = t
	return &sub
}

// hide renames a manifest of the subtest to what nodeState leaves out, and removes it at
// the end.
func (h *host) hide(name string) {
	h.t.Helper()
	hidden := h.path("manifests", "hostile-"+filepath.Base(name))
	if err := os.Rename(h.path(name), hidden); err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { os.Remove(hidden) }) //nolint:errcheck // with the directory
}

// TestHostileNAD: what the author of a NAD may write.
func TestHostileNAD(t *testing.T) {
	t.Parallel()
	h, bystander := hostileHost(t)
	h.script("innocent", "exit 1")
	victim := h.path("victim")
	err := os.WriteFile(victim, []byte("#!/bin/sh\ntouch "+h.path("executed")+"\n"), 0o700)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		config string
		words  []string
	}{
		"empty":            {"", []string{"net.d"}},
		"truncated":        {`{"type":"macvlan"`, nil},
		"list":             {`[]`, nil},
		"null":             {`null`, nil},
		"number":           {`1`, nil},
		"no type":          {`{"cniVersion":"1.0.0"}`, []string{"type"}},
		"empty type":       {`{"type":""}`, []string{"type"}},
		"relative path":    {`{"type":"../victim"}`, []string{"type", "../victim"}},
		"absolute path":    {fmt.Sprintf(`{"type":%q}`, victim), []string{"type"}},
		"dots":             {`{"type":".."}`, []string{"type"}},
		"NUL in type":      {`{"type":"macvlan\u0000"}`, []string{"type"}},
		"control in type":  {`{"type":"mac\nvlan"}`, []string{"type"}},
		"unicode type":     {`{"type":"mаcvlan"}`, nil},
		"type is a number": {`{"type":7}`, []string{"type"}},
		"unknown type":     {`{"type":"nosuchplugin"}`, []string{"nosuchplugin"}},
		"type twice":       {`{"type":"macvlan","type":"../victim"}`, []string{"type"}},
		"Type":             {`{"type":"macvlan","Type":"../victim"}`, []string{"Type"}},
		"path in second": {
			`{"plugins":[{"type":"macvlan"},{"type":"../victim"}]}`,
			[]string{"plugins[1]"},
		},
		"no plugins":           {`{"plugins":[]}`, []string{"plugins"}},
		"plugins is an object": {`{"plugins":{}}`, []string{"plugins"}},
		"path as name":         {`{"name":"../../victim","type":"macvlan"}`, []string{"name"}},
		"path as IPAM": {
			`{"type":"macvlan","master":"nic0","ipam":{"type":"../victim"}}`,
			[]string{"ipam"},
		},
		"unknown version":      {`{"cniVersion":"99.0.0","type":"macvlan"}`, []string{"cniVersion"}},
		"version is no number": {`{"cniVersion":"../1","type":"macvlan"}`, []string{"cniVersion"}},
		"nested deep":          {`{"type":"macvlan","x":` + strings.Repeat("[", 200_000) + `}`, nil},
		"not UTF-8":            {"{\"type\":\"mac\xff\"}", nil},
	} {
		t.Run(name, func(t *testing.T) {
			h := h.sub(t)
			h.nad("bad", c.config)
			h.hide("manifests/NetworkAttachmentDefinition-default-bad.yaml")
			p := h.pod("hostile", "a,bad")
			h.hide("manifests/Pod-default-hostile.yaml")
			h.refused("ADD", p, nil, nil, types.ErrInvalidNetworkConfig,
				append(c.words, "default/hostile", "default/bad"), bystander, p)
		})
	}
	if _, err := os.Stat(h.path("executed")); err == nil {
		t.Error("a file outside of the plugin path was executed")
	}
	h.survives(bystander)
}

// TestHostileManifest: manifests that are too large, are no files, or are links out of the
// directory, are named.
func TestHostileManifest(t *testing.T) {
	t.Parallel()
	h, bystander := hostileHost(t)
	secret := h.path("secret")
	h.write("secret", `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"hostile",`+
		`"namespace":"default"},"data":"s3cret"}`)
	for name, make := range map[string]func(path string) error{
		"10 MB": func(path string) error {
			return os.WriteFile(path, bytes.Repeat([]byte("x: y\n"), 2<<20), 0o600)
		},
		"link":   func(path string) error { return os.Symlink(secret, path) },
		"device": func(path string) error { return os.Symlink("/dev/zero", path) },
		"pipe":   func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"truncated": func(path string) error {
			return os.WriteFile(path, []byte(`{"kind":"Pod","metadata":{"name":"hos`), 0o600)
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := h.sub(t)
			p := h.pod("hostile", "a")
			path := h.path("manifests", "hostile.yaml")
			if err := os.Remove(h.path("manifests/Pod-default-hostile.yaml")); err != nil {
				t.Fatal(err)
			}
			if err := make(path); err != nil {
				t.Fatal(err)
			}
			defer os.Remove(path) //nolint:errcheck // with the directory
			h.refused("ADD", p, nil, nil, types.ErrUnknownContainer,
				[]string{"default/hostile", "hostile.yaml"}, bystander, p)
		})
	}
	h.survives(bystander)
}

// TestHostileConfiguration: Braid's own configuration on stdin.
func TestHostileConfiguration(t *testing.T) {
	t.Parallel()
	h, bystander := hostileHost(t)
	edit := func(key string, value any) []byte {
		data, err := json.Marshal(with(h.conf, key, value))
		if err != nil {
			t.Fatal(err)
		}
		return data
	}
	whole := edit("logLevel", "info")
	const (
		undecodable = types.ErrDecodingFailure
		version     = types.ErrIncompatibleCNIVersion
		invalid     = types.ErrInvalidNetworkConfig
	)
	braid := func(key string, value any) []byte {
		return edit("braid", with(h.conf["braid"].(map[string]any), key, value))
	}
	for name, c := range map[string]struct {
		stdin []byte
		code  uint
		words []string
	}{
		"empty":             {[]byte{}, undecodable, nil},
		"truncated":         {whole[:len(whole)-20], undecodable, nil},
		"list":              {[]byte(`[]`), undecodable, nil},
		"10 MB":             {edit("x", strings.Repeat("x", 10<<20)), invalid, []string{"bytes"}},
		"10 MB of brackets": {bytes.Repeat([]byte("["), 10<<20), undecodable, nil},
		"path as name":      {edit("name", "../x"), invalid, []string{"name", "../x"}},
		"no name":           {edit("name", ""), invalid, []string{"name"}},
		"version":           {edit("cniVersion", "../1.0.0"), version, []string{"../1.0.0"}},
		"no delegates":      {edit("delegates", []any{}), invalid, []string{"delegates"}},
		"delegates":         {edit("delegates", map[string]any{}), invalid, []string{"delegates"}},
		"path as delegate": {edit("delegates", []any{
			map[string]any{"name": "pods", "type": "../../bin/sh"},
		}), invalid, []string{"delegates", "type"}},
		"unknown own key": {braid("statedir", "/x"), invalid, []string{"braid", "statedir"}},
		"relative state":  {braid("stateDir", "state"), invalid, []string{"braid.stateDir"}},
		"root as state":   {braid("stateDir", "/"), invalid, []string{"braid.stateDir"}},
		"climbing state":  {braid("stateDir", "/run/../etc"), invalid, []string{"braid.stateDir"}},
		"NUL in state":    {braid("stateDir", "/run/\x00"), invalid, []string{"braid.stateDir"}},
		"state is a file": {
			braid("stateDir", h.path("braid.log")), types.ErrIOFailure,
			[]string{"state"},
		},
		"state of others": {
			braid("stateDir", "/tmp"), types.ErrIOFailure,
			[]string{"braid.stateDir", "/tmp"},
		},
		"no manifests": {braid("manifests", h.path("nothing")), invalid, []string{"nothing"}},
		"negative timeout": {
			braid("timeouts", map[string]any{"operation": "-1s"}), invalid,
			[]string{"braid.timeouts.operation"},
		},
		"network": {
			edit("clusterNetwork", "../../etc/passwd"), invalid,
			[]string{"clusterNetwork"},
		},
		"kubeconfig": {edit("kubeconfig", "../x"), invalid, []string{"kubeconfig"}},
		"namespace":  {edit("multusNamespace", "../x"), invalid, []string{"multusNamespace"}},
	} {
		t.Run(name, func(t *testing.T) {
			h := h.sub(t)
			p := h.pod("hostile", "a")
			h.hide("manifests/Pod-default-hostile.yaml")
			h.refused("ADD", p, c.stdin, nil, c.code, c.words, bystander, p)
		})
	}
	h.survives(bystander)
}

// TestHostileEnvironment: the variables of the protocol.
func TestHostileEnvironment(t *testing.T) {
	t.Parallel()
	h, bystander := hostileHost(t)
	file := h.path("file")
	h.write("file", "no namespace")
	for name, c := range map[string]struct{ variable, value, word string }{
		"path as pod": {
			"CNI_ARGS", "K8S_POD_NAMESPACE=default;K8S_POD_NAME=../../etc/passwd",
			"K8S_POD_NAME",
		},
		"path as namespace":  {"CNI_ARGS", "K8S_POD_NAMESPACE=../x;K8S_POD_NAME=p", "K8S_POD_NAMESPACE"},
		"no namespace":       {"CNI_ARGS", "K8S_POD_NAME=p", "K8S_POD_NAMESPACE"},
		"no name":            {"CNI_ARGS", "K8S_POD_NAMESPACE=default", "K8S_POD_NAME"},
		"no pair":            {"CNI_ARGS", "IgnoreUnknown", "IgnoreUnknown"},
		"no key":             {"CNI_ARGS", "=x", "=x"},
		"control characters": {"CNI_ARGS", "K8S_POD_NAMESPACE=default;K8S_POD_NAME=p\x1b[0m", "CNI_ARGS"},
		"unicode":            {"CNI_ARGS", "K8S_POD_NAMESPACE=default;K8S_POD_NAME=ｐ", "K8S_POD_NAME"},
		"too long":           {"CNI_ARGS", "X=" + strings.Repeat("x", 100_000), "bytes"},
		"path as container":  {"CNI_CONTAINERID", "../../etc", "containerID"},
		"slash in container": {"CNI_CONTAINERID", "a/b", "containerID"},
		"space in container": {"CNI_CONTAINERID", "a b", "containerID"},
		"long container":     {"CNI_CONTAINERID", strings.Repeat("x", 300), "CONTAINERID"},
		"no container":       {"CNI_CONTAINERID", "", "CONTAINERID"},
		"path as interface":  {"CNI_IFNAME", "../x", "interface name"},
		"dots as interface":  {"CNI_IFNAME", "..", "interface name"},
		"long interface":     {"CNI_IFNAME", strings.Repeat("x", 16), "interface name"},
		"no namespace path":  {"CNI_NETNS", "/run/netns/nothing", "CNI_NETNS"},
		"namespace a file":   {"CNI_NETNS", file, "CNI_NETNS"},
		"namespace a device": {"CNI_NETNS", "/dev/zero", "CNI_NETNS"},
	} {
		t.Run(name, func(t *testing.T) {
			h := h.sub(t)
			p := h.pod("hostile", "a")
			h.hide("manifests/Pod-default-hostile.yaml")
			h.refused("ADD", p, nil, []string{c.variable + "=" + c.value},
				types.ErrInvalidEnvironmentVariables, []string{c.word}, bystander, p)
		})
	}
	h.survives(bystander)
}

// mishap is what may have become of a file.
type mishap struct {
	name string
	// do is told the file and its content.
	do func(path string, content []byte) error
}

func mishaps(elsewhere string) []mishap {
	put := func(change func([]byte) []byte) func(string, []byte) error {
		return func(path string, content []byte) error {
			return os.WriteFile(path, change(content), 0o600)
		}
	}
	replace := func(make func(path string) error) func(string, []byte) error {
		return func(path string, _ []byte) error {
			if err := os.Remove(path); err != nil {
				return err
			}
			return make(path)
		}
	}
	return []mishap{
		{"truncated", put(func(b []byte) []byte { return b[:len(b)/2] })},
		{"empty", put(func([]byte) []byte { return nil })},
		{"null", put(func([]byte) []byte { return []byte("null") })},
		{"wrong JSON", put(func([]byte) []byte { return []byte(`{"version":1,"attachments":{}}`) })},
		{"another version", put(func(b []byte) []byte {
			return bytes.Replace(b, []byte(`:`), []byte(`:"x",`), 1)
		})},
		{"10 MB", put(func(b []byte) []byte { return append(b, bytes.Repeat([]byte("["), 10<<20)...) })},
		{"path tricks", put(func(b []byte) []byte {
			return bytes.ReplaceAll(b, []byte(`net1"`), []byte(`../x"`))
		})},
		{"another container's", put(func(b []byte) []byte {
			return bytes.ReplaceAll(b, []byte(`"id-p"`), []byte(`"id-bystander"`))
		})},
		{"link", replace(func(path string) error { return os.Symlink(elsewhere, path) })},
		{"link to a device", replace(func(path string) error { return os.Symlink("/dev/zero", path) })},
		{"pipe", replace(func(path string) error { return syscall.Mkfifo(path, 0o600) })},
	}
}

func (d mishap) apply(t *testing.T, files ...string) {
	t.Helper()
	if len(files) == 0 {
		t.Fatal("nothing to mishap")
	}
	for _, file := range files {
		content, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if err := d.do(file, content); err != nil {
			t.Fatal(err)
		}
	}
}

// victim is a pod whose record and cache are damaged, beside one that is not. The file is one that
// must not be changed.
func (h *host) victim(t *testing.T) (p *pod, file string) {
	t.Helper()
	h.nad("b", h.macvlan(12, ""))
	p = h.pod("p", "a,b")
	h.must("ADD", p)
	file = h.path("elsewhere")
	h.write("elsewhere", "not yours")
	return p, file
}

// removed fails the test unless only the bystander is left, unchanged, and the file.
func (h *host) removed(p, bystander *pod, file string) {
	h.t.Helper()
	h.has(p)
	if data, err := os.ReadFile(file); err != nil || string(data) != "not yours" {
		h.t.Errorf("a file elsewhere was changed: %q %v", data, err)
	}
	if len(h.leases()) != 2 {
		h.t.Errorf("leases %q, want those of the bystander", h.leases())
	}
	for _, left := range h.left() {
		if strings.Contains(left, p.id) {
			h.t.Errorf("left: %s", left)
		}
	}
	h.survives(bystander)
}

// TestHostileRecord: an ADD and a CHECK say that the record is damaged, and which it is; a DEL
// removes everything, whether the pod still exists or not.
func TestHostileRecord(t *testing.T) {
	for _, d := range mishaps("/etc/passwd") {
		for _, gone := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, pod gone %v", d.name, gone), func(t *testing.T) {
				t.Parallel()
				h, bystander := hostileHost(t)
				p, file := h.victim(t)
				record := h.path("state/sandboxes", p.id+".json")
				d.apply(t, record)
				if !strings.Contains(d.name, "link") && d.name != "pipe" {
					for _, command := range []string{"ADD", "CHECK"} {
						h.refused(command, p, nil, nil, types.ErrDecodingFailure, []string{"default/p", record},
							bystander, p)
					}
				} else {
					h.fails("CHECK", p, types.ErrDecodingFailure, record)
				}
				if gone {
					h.remove("manifests/Pod-default-p.yaml")
				}
				h.must("DEL", p)
				h.removed(p, bystander, file)
			})
		}
	}
}

// TestM34PlantedCache: what another user has put into libcni's cache, or could have, is not acted
// on.
func TestM34PlantedCache(t *testing.T) {
	t.Parallel()
	for name, plant := range map[string]func(path string) error{
		"another user's":   func(path string) error { return os.Chown(path, 65534, 65534) },
		"others may write": func(path string) error { return os.Chmod(path, 0o666) },
		"a group may":      func(path string) error { return os.Chmod(path, 0o620) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newHost(t)
			h.fake("fake", "")
			if err := os.MkdirAll(h.path("state/cni/results"), 0o700); err != nil {
				t.Fatal(err)
			}
			entry := func(p *pod) (path string) {
				path = filepath.Join("state/cni/results", "evil-"+p.id+"-net1")
				h.write(path, encode(t, map[string]any{
					"kind": "cniCacheV1", "containerId": p.id, "ifName": "net1", "networkName": "evil",
					"netns":  p.Path,
					"config": []byte(`{"cniVersion":"1.0.0","name":"evil","plugins":[{"type":"fake"}]}`),
					"result": map[string]any{"cniVersion": "1.0.0"},
				}))
				return h.path(path)
			}
			own, planted := h.pod("own", ""), h.pod("planted", "")
			entry(own)
			h.must("DEL", own)
			same(t, "calls with an entry of Braid's own", len(h.calls()), 1)
			if err := plant(entry(planted)); err != nil {
				t.Skip(err)
			}
			h.must("DEL", planted)
			h.valid()
			h.must("GC", nil)
			same(t, "calls", len(h.calls()), 0)
		})
	}
}

// TestM34LargeState: files of 1 GB in the place of Braid's own keep no DEL from its end.
func TestM34LargeState(t *testing.T) {
	t.Parallel()
	h, bystander := hostileHost(t)
	p, file := h.victim(t)
	for _, pattern := range []string{
		"state/sandboxes/id-p.json", "state/cni/results/*-id-p-*", "state/sandboxes/id-p.lock",
	} {
		for _, path := range globbed(t, h.path(pattern)) {
			if err := os.Truncate(path, 1<<30); err != nil {
				t.Fatal(err)
			}
		}
	}
	start := time.Now()
	h.must("DEL", p)
	if took := time.Since(start); took > 20*time.Second {
		t.Errorf("DEL took %v", took)
	}
	h.removed(p, bystander, file)
}

// TestHostileCache: with its record a DEL, and a CHECK before it, does not depend on libcni's
// cache; with a damaged record it still finds in what is left of the cache which interfaces there
// are. (M4 is that such a DEL succeeds and removes nothing.)
func TestHostileCache(t *testing.T) {
	cacheMishaps := func(elsewhere string) []mishap {
		return append(mishaps(elsewhere),
			mishap{"removed", func(path string, _ []byte) error { return os.Remove(path) }},
			mishap{"directory", func(path string, _ []byte) error {
				return errors.Join(os.Remove(path), os.MkdirAll(filepath.Join(path, "x"), 0o700))
			}},
			mishap{"result of others", func(path string, content []byte) error {
				var entry map[string]any
				if err := json.Unmarshal(content, &entry); err != nil {
					return err
				}
				entry["result"] = map[string]any{
					"cniVersion": "1.0.0", "interfaces": []any{map[string]any{"name": "nic0"}},
					"ips": []any{map[string]any{"address": "10.99.0.1/24"}},
				}
				data, err := json.Marshal(entry)
				if err != nil {
					return err
				}
				return os.WriteFile(path, data, 0o600)
			}},
			mishap{"configuration of others", func(path string, content []byte) error {
				var entry map[string]any
				if err := json.Unmarshal(content, &entry); err != nil {
					return err
				}
				entry["config"] = base64.StdEncoding.EncodeToString(
					[]byte(`{"cniVersion":"1.0.0","name":"../../x","plugins":[{"type":"../../bin/sh"}]}`))
				data, err := json.Marshal(entry)
				if err != nil {
					return err
				}
				return os.WriteFile(path, data, 0o600)
			}},
		)
	}
	for _, d := range cacheMishaps("/etc/hostname") {
		t.Run(d.name, func(t *testing.T) {
			t.Parallel()
			h, bystander := hostileHost(t)
			p, file := h.victim(t)
			d.apply(t, globbed(t, h.path("state/cni/results/*-"+p.id+"-*"))...)
			h.must("CHECK", p)
			d.apply(t, globbed(t, h.path("state/cni/results/*-"+p.id+"-*"))...)
			h.must("DEL", p)
			h.removed(p, bystander, file)
		})
		if d.name == "removed" || d.name == "result of others" {
			continue
		}
		t.Run(d.name+", and the record, and the pod gone", func(t *testing.T) {
			t.Parallel()
			h, bystander := hostileHost(t)
			p, file := h.victim(t)
			d.apply(t, globbed(t, h.path("state/cni/results/*-"+p.id+"-*"))...)
			if err := os.Truncate(h.path("state/sandboxes", p.id+".json"), 100); err != nil {
				t.Fatal(err)
			}
			h.remove("manifests/Pod-default-p.yaml")
			h.must("DEL", p)
			h.removed(p, bystander, file)
		})
	}
}

// TestHostileNothingKnown: where neither record nor cache nor pod says what there was, a DEL does
// not say that it is removed.
func TestHostileNothingKnown(t *testing.T) {
	t.Parallel()
	h, bystander := hostileHost(t)
	p, file := h.victim(t)
	for _, entry := range globbed(t, h.path("state/cni/results/*-"+p.id+"-*")) {
		if err := os.Remove(entry); err != nil {
			t.Fatal(err)
		}
	}
	record := h.path("state/sandboxes", p.id+".json")
	if err := os.Truncate(record, 100); err != nil {
		t.Fatal(err)
	}
	h.remove("manifests/Pod-default-p.yaml")
	h.refused("DEL", p, nil, nil, types.ErrDecodingFailure, []string{"default/p", record},
		bystander, p)
	h.pod("p", "a,b")
	h.must("DEL", p)
	h.removed(p, bystander, file)
}

// TestHostileCacheOnly: entries of a sandbox without a record that no ADD can have made are
// removed, and nothing else.
func TestHostileCacheOnly(t *testing.T) {
	t.Parallel()
	h, bystander := hostileHost(t)
	p := h.pod("p", "")
	h.write("elsewhere", "not yours")
	h.script("innocent", "touch "+h.path("executed"))
	entry := func(network, ifName, config string) string {
		data, err := json.Marshal(map[string]any{
			"kind": "cniCacheV1", "containerId": p.id, "networkName": network, "ifName": ifName,
			"config": []byte(config),
		})
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	for name, content := range map[string]string{
		"n1-" + p.id + "-net1": entry("../../../elsewhere", "net1",
			`{"cniVersion":"1.0.0","name":"n1","type":"innocent"}`),
		"n2-" + p.id + "-net2": entry("n2", "net2",
			`{"cniVersion":"1.0.0","name":"../../elsewhere","type":"innocent"}`),
		"n3-" + p.id + "-net3": entry("n3", "net3",
			`{"cniVersion":"1.0.0","name":"n3","type":"../bin/innocent"}`),
		"n4-" + p.id + "-net4": entry("n4", "../net4",
			`{"cniVersion":"1.0.0","name":"n4","type":"innocent"}`),
		"n5-" + p.id + "-net5": `{"kind":`,
	} {
		h.write("state/cni/results/"+name, content)
	}
	h.must("DEL", p)
	if _, err := os.Stat(h.path("executed")); err == nil {
		t.Error("a plugin of a made-up entry was executed")
	}
	if leases := h.leases(); len(leases) != 2 {
		t.Errorf("leases %q, want those of the bystander", leases)
	}
	if left := globbed(t, h.path("state/cni/results/*-"+p.id+"-*")); len(left) > 0 {
		t.Errorf("left %q", left)
	}
	if data, err := os.ReadFile(h.path("elsewhere")); err != nil || string(data) != "not yours" {
		t.Errorf("a file elsewhere was changed: %q %v", data, err)
	}
	h.survives(bystander)
}

// TestHostileLinks: where a file of Braid's or libcni's will be, there is a link to another:
// nothing is written through it.
func TestHostileLinks(t *testing.T) {
	for name, c := range map[string]struct {
		place string
		word  string // of the error, if the ADD is refused until the link is removed
	}{
		"lock":            {"state/sandboxes/id-p.json.lock", "id-p.json.lock"},
		"unfinished":      {"state/sandboxes/id-p.json.tmp", "id-p.json"},
		"record":          {"state/sandboxes/id-p.json", "id-p.json"},
		"cache":           {"state/cni/results/a-id-p-net1", ""},
		"status":          {"manifests/default_p.network-status.json", "network-status of pod default/p"},
		"events":          {"manifests/default_p.events.jsonl", ""},
		"unfinished file": {"manifests/.braid.tmp", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h, bystander := hostileHost(t)
			p := h.pod("p", "a")
			h.write("elsewhere", "not yours")
			if err := os.Symlink(h.path("elsewhere"), h.path(c.place)); err != nil {
				t.Fatal(err)
			}
			if c.word != "" {
				out, failed := h.call("ADD", p)
				if failed == nil || !strings.Contains(failed.Msg, c.word) {
					t.Errorf("the ADD does not say %q: %v %s", c.word, failed, out)
				}
				h.has(p)
				os.Remove(h.path(c.place)) //nolint:errcheck // braid may have
			}
			h.must("ADD", p)
			h.has(p, "eth0", "net1")
			h.must("CHECK", p)
			h.must("DEL", p)
			h.removed(p, bystander, h.path("elsewhere"))
		})
	}
}
