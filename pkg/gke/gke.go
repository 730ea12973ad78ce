// Package gke reads what the operator of GKE on VMware writes, the cluster configuration and its IP
// block files, and turns it into what Braid needs.
//
// Contract: the documented keys are read strictly, and each Problem has file, line, field and
// remedy; keys of the rest of a cluster configuration are neither read nor judged. IP block files
// are known whole. Only the files that are named are read, and nothing is written.
package gke

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/nodenet"
	"github.com/braid-cni/braid/pkg/strictjson"
)

// Cluster is what a cluster configuration says of networks.
type Cluster struct {
	File string
	// Enabled is multipleNetworkInterfaces, DataplaneV2 is enableDataplaneV2.
	Enabled, DataplaneV2 bool
	// ServiceCIDR and PodCIDR are invalid where they are absent.
	ServiceCIDR, PodCIDR netip.Prefix
	// Primary is the network of the nodes' primary interface.
	Primary string
	// Interfaces are those beyond it, in their order: the first is that of the first NIC.
	Interfaces []Interface

	reader reader
	blocks map[string]*blockFile
}

// Interface is a network that each node has an interface on.
type Interface struct {
	Network string
	Type    nodenet.Type
	// Blocks is empty unless Type is static.
	Blocks []nodenet.Block

	path string // the field
	file *blockFile
}

// blockFile is an IP block file and what it holds.
type blockFile struct {
	name   string
	reader reader
	blocks []nodenet.Block
	// addresses is nil while something is wrong with the file.
	addresses *nodenet.Addresses
}

// Read reads a cluster configuration and the IP block files that it names. Problems are those of
// the files themselves; Check finds the others. The error is that the cluster configuration cannot
// be read.
func Read(path string) (*Cluster, []Problem, error) {
	c := &Cluster{
		File: path, reader: reader{file: path, lines: map[string]int{}},
		blocks: map[string]*blockFile{},
	}
	root, err := c.reader.open()
	if err != nil {
		return nil, nil, err
	}
	if root != nil {
		c.read(root)
	}
	problems := c.reader.problems
	for _, i := range c.Interfaces {
		if i.file != nil && i.file.reader.problems != nil {
			problems = append(problems, i.file.reader.problems...)
			i.file.reader.problems = nil
		}
	}
	c.reader.problems = nil
	return c, problems, nil
}

// read reads the keys that are about networks. Others are another tool's to judge.
func (c *Cluster) read(root *yaml.Node) {
	r := &c.reader
	top := r.object("", root)
	c.Enabled, c.DataplaneV2 = top.bool("multipleNetworkInterfaces"), top.bool("enableDataplaneV2")
	c.misplaced(top)
	network := r.object("network", top.keys["network"])
	c.ServiceCIDR, c.PodCIDR = c.cidr(network, "serviceCIDR"), c.cidr(network, "podCIDR")
	c.Primary = r.object("network.vCenter", network.keys["vCenter"]).text("networkName")
	network.list("additionalNodeInterfaces", c.readInterface)
}

// misplaced complains about documented keys that are at the top and belong below network, where
// nobody would read them.
func (c *Cluster) misplaced(top *object) {
	for _, key := range []string{"additionalNodeInterfaces", "serviceCIDR", "podCIDR"} {
		if top.keys[key] != nil {
			c.reader.add(c.reader.line(key), key, "move it below network",
				"at the top of the file it has no effect")
		}
	}
}

// cidr reads a range of addresses; invalid if there is none, or if it is a problem.
func (c *Cluster) cidr(o *object, key string) netip.Prefix {
	text := o.text(key)
	if text == "" {
		return netip.Prefix{}
	}
	p, err := netip.ParsePrefix(text)
	if err != nil {
		o.r.add(o.r.line(o.field(key)), o.field(key), `give a CIDR, as "192.168.0.0/16"`,
			"%s is no CIDR", strictjson.Quote(text))
		return netip.Prefix{}
	}
	return p.Masked()
}

// readInterface reads an interface, and the file with its addresses.
func (c *Cluster) readInterface(path string, node *yaml.Node) {
	r := &c.reader
	o := r.object(path, node)
	o.only("networkName", "ipBlockFilePath", "type")
	i := Interface{Network: o.text("networkName"), Type: nodenet.Type(o.text("type")), path: path}
	file, hasFile := o.text("ipBlockFilePath"), o.keys["ipBlockFilePath"] != nil
	switch {
	case i.Type == nodenet.Static && file == "":
		r.add(r.line(path), path+".ipBlockFilePath", "name the file with the nodes' addresses",
			"a static interface has none")
	case i.Type == nodenet.DHCP && hasFile:
		r.add(r.line(path+".ipBlockFilePath"), path+".ipBlockFilePath",
			"remove it, or make the type static", "a dhcp interface has its addresses from a server")
	case i.Type == nodenet.Static:
		i.file = c.blockFile(path+".ipBlockFilePath", file)
	case i.Type != nodenet.DHCP:
		r.add(r.line(path+".type"), path+".type", "use static or dhcp", "%s is no type",
			strictjson.Quote(string(i.Type)))
	}
	if i.file != nil {
		i.Blocks = i.file.blocks
	}
	c.Interfaces = append(c.Interfaces, i)
}

