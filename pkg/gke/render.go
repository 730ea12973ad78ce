package gke

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"regexp"
	"strings"

	"sigs.k8s.io/yaml"

	nadv1 "github.com/braid-cni/braid/pkg/api/nad/v1"
	"github.com/braid-cni/braid/pkg/nodenet"
)

// Types returns the plugins of the profile.
func Types() []string {
	return []string{
		"bridge", "host-local", "ipvlan", "macvlan", "portmap", "sbr", "static",
		"tuning", "whereabouts",
	}
}

// values are what Helm's chart has of a cluster.
type values struct {
	NodeInterfaces []nodenet.Interface `json:"nodeInterfaces"`
	Config         map[string]any      `json:"config"`
}

const valuesHead = `# Values of Braid's Helm chart, made of %s by braidctl gke render:
#   helm install braid conf/helm/braid --namespace kube-system --values FILE
# Dataplane V2 is Cilium, which renames Braid's configuration to *.cilium_bak unless the values of its
# own chart have
#   cni: {exclusive: false}
# index counts the NICs of a node beyond the primary one in the order of their PCI addresses. Use mac
# or pciAddress in its place where nodes differ.
`

// Values returns values of the Helm chart: the interfaces of the nodes with their addresses, and
// the policy of the profile. The cluster is one that Check has nothing against.
func (c *Cluster) Values() ([]byte, error) {
	if !c.Enabled || !c.DataplaneV2 {
		return nil, fmt.Errorf("%s: multipleNetworkInterfaces is not true; set it, and enableDataplaneV2",
			c.File)
	}
	v := values{Config: profile()}
	for n, i := range c.Interfaces {
		v.NodeInterfaces = append(v.NodeInterfaces, nodenet.Interface{
			Network: i.Network, Match: nodenet.Match{Index: n + 1}, Type: i.Type, Blocks: i.Blocks,
		})
	}
	if problems := nodenet.Check(v.NodeInterfaces); len(problems) > 0 {
		return nil, fmt.Errorf("%s: %s: %w; %s", c.File, problems[0].Path, problems[0].Err,
			problems[0].Fix)
	}
	text, err := yaml.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("encode values: %w", err)
	}
	return append(fmt.Appendf(nil, valuesHead, filepath.Base(c.File)), text...), nil
}

// profile is Braid's configuration of the profile, as in conf/gke/00-braid.conflist.
func profile() map[string]any {
	return map[string]any{
		"namespaceIsolation": true, "logFile": "/var/log/multus.log", "logLevel": "verbose",
		"braid": map[string]any{"policy": []any{map[string]any{
			"namespaces": []string{"*", "default", "kube-system"}, "types": Types(),
			"masters": []string{"*"}, "vlans": []string{"1-4094"}, "bridges": []string{"*"},
			"prefixes":  []string{"0.0.0.0/0", "::/0"},
			"hostPorts": map[string]any{"ports": []string{"1-65535"}, "loopback": true},
			"sysctls":   []string{"net.*"}, "onDisk": true, "defaultNetworks": true,
			"networks": 64, "ranges": 64,
		}}},
	}
}

const networksHead = `# NetworkAttachmentDefinitions of the networks of %s, made by braidctl gke render. Look at
# each before you apply it: "master" is the NIC that kubectl braid nodes shows for the network.
`

// Networks returns a NAD for each network, to begin with. masters are the NICs by network; by
// default the first network's is ens224 and the second's ens256, as on nodes with three NICs.
func (c *Cluster) Networks(masters map[string]string) ([]byte, error) {
	text := fmt.Appendf(nil, networksHead, filepath.Base(c.File))
	seen := map[string]string{}
	for n := range c.Interfaces {
		i := &c.Interfaces[n]
		name, err := objectName(i.Network)
		if err != nil {
			return nil, fmt.Errorf("%s: %s.networkName: %w", c.File, i.path, err)
		}
		if first, taken := seen[name]; taken {
			return nil, fmt.Errorf("%s: %s.networkName: the NAD of %q would have the name %s, as that of "+
				"%q; rename one of the two", c.File, i.path, i.Network, name, first)
		}
		seen[name] = i.Network
		master := masters[i.Network]
		if master == "" && n < 2 {
			master = []string{"ens224", "ens256"}[n]
		}
		if master == "" {
			return nil, fmt.Errorf("%s: %s: the NIC of %s is not known; give it by --master %q",
				c.File, i.path, i.Network, i.Network+"=NIC")
		}
		nad, err := i.nad(name, master)
		if err != nil {
			return nil, err
		}
		text = append(text, nad...)
	}
	return text, nil
}

