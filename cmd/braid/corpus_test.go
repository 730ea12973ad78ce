package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"sigs.k8s.io/yaml"

	"github.com/braid-cni/braid/cmd/internal/node"
	"github.com/braid-cni/braid/e2e/corpus"
	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/conf"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/kube/manifests"
	"github.com/braid-cni/braid/pkg/lint"
	"github.com/braid-cni/braid/pkg/nettest"
)

// outcome is what becomes of a file of the corpus.
type outcome struct {
	// kinds are links that the kernel must have.
	kinds []string
	// plugin is another plugin that has to be there.
	plugin string
	// refused is the reason for which the first pod does not start, says are words of the error.
	refused string
	says    []string
	// pods are what is expected of each pod; the last one of all that follow, too.
	pods []expectation
	// more are further NADs by name.
	more map[string]string
	// nodeLinks are links of the node while the pods run, besides masters, bridges and their ports.
	nodeLinks []string
}

// expectation is of a pod: its interfaces but eth0, each with what begins its addresses, and its
// MAC if that was asked for; routes that it has among others; its default routes if they are not
// eth0's; and the reasons of its warnings.
type expectation struct {
	has, routes, defaults, warned []string
}

// outcomes are those of the files, by name.
func outcomes() map[string]outcome {
	attach := func(has ...string) outcome { return outcome{pods: []expectation{{has: has}}} }
	kept := []string{"DefaultRouteKept"}
	return map[string]outcome{
		"01": {pods: []expectation{
			{
				has:    []string{"net1 10.102.1.101/24 c2:b0:57:49:47:f1"},
				warned: []string{"DefaultRouteKept", "IgnoredKey"},
			},
		}},
		"03": {pods: []expectation{
			{has: []string{"net1 10.102.1.21/24"}, defaults: []string{"default via 10.102.1.254 dev net1"}},
			{has: []string{"net1 10.102.1.22/24"}},
		}},
		"04": {pods: []expectation{
			{has: []string{"net1 10.102.1.11/24"}}, {has: []string{"net1 10.102.1.12/24"}},
		}},
		"06": attach("net1 10.41."),
		"08": attach("net1 10.96.6."),
		"12": attach("net1 10.96.12."),
		"15": {pods: []expectation{{has: []string{"net1 10.146.200."}, warned: kept}}},
		"17": {pods: []expectation{{has: []string{"net1 10.146.1.2"}, warned: kept}}},
		"20": {kinds: []string{"ipvlan"}, pods: []expectation{
			{has: []string{"n3 10.77.53.233/29"}, warned: []string{"DefaultRouteKept", "IgnoredKey"}},
		}},
		"22": {pods: []expectation{{has: []string{"n3 10.182.0.2/24"}, warned: []string{"IgnoredKey"}}}},
		"23": attach("eth1 10.172.30.", "eth2 10.172.30."),
		"24": attach("access 10.146.252.3/24 00:00:00:00:00:03"),
		"27": {pods: []expectation{
			{has: []string{"net1 10.146.0."}, routes: []string{"10.146.252.0/22 dev net1"}},
		}},
		"30": attach("net1 10.146.122.30/24 fd00:aaaa::30/64"),
		"33": attach("pod16367aacb67 02:00:00:00:00:01"),
		"34": {refused: "PluginNotFound", says: []string{"cnv-bridge", "install the plugin"}},
		"42": {
			kinds: []string{"ipvlan"}, plugin: routeOverride,
			pods: []expectation{
				{
					has:    []string{"net1 10.146.12.5/24"},
					routes: []string{"10.146.8.0/24 via 10.146.12.1 dev net1"},
				},
			},
		},
		"46": {
			kinds: []string{"ipvlan", "vlan"}, refused: "PluginFailed",
			says: []string{"static", "address"},
		},
		"52": {
			kinds: []string{"vlan"}, plugin: routeOverride, nodeLinks: []string{"vlan"},
			pods: []expectation{
				{has: []string{"net1 10.47.1.20/26"}, routes: []string{"10.47.2.0/26 via 10.47.1.1 dev net1"}},
			},
		},
		// its log lies elsewhere than logs may
		"56": {pods: []expectation{{has: []string{"net1 10.146.2.22"}, warned: []string{"IgnoredKey"}}}},
	}
}