// blockFile reads a file that a field names, once; nil if it cannot be read.
func (c *Cluster) blockFile(field, name string) *blockFile {
	path := name
	if !filepath.IsAbs(path) {
		path = filepath.Join(filepath.Dir(c.File), path)
	}
	if f, ok := c.blocks[path]; ok {
		return f
	}
	f := &blockFile{name: path, reader: reader{file: path, lines: map[string]int{}}}
	root, err := f.reader.open()
	if err != nil {
		fix := "correct the path, which is absolute or begins at the directory of the cluster " +
			"configuration"
		if !errors.Is(err, fs.ErrNotExist) {
			fix = "see that it is a file that you may read"
		}
		c.reader.add(c.reader.line(field), field, fix, "the IP block file cannot be read: %v", err)
		return nil
	}
	if root != nil {
		f.read(root)
	}
	c.blocks[path] = f
	return f
}

// read reads the blocks, and finds the problems within them.
func (f *blockFile) read(root *yaml.Node) {
	r := &f.reader
	top := r.object("", root)
	top.only("blocks")
	top.list("blocks", func(path string, node *yaml.Node) {
		o := r.object(path, node)
		o.only("netmask", "gateway", "ips")
		b := nodenet.Block{Netmask: o.text("netmask"), Gateway: o.text("gateway")}
		o.list("ips", func(path string, node *yaml.Node) {
			e := r.object(path, node)
			e.only("ip", "hostname", "isControlPlane")
			b.IPs = append(b.IPs, nodenet.Entry{
				IP: e.text("ip"), Hostname: e.text("hostname"),
				IsControlPlane: e.bool("isControlPlane"),
			})
		})
		f.blocks = append(f.blocks, b)
	})
	if len(r.problems) > 0 {
		return // what is read of it would be judged twice
	}
	addresses, problems := nodenet.CheckBlocks(f.blocks)
	if len(problems) == 0 {
		f.addresses = addresses
	}
	for _, p := range problems {
		r.add(r.line(p.Path), p.Path, p.Fix, "%v", p.Err)
	}
	slices.SortStableFunc(r.problems, func(a, b Problem) int { return cmp.Compare(a.Line, b.Line) })
}

// Check returns what does not fit together. nodes is how many the cluster is to have; 0 if that is
// not known.
func (c *Cluster) Check(nodes int) []Problem {
	c.enabling()
	if c.ServiceCIDR.IsValid() && c.PodCIDR.IsValid() && c.ServiceCIDR.Overlaps(c.PodCIDR) {
		c.fail("network.podCIDR", "use ranges that share no address",
			"%s overlaps with serviceCIDR, %s", c.PodCIDR, c.ServiceCIDR)
	}
	seen := map[string]string{}
	for n := range c.Interfaces {
		i := &c.Interfaces[n]
		c.checkNetwork(i, seen)
		if i.file != nil && i.file.addresses != nil {
			c.checkBlocks(i, nodes)
		}
	}
	c.apart()
	return c.reader.problems
}

// checkNetwork checks the network of an interface. Those seen so far have their paths in seen.
func (c *Cluster) checkNetwork(i *Interface, seen map[string]string) {
	switch first, taken := seen[i.Network]; {
	case i.Network == "":
		c.fail(i.path+".networkName", "give the name of the network in vCenter",
			"the interface has no network")
	case !nodenet.IsNetworkName(i.Network):
		c.fail(i.path+".networkName", "use letters, numbers, blanks and ._:/()-, at most 80",
			"%s is no name of a network", strictjson.Quote(i.Network))
	case i.Network == c.Primary:
		c.fail(i.path+".networkName", "name another network, or remove the interface",
			"%s is the network of the primary interface", strictjson.Quote(i.Network))
	case taken:
		c.fail(i.path+".networkName", "keep one of the two", "%s is that of %s already",
			strictjson.Quote(i.Network), first)
	}
	seen[i.Network] = i.path
}

