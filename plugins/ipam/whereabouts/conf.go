package whereabouts

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"

	"github.com/braid-cni/braid/pkg/ipam/alloc"
	"github.com/braid-cni/braid/pkg/ipam/block"
	"github.com/braid-cni/braid/pkg/loglevel"
	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/plugin/ipam"
)

// Conf is the plugin's configuration, the object "ipam", with the keys of the reference. What it
// leaves out the flat file may have.
type Conf struct {
	Type string `json:"type"`
	// Range is the first range, before IPRanges; without the key range there is none.
	Range
	// IPRanges are ranges: a pod gets an address of each.
	IPRanges []Range `json:"ipRanges"`
	// Gateway is returned with each allocated address of its family, and given to nobody.
	Gateway string `json:"gateway"`
	// Routes are returned as they are.
	Routes []ipam.Route `json:"routes"`
	// Addresses are returned after the allocated ones, to every pod the same.
	Addresses []ipam.Address `json:"addresses"`
	// DNS is returned as it is.
	DNS types.DNS `json:"dns"`
	// NetworkName makes addresses unique among the networks of that name only.
	NetworkName string `json:"network_name"`
	// OverlappingRanges is true if an address is unique also among ranges that overlap: true by
	// default. False makes it unique in its own range only.
	OverlappingRanges *bool `json:"enable_overlapping_ranges"`
	// LogFile is a file of the plugin's own for its log, beneath one of Plugin.Logs; by default it
	// is the caller's.
	LogFile string `json:"log_file"`
	// LogLevel is how much is written to LogFile: a name of pkg/loglevel, info by default.
	LogLevel string `json:"log_level"`
	// ConfigurationPath is where the flat file is looked for first, if Plugin.Trusting.
	ConfigurationPath string `json:"configuration_path"`
	// Kubernetes says how to reach the API server; used where the plugin is not part of Braid.
	Kubernetes Kubernetes `json:"kubernetes"`
	Unused
}

// Range is a run of addresses of a subnet.
type Range struct {
	// Range is a CIDR, which may have host bits, or "start-end/length".
	Range string `json:"range"`
	// RangeStart and RangeEnd are the first and the last address; by default those of the subnet,
	// without network and IPv4 broadcast.
	RangeStart string `json:"range_start,omitempty"`
	RangeEnd   string `json:"range_end,omitempty"`
	// Exclude are CIDRs and addresses that nobody gets.
	Exclude []string `json:"exclude,omitempty"`
}

// Kubernetes says how to reach the API server.
type Kubernetes struct {
	// Kubeconfig is a file; used if Plugin.Trusting.
	Kubeconfig string `json:"kubeconfig"`
	// APIRoot has no effect, as in the reference.
	APIRoot string `json:"k8s_api_root"`
}

// Unused are keys of the reference that have no effect here: nobody is elected, no node has a
// slice, the store is the API.
type Unused struct {
	LeaderLeaseDuration int    `json:"leader_lease_duration"`
	LeaderRenewDeadline int    `json:"leader_renew_deadline"`
	LeaderRetryPeriod   int    `json:"leader_retry_period"`
	NodeSliceSize       string `json:"node_slice_size"`
	SleepForRace        int    `json:"sleep_for_race"`
	ReconcilerCron      string `json:"reconciler_cron_expression"`
	Datastore           string `json:"datastore"`
	EtcdHost            string `json:"etcd_host"`
	EtcdUsername        string `json:"etcd_username"`
	EtcdPassword        string `json:"etcd_password"`
	EtcdKeyFile         string `json:"etcd_key_file"`
	EtcdCertFile        string `json:"etcd_cert_file"`
	EtcdCACertFile      string `json:"etcd_ca_cert_file"`
}

// unusedKeys names the keys of Unused that are set.
func (c *Conf) unusedKeys() []string {
	var keys []string
	for key, value := range fieldsOf(&c.Unused) {
		if !value.IsZero() {
			keys = append(keys, key)
		}
	}
	return keys
}

// plan is what a configuration says that a pod gets.
type plan struct {
	// wishes are one for each range.
	wishes []block.Wish
	// only are the ranges that the wishes' addresses are unique in; empty for the whole space.
	only []string
	// gateway is not valid where there is none.
	gateway netip.Addr
	routes  []*types.Route
	static  []address
}

// address is a ipam.Address that was read.
type address struct {
	prefix netip.Prefix
	// gateway is not valid where there is none.
	gateway netip.Addr
}

// plan reads all of the configuration. Errors name the key, as it would be inline, and the value.
func (c *Conf) plan() (*plan, error) {
	p := &plan{}
	if err := errors.Join(c.checkLog(), c.checkRanges()); err != nil {
		return nil, err
	}
	reserved, err := c.others(p)
	if err != nil {
		return nil, err
	}
	if c.Range.Range != "" {
		if err := c.wish(p, "ipam", c.Range, reserved); err != nil {
			return nil, err
		}
	}
	for i, r := range c.IPRanges {
		if err := c.wish(p, fmt.Sprintf("ipam.ipRanges[%d]", i), r, reserved); err != nil {
			return nil, err
		}
	}
	return p, c.checkGateway(p)
}