// TestCorpus runs the pods of real users as they are.
func TestCorpus(t *testing.T) {
	t.Parallel()
	files, err := corpus.All()
	if err != nil {
		t.Fatal(err)
	}
	all := outcomes()
	if len(files) != len(all) {
		t.Errorf("%d files, and %d are expected", len(files), len(all))
	}
	for _, f := range files {
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			all[f.Name].hold(t, f)
		})
	}
}

// hold runs the pods of a file, and compares.
func (o outcome) hold(t *testing.T, f corpus.File) {
	nettest.NeedsLink(t, o.kinds...)
	if o.plugin != "" {
		absent := outcome{refused: "PluginNotFound", says: []string{o.plugin, "install the plugin in "}}
		absent.hold(t, f)
	}
	c := newCorpusHost(t, f)
	o.others(c.host)
	if o.plugin != "" {
		c.install(o.plugin)
	}
	if o.refused != "" {
		p := c.pods[0]
		_, err := c.call("ADD", p)
		for _, word := range append(o.says, f.NAD.Namespace+"/"+f.NAD.Name) {
			if err == nil || !strings.Contains(err.Msg, word) {
				t.Errorf("the error does not say %q: %v", word, err)
			}
		}
		same(t, "reason", c.lastEvent(p).Reason, o.refused)
		// no other is known before
		if _, reasons := c.planned(p); o.refused == string(failure.PluginNotFound) {
			same(t, "planned", reasons, []string{o.refused})
		}
	}
	for i, want := range o.pods {
		c.add(c.pods[i])
		c.meets(c.pods[i], want)
	}
	for i := len(o.pods); o.refused == "" && i < len(c.pods); i++ {
		c.add(c.pods[i])
		c.meets(c.pods[i], o.pods[len(o.pods)-1])
	}
	same(t, "links of the node", c.more(), o.nodeLinks)
	for _, p := range c.pods {
		if o.refused == "" {
			c.must("CHECK", p)
		}
		c.must("DEL", p)
	}
	c.gone()
}

// TestCorpusOfTenants: in a tenant's namespace each pod is attached, or refused with the rule that
// would allow it; with that rule the policy has nothing against it.
func TestCorpusOfTenants(t *testing.T) {
	t.Parallel()
	files, err := corpus.All()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		t.Run(f.Name, func(t *testing.T) {
			t.Parallel()
			outcomes()[f.Name].ofTenant(t, f)
		})
	}
}

// ofTenant runs the first pod of a file in a tenant's namespace.
func (o outcome) ofTenant(t *testing.T, f corpus.File) {
	nettest.NeedsLink(t, o.kinds...)
	c := newCorpusHost(t, f)
	o.others(c.host)
	c.conf["globalNamespaces"], c.conf["namespaceIsolation"] = "nobodys", false
	p := c.pods[0]
	for namespace := range map[string]bool{f.NAD.Namespace: true, p.namespace: true} {
		c.write("manifests/tenant-"+namespace+".yaml", fmt.Sprintf(
			`{"apiVersion":"v1","kind":"Namespace","metadata":{"name":%q,`+
				`"labels":{"braid-cni.io/tenant":""}}}`, namespace))
	}
	_, failed := c.call("ADD", p)
	switch reason := c.lastEvent(p).Reason; {
	case failed == nil:
		t.Log("it is attached", c.events(p))
	case reason == string(failure.PolicyRefused):
		_, text, found := strings.Cut(failed.Msg, `add to "braid": {"policy": [...]}: `)
		var rule map[string]any
		err := json.Unmarshal([]byte(text), &rule)
		if !found || err != nil || !strings.Contains(failed.Msg, "namespace "+f.NAD.Namespace) &&
			!strings.Contains(failed.Msg, "tenant's default") {
			t.Fatalf("it does not say what would allow it: %s", failed.Msg)
		}
		c.allow(rule)
		if _, again := c.call("ADD", p); again != nil && c.lastEvent(p).Reason == reason {
			t.Errorf("with %s: %s", text, again.Msg)
		}
	case reason != o.refused && o.plugin == "":
		t.Error(failed.Msg)
	}
	c.must("DEL", p)
	c.gone()
}

// corpusHost is a node with the masters that the files name.
type corpusHost struct {
	*host
	pods   []*pod
	before []string
}