// enabling checks that pods can use the interfaces, and that there are some.
func (c *Cluster) enabling() {
	switch {
	case c.Enabled && !c.DataplaneV2:
		c.fail("multipleNetworkInterfaces", "set enableDataplaneV2: true",
			"it needs enableDataplaneV2: true, at the top of the file")
	case !c.Enabled && len(c.Interfaces) > 0:
		c.warn("network.additionalNodeInterfaces",
			"set multipleNetworkInterfaces: true if pods are to use these networks",
			"the nodes have further interfaces, and pods cannot use them")
	}
	if c.Enabled && len(c.Interfaces) == 0 {
		c.warn("multipleNetworkInterfaces", "name the networks in network.additionalNodeInterfaces",
			"no node has a further interface")
	}
}

// clusterRange is a range of addresses that is the cluster's own.
type clusterRange struct {
	key  string
	cidr netip.Prefix
}

// ranges returns those that are known.
func (c *Cluster) ranges() []clusterRange {
	all := []clusterRange{{"podCIDR", c.PodCIDR}, {"serviceCIDR", c.ServiceCIDR}}
	return slices.DeleteFunc(all, func(r clusterRange) bool { return !r.cidr.IsValid() })
}

// checkBlocks judges the addresses of one interface.
func (c *Cluster) checkBlocks(i *Interface, nodes int) {
	a, path := i.file.addresses, i.path+".ipBlockFilePath"
	i.file.checkSubnets(c.ranges())
	c.reader.problems = append(c.reader.problems, i.file.reader.problems...)
	i.file.reader.problems = nil
	switch {
	case nodes > 0 && a.Count <= nodes:
		c.fail(path, fmt.Sprintf("give it %d addresses", nodes+1),
			"%s has %s for %s: each needs one, and an upgrade one more", filepath.Base(i.file.name),
			failure.Count(a.Count, "address"), failure.Count(nodes, "node"))
	case nodes > a.Hosts():
		c.fail(path,
			"give each node an entry with its hostname, the name of the Node, or use type: dhcp",
			"%s has addresses for %s, and the cluster has %s: Braid never guesses which node has an address",
			filepath.Base(i.file.name), failure.Count(a.Hosts(), "hostname"), failure.Count(nodes, "node"))
	case a.Hosts() == 0:
		c.fail(path,
			"give each node an entry with its hostname, the name of the Node, or use type: dhcp",
			"%s has no hostname: Braid never guesses which node has an address", filepath.Base(i.file.name))
	case a.Unnamed > 0:
		c.warn(path, "give each an entry with a hostname, if a node is to have it",
			"%s has %s without a hostname, which no node takes",
			filepath.Base(i.file.name), failure.Count(a.Unnamed, "address"))
	}
}

// checkSubnets checks that the nodes' subnets are not the cluster's own ranges.
func (f *blockFile) checkSubnets(ranges []clusterRange) {
	for n, subnet := range f.addresses.Subnets {
		field := fmt.Sprintf("blocks[%d]", n)
		for _, of := range ranges {
			if subnet.Overlaps(of.cidr) {
				f.reader.add(f.reader.line(field), field,
					"use a subnet that shares no address with those of pods and services",
					"the subnet %s overlaps with %s of the cluster, %s", subnet, of.key, of.cidr)
			}
		}
	}
}

// apart finds addresses that two interfaces have.
func (c *Cluster) apart() {
	var spans []nodenet.Span
	files := map[*blockFile]string{}
	for n := range c.Interfaces {
		i := &c.Interfaces[n]
		if i.file == nil || i.file.addresses == nil {
			continue
		}
		if first, taken := files[i.file]; taken {
			c.fail(i.path+".ipBlockFilePath", "give each network a file of its own",
				"%s is that of %s already", filepath.Base(i.file.name), first)
			continue
		}
		files[i.file] = i.path
		for _, s := range i.file.addresses.Spans {
			spans = append(spans, nodenet.Span{
				First: s.First, Last: s.Last,
				Path: i.file.name + "\x00" + s.Path,
			})
		}
	}
	for _, p := range nodenet.Overlaps(spans) {
		name, path, _ := strings.Cut(p.Path, "\x00")
		c.reader.problems = append(c.reader.problems, Problem{
			File: name, Line: c.blocks[name].reader.line(path), Field: path,
			Message: strings.ReplaceAll(p.Err.Error(), "\x00", ": "), Fix: p.Fix,
		})
	}
}

// fail adds a problem with a field of the cluster configuration.
func (c *Cluster) fail(field, fix, format string, args ...any) {
	c.reader.add(c.reader.line(field), field, fix, format, args...)
}

// warn is fail for what works, and is not what somebody meant.
func (c *Cluster) warn(field, fix, format string, args ...any) {
	c.fail(field, fix, format, args...)
	c.reader.problems[len(c.reader.problems)-1].Warning = true
}

// Wrong reports whether one of the problems is no warning.
func Wrong(problems []Problem) bool {
	return slices.ContainsFunc(problems, func(p Problem) bool { return !p.Warning })
}