var notInNames = regexp.MustCompile(`[^a-z0-9]+`)

// objectName returns a Kubernetes name for a network of vCenter.
func objectName(network string) (string, error) {
	name := strings.Trim(notInNames.ReplaceAllString(strings.ToLower(network), "-"), "-")
	if name == "" || len(name) > 63 {
		return "", errors.New("no name of a NAD can be made of it; rename the network")
	}
	return name, nil
}

// nad returns the object of one network.
func (i *Interface) nad(name, master string) ([]byte, error) {
	note, plugins := i.plugins(master)
	config, err := json.MarshalIndent(map[string]any{
		"cniVersion": "1.0.0", "name": name,
		"plugins": plugins,
	}, "", "  ")
	if err != nil {
		return nil, fmt.Errorf("encode network %s: %w", name, err)
	}
	object := map[string]any{
		"apiVersion": nadv1.GroupName + "/" + nadv1.Version, "kind": nadv1.Kind,
		"metadata": map[string]any{"name": name, "namespace": "default"},
		"spec":     map[string]any{"config": string(config) + "\n"},
	}
	text, err := yaml.Marshal(object)
	if err != nil {
		return nil, fmt.Errorf("encode network %s: %w", name, err)
	}
	return append([]byte("---\n"+note), text...), nil
}

// plugins returns the plugins of a network on a master, and a comment about the pods' addresses.
func (i *Interface) plugins(master string) (note string, plugins []any) {
	if i.Type == nodenet.Static && i.file != nil && i.file.addresses != nil {
		return fmt.Sprintf("# Pods get addresses of %s that no node has.\n", i.Network), []any{
			map[string]any{"type": "ipvlan", "master": master, "mode": "l2", "ipam": i.ipam()},
			map[string]any{"type": "sbr"},
		}
	}
	return fmt.Sprintf("# The network %s, whose DHCP server is not asked for pods: add ipam of "+
			"type whereabouts, with a range\n# outside of what the server gives away.\n", i.Network),
		[]any{map[string]any{"type": "macvlan", "master": master, "mode": "bridge"}}
}

// taken returns what nodes and the router have of subnet number n, as prefixes.
func (i *Interface) taken(n int) []string {
	a := i.file.addresses
	taken := []string{netip.PrefixFrom(a.Gateways[n], a.Gateways[n].BitLen()).String()}
	for _, s := range merged(a.Spans) {
		if a.Subnets[n].Contains(s.First) {
			taken = append(taken, prefixes(s)...)
		}
	}
	return taken
}

// ipam is of the first subnet, and of the first of the other family, without what nodes and routers
// have.
func (i *Interface) ipam() map[string]any {
	a := i.file.addresses
	ipam := map[string]any{"type": "whereabouts"}
	var ranges []any
	for n, subnet := range a.Subnets {
		if n > 0 && subnet.Addr().Is4() == a.Subnets[0].Addr().Is4() {
			continue
		}
		if n == 0 {
			ipam["gateway"] = a.Gateways[0].String()
		}
		ranges = append(ranges, map[string]any{"range": subnet.String(), "exclude": i.taken(n)})
		if len(ranges) == 2 {
			break
		}
	}
	if len(ranges) == 1 {
		//nolint:errcheck,forcetypeassert // made above
		for key, value := range ranges[0].(map[string]any) {
			ipam[key] = value
		}
		return ipam
	}
	ipam["ipRanges"] = ranges
	return ipam
}