// corpusMasters are all that files name; the node's default route leads over the first.
func corpusMasters() []string {
	return []string{
		"eth0", "eth1", "ens4", "tenant-bond", "br-ex", "ospbr", "bond0", "ens18", "eth1.2",
	}
}

func newCorpusHost(t *testing.T, f corpus.File) *corpusHost {
	t.Helper()
	c := &corpusHost{host: newHost(t)}
	far := nettest.New(t)
	for i, name := range corpusMasters() {
		c.node.Veth(name, far, fmt.Sprintf("far%d", i))
	}
	c.node.Addr("eth0", "192.0.2.2/24")
	c.node.Route("default", "192.0.2.1", "eth0", 0)
	c.write("manifests/nad.yaml", string(manifest(t, f.NAD)))
	for _, p := range f.Pods {
		made := c.pod(p.Namespace+"/"+p.Name, p.Annotations[nadv1.NetworksAnnotation])
		// the leases of all are in one directory
		made.id = fmt.Sprintf("%x-%s", sha256.Sum256([]byte(t.Name())), p.Name)
		c.pods = append(c.pods, made)
	}
	c.before = c.links()
	return c
}

func manifest(t *testing.T, object any) []byte {
	t.Helper()
	data, err := yaml.Marshal(object)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// install puts a plugin of the tests' own, which calls the test binary, into the plugin path.
func (c *corpusHost) install(plugin string) {
	c.t.Helper()
	binary, err := filepath.Abs(c.braid)
	if err != nil {
		c.t.Fatal(err)
	}
	c.script(plugin, asOverride+"=1 exec "+binary)
}

// routeOverride is a plugin that users install, which adds the routes of its key addroutes. With
// asOverride in its environment the test binary is a small one of that kind.
const (
	routeOverride = "route-override"
	asOverride    = "BRAID_TEST_AS_ROUTE_OVERRIDE"
)

func overrideRoutes() int {
	var conf struct {
		PrevResult json.RawMessage
		AddRoutes  []struct{ Dst, GW string }
	}
	switch os.Getenv("CNI_COMMAND") {
	case "VERSION":
		fmt.Println(`{"cniVersion":"1.0.0","supportedVersions":["0.3.0","0.3.1","0.4.0","1.0.0"]}`)
	case "ADD":
		if err := json.NewDecoder(os.Stdin).Decode(&conf); err != nil {
			return 1
		}
		for _, r := range conf.AddRoutes {
			cmd := exec.CommandContext(context.Background(), "nsenter", "--net="+os.Getenv("CNI_NETNS"),
				"ip", "route", "add", r.Dst, "via", r.GW, "dev", os.Getenv("CNI_IFNAME"))
			if out, err := cmd.CombinedOutput(); err != nil {
				fmt.Printf(`{"code":100,"msg":%q}`, out)
				return 1
			}
		}
		fmt.Println(string(conf.PrevResult))
	}
	return 0
}

// links are the node's, but for bridges and their ports.
func (c *corpusHost) links() []string {
	list, err := c.node.Netlink().LinkList()
	if err != nil {
		c.t.Fatal(err)
	}
	var names []string
	for _, l := range list {
		if _, isBridge := l.(*netlink.Bridge); !isBridge && l.Attrs().MasterIndex == 0 {
			names = append(names, l.Type()+" "+l.Attrs().Name)
		}
	}
	return names
}

// more are the kinds of links that have come since the host was made.
func (c *corpusHost) more() (kinds []string) {
	for _, l := range c.links() {
		if kind, _, _ := strings.Cut(l, " "); !slices.Contains(c.before, l) {
			kinds = append(kinds, kind)
		}
	}
	return kinds
}

// meets compares a pod with what is expected of it.
func (c *corpusHost) meets(p *pod, want expectation) {
	t := c.t
	t.Helper()
	status := c.status(p)
	same(t, "interfaces", len(interfaces(p)), len(want.has)+1)
	same(t, "entries of the status", len(status), len(want.has)+1)
	for i, text := range want.has {
		name, rest, _ := strings.Cut(text, " ")
		addrs := addressesOf(p, name)
		for _, part := range strings.Fields(rest) {
			isMAC := strings.Count(part, ":") == 5
			if isMAC {
				same(t, "MAC", mac(p, name), part)
			} else if !slices.ContainsFunc(addrs, func(a string) bool {
				return strings.HasPrefix(a, part)
			}) {
				t.Errorf("%s of pod %s has addresses %q, want %s", name, p.name, addrs, part)
			}
		}
		got := status[i+1]
		same(t, "interface in the status", got.Interface, name)
		same(t, "MAC in the status", got.Mac, mac(p, name))
		var bare []string
		for _, a := range addrs {
			ip, _, _ := net.ParseCIDR(a)
			bare = append(bare, ip.String())
		}
		slices.Sort(got.IPs)
		slices.Sort(bare)
		same(t, "addresses in the status", got.IPs, bare)
	}
	routes := strings.Join(table(p, 4, "main"), "\n")
	for _, route := range want.routes {
		if !strings.Contains(routes, route) {
			t.Errorf("pod %s has no route %s: %s", p.name, route, routes)
		}
	}
	if want.defaults == nil {
		want.defaults = []string{viaEth0}
	}
	same(t, "default routes", allDefaults(p), want.defaults)
	var warned []string
	audited := 0
	for _, e := range c.events(p) {
		switch {
		case e.Reason == string(failure.PolicyAudited):
			audited++
		case e.Type == "Warning":
			warned = append(warned, e.Reason)
		}
	}
	if audited > 1 {
		t.Errorf("%d events say what the policy would not allow", audited)
	}
	slices.Sort(warned)
	same(t, fmt.Sprint("warnings of ", c.events(p)), warned, want.warned)
	var made []string
	for _, s := range status {
		made = append(made, s.Interface+" "+s.Name)
	}
	planned, reasons := c.planned(p)
	same(t, "planned attachments", planned, made)
	// A plan does not know which families the pod has a default route of.
	same(t, "planned warnings", slices.Compact(reasons), slices.Compact(slices.Clone(want.warned)))
}

// planned is what braidctl would show of a pod on the node: its interfaces with their networks, and
// the reasons of refusals and warnings.
func (c *corpusHost) planned(p *pod) (attachments, reasons []string) {
	t := c.t
	t.Helper()
	raw, err := json.Marshal(c.conf)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := conf.Load(raw)
	if err != nil {
		t.Fatal(err)
	}
	source, err := manifests.New(cfg.Manifests)
	if err != nil {
		t.Fatal(err)
	}
	object, err := source.Pod(t.Context(), p.namespace, p.name)
	if err != nil {
		t.Fatal(err)
	}
	in := lint.Input{
		Config: cfg, Source: source, Finder: node.Judge(&cfg.Node, &cfg.Policy),
		Paths: []string{c.path("bin"), pluginDir(t)}, OnNode: true,
	}
	expected, findings, err := lint.Plan(t.Context(), in, lint.Pod{Kind: "Pod", Pod: *object})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range expected {
		attachments = append(attachments, e.IfName+" "+e.Name)
	}
	for _, f := range findings {
		if f.Reason != failure.PolicyAudited { // nobody's namespace is a tenant's here
			reasons = append(reasons, string(f.Reason))
		}
	}
	slices.Sort(reasons)
	return attachments, reasons
}

// gone fails the test if something of the pods is left on the node.
func (c *corpusHost) gone() {
	c.t.Helper()
	for start := time.Now(); len(c.more()) > 0 && time.Since(start) < 5*time.Second; {
		time.Sleep(10 * time.Millisecond)
	}
	if left := c.more(); len(left) > 0 {
		c.t.Errorf("links are left: %v", left)
	}
	for _, p := range c.pods {
		if left := interfaces(p); len(left) > 0 {
			c.t.Errorf("links are left in pod %s: %v", p.name, left)
		}
	}
	for _, dir := range []string{"state/sandboxes", "state/cni/results", "state/ipam/held"} {
		entries, err := os.ReadDir(c.path(dir))
		if err != nil && !os.IsNotExist(err) {
			c.t.Fatal(err)
		}
		if len(entries) > 0 {
			c.t.Errorf("%s has %v", dir, entries)
		}
	}
	leases, err := filepath.Glob("/var/lib/cni/networks/*/*[.:]*")
	if err != nil {
		c.t.Fatal(err)
	}
	for _, lease := range leases {
		if text, err := os.ReadFile(lease); err == nil && slices.ContainsFunc(c.pods, func(p *pod) bool {
			return strings.HasPrefix(string(text), p.id)
		}) {
			c.t.Errorf("lease %s is left", lease)
		}
	}
}