// checkLog refuses a level that is none of pkg/loglevel.
func (c *Conf) checkLog() error {
	if _, err := loglevel.Name(c.LogLevel); err != nil {
		return plugin.ConfError("ipam.log_level", c.LogLevel,
			"is none of debug, verbose, info, warn, error, panic")
	}
	return nil
}

// checkRanges sees to it that there are addresses to give, and that no key is of a range that there
// is not.
func (c *Conf) checkRanges() error {
	const missing = "is of the key range, which is missing"
	switch {
	case c.Range.Range != "":
	case c.RangeStart != "":
		return plugin.ConfError("ipam.range_start", c.RangeStart, missing)
	case c.RangeEnd != "":
		return plugin.ConfError("ipam.range_end", c.RangeEnd, missing)
	case len(c.Exclude) > 0:
		return plugin.ConfError("ipam.exclude", c.Exclude,
			missing+"; each of ipRanges has an exclude of its own")
	case len(c.IPRanges) == 0 && len(c.Addresses) == 0:
		return plugin.ConfError("ipam.range", "", "is missing, and so is ipRanges")
	}
	return nil
}

// others reads all but the ranges. It returns the addresses that are somebody's.
func (c *Conf) others(p *plan) (reserved []netip.Addr, err error) {
	if c.Gateway != "" {
		var ok bool
		if p.gateway, ok = alloc.ParseAddr(c.Gateway); !ok {
			return nil, plugin.ConfError("ipam.gateway", c.Gateway, "is no IP address")
		}
		reserved = append(reserved, p.gateway)
	}
	if p.routes, err = ipam.Routes(c.Routes); err != nil {
		return nil, err
	}
	for _, r := range p.routes {
		gateway, _ := netip.AddrFromSlice(r.GW)
		reserved = append(reserved, gateway.Unmap())
	}
	for i, a := range c.Addresses {
		prefix, gateway, err := a.Parse(fmt.Sprintf("ipam.addresses[%d]", i))
		if err != nil {
			return nil, err
		}
		p.static = append(p.static, address{prefix, gateway})
		reserved = append(reserved, prefix.Addr(), gateway)
	}
	return reserved, nil
}

// wish adds that for an address of a range.
func (c *Conf) wish(p *plan, key string, r Range, reserved []netip.Addr) error {
	window, err := r.window(reserved)
	if bad, ok := errors.AsType[*alloc.Error](err); ok {
		return plugin.ConfError(key+"."+bad.Field, bad.Value, bad.Reason)
	}
	if err != nil {
		return err
	}
	only := ""
	if c.OverlappingRanges != nil && !*c.OverlappingRanges {
		only = window.Prefix().String()
	}
	p.wishes = append(p.wishes, block.Wish{Space: block.SpaceOf(c.NetworkName, only), Window: window})
	p.only = append(p.only, only)
	return nil
}

// beside has the wishes avoid what the network holds in other spaces.
func (p *plan) beside(networkNames []string) {
	for i := range p.wishes {
		for _, name := range networkNames {
			p.wishes[i].Beside = append(p.wishes[i].Beside, block.SpaceOf(name, p.only[i]))
		}
	}
}

// window returns the addresses of the range that pods can get. None of reserved is among them.
func (r Range) window(reserved []netip.Addr) (*alloc.Window, error) {
	prefix, start, end, err := alloc.ParseRange(r.Range, r.RangeStart, r.RangeEnd)
	if err != nil {
		return nil, err
	}
	exclude, err := alloc.ParseExclude(r.Exclude)
	if err != nil {
		return nil, err
	}
	return alloc.NewWindow(prefix, start, end, exclude, reserved)
}

// checkGateway sees to it that the gateway is of use.
func (c *Conf) checkGateway(p *plan) error {
	if !p.gateway.IsValid() || len(p.wishes) == 0 {
		return nil
	}
	for _, w := range p.wishes {
		if w.Window.Prefix().Addr().BitLen() == p.gateway.BitLen() {
			return nil
		}
	}
	return plugin.ConfError("ipam.gateway", c.Gateway,
		"is of another family than the range "+p.wishes[0].Window.Prefix().String())
}

// addrs has one address of each subnet that a pod gets an address of.
func (p *plan) addrs() []netip.Addr {
	var addrs []netip.Addr
	for _, w := range p.wishes {
		addrs = append(addrs, w.Window.Prefix().Addr())
	}
	for _, a := range p.static {
		addrs = append(addrs, a.prefix.Addr())
	}
	return addrs
}

// Validate judges the configuration as it is. The range that it lacks the flat file may have.
func (c *Conf) Validate() error {
	whole := *c
	if whole.Range.Range == "" {
		whole.Range = Range{}
		if len(c.IPRanges) == 0 && len(c.Addresses) == 0 {
			return nil
		}
	}
	_, err := whole.plan()
	return err
}
