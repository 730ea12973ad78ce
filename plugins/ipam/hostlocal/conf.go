package hostlocal

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/utils"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/ipam/file"
	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/plugin/ipam"
)

// defaultDataDir is the directory of the reference.
const (
	dataDirKey     = "ipam.dataDir"
	defaultDataDir = "/var/lib/cni/networks"
)

// Conf is the plugin's configuration, the object "ipam".
type Conf struct {
	Type string `json:"type"`
	// Range is a range set of one range, before those of Ranges. Without a subnet it does not count,
	// as in the reference.
	Range
	// Ranges are range sets: a pod gets an address of each.
	Ranges [][]Range `json:"ranges"`
	// Routes are returned as they are.
	Routes []ipam.Route `json:"routes"`
	// DataDir is an absolute path beneath one of Plugin.Roots, /var/lib/cni/networks by default. In
	// it is a directory for each network.
	DataDir string `json:"dataDir"`
	// ResolvConf is a file in the format of resolv.conf(5), beneath one of Plugin.ResolvConf, that
	// is returned as the pod's DNS.
	ResolvConf string `json:"resolvConf"`
}

// Range is a run of addresses of a subnet.
type Range struct {
	// Subnet is a CIDR without host bits, with room for four addresses at least.
	Subnet string `json:"subnet"`
	// RangeStart and RangeEnd are the first and the last address; by default those of the subnet,
	// without network and IPv4 broadcast.
	RangeStart string `json:"rangeStart,omitempty"`
	RangeEnd   string `json:"rangeEnd,omitempty"`
	// Gateway is returned with each address, and given to nobody; by default the first address of the
	// subnet.
	Gateway string `json:"gateway,omitempty"`
}

// store returns where the network's leases are.
func (p Plugin) store(req *plugin.Request, c *Conf) (*file.Store, error) {
	dir, err := req.DataDir(dataDirKey, c.DataDir, defaultDataDir, p.Roots)
	if err != nil {
		return nil, err
	}
	if err := utils.ValidateNetworkName(req.Network); err != nil {
		return nil, plugin.ConfError("name", req.Network, err.Error())
	}
	return &file.Store{
		DataDir: dir.String(), Roots: dir.Roots(), Network: req.Network,
		Beside: req.Limits.OtherName(req.Network), Boot: p.Boot,
	}, nil
}

// Judge holds the paths of a configuration to what the node's administrator allows.
func (p Plugin) Judge(c *Conf) error {
	if _, err := plugin.DataDir(dataDirKey, c.DataDir, defaultDataDir, p.Roots); err != nil {
		return err
	}
	return p.judgeResolvConf(c.ResolvConf)
}

// sets returns the range sets: those that the runtime gives, the one of the configuration itself,
// and those of its key ranges.
func (c *Conf) sets(req *plugin.Request) ([]file.Set, error) {
	var runtime struct {
		Ranges [][]Range `json:"ipRanges"`
	}
	if err := plugin.Part("runtimeConfig", req.Runtime, &runtime); err != nil {
		return nil, err
	}
	sets, err := parseSets(nil, "runtimeConfig.ipRanges", runtime.Ranges)
	if err != nil {
		return nil, err
	}
	if c.Subnet == "" {
		err = c.checkUnused()
	} else {
		var r file.Range
		r, err = c.parse("ipam")
		sets = append(sets, file.Set{r})
	}
	if err != nil {
		return nil, err
	}
	if sets, err = parseSets(sets, "ipam.ranges", c.Ranges); err != nil {
		return nil, err
	}
	return sets, disjoint(sets)
}

// checkUnused looks at the keys that do not count without a subnet: they are no excuse for
// nonsense.
func (r Range) checkUnused() error {
	for _, f := range []struct{ key, value string }{
		{"gateway", r.Gateway}, {"rangeStart", r.RangeStart}, {"rangeEnd", r.RangeEnd},
	} {
		if f.value == "" {
			continue
		}
		if _, err := plugin.ParseAddr("ipam."+f.key, f.value); err != nil {
			return err
		}
	}
	return nil
}

// parseSets appends the range sets that are the value of key. The ranges of a set are of one
// family: a pod gets one address of it.
func parseSets(sets []file.Set, key string, list [][]Range) ([]file.Set, error) {
	for i, ranges := range list {
		key := fmt.Sprintf("%s[%d]", key, i)
		if len(ranges) == 0 {
			return nil, plugin.ConfError(key, []Range{}, "a range set has one range at least")
		}
		var set file.Set
		for j, r := range ranges {
			at := fmt.Sprintf("%s[%d]", key, j)
			parsed, err := r.parse(at)
			if err != nil {
				return nil, err
			}
			if set = append(set, parsed); parsed.First.Is4() != set[0].First.Is4() {
				return nil, plugin.ConfError(at+".subnet", r.Subnet,
					"is of another family than the set's first, "+ranges[0].Subnet)
			}
		}
		sets = append(sets, set)
	}
	return sets, nil
}

// parse reads a range, with what it leaves out.
func (r Range) parse(key string) (file.Range, error) {
	subnet, err := parseSubnet(key+".subnet", r.Subnet)
	if err != nil {
		return file.Range{}, err
	}
	parsed := file.Range{Subnet: subnet}
	first := subnet.Addr().Next()
	for _, f := range []struct {
		key, value string
		fallback   netip.Addr
		into       *netip.Addr
	}{
		{key + ".gateway", r.Gateway, first, &parsed.Gateway},
		{key + ".rangeStart", r.RangeStart, first, &parsed.First},
		{key + ".rangeEnd", r.RangeEnd, lastOf(subnet), &parsed.Last},
	} {
		if *f.into = f.fallback; f.value == "" {
			continue
		}
		addr, err := plugin.ParseAddr(f.key, f.value)
		if err != nil {
			return file.Range{}, err
		}
		if addr.BitLen() != first.BitLen() || f.into != &parsed.Gateway && !subnet.Contains(addr) {
			return file.Range{}, plugin.ConfError(f.key, f.value, "is not of the subnet "+r.Subnet)
		}
		*f.into = addr
	}
	if parsed.Last.Less(parsed.First) {
		return file.Range{}, plugin.ConfError(key+".rangeEnd", parsed.Last.String(),
			"is before rangeStart "+parsed.First.String())
	}
	return parsed, nil
}

// parseSubnet reads the value of key, a subnet without host bits and with room for pods.
func parseSubnet(key, text string) (netip.Prefix, error) {
	subnet, err := plugin.ParsePrefix(key, text)
	switch {
	case err != nil:
		return subnet, err
	case subnet.Masked() != subnet:
		return subnet, plugin.ConfError(key, text,
			"has host bits set; the network is "+subnet.Masked().String())
	case subnet.Bits() > subnet.Addr().BitLen()-2:
		return subnet, plugin.ConfError(key, text, "is too small: it has fewer than four addresses")
	}
	return subnet, nil
}

// lastOf returns the last address of a subnet that is given away: not the broadcast address of
// IPv4.
func lastOf(subnet netip.Prefix) netip.Addr {
	bytes := subnet.Addr().AsSlice()
	for bit := subnet.Bits(); bit < len(bytes)*8; bit++ {
		bytes[bit/8] |= 1 << (7 - bit%8)
	}
	last, _ := netip.AddrFromSlice(bytes)
	if last.Is4() {
		return last.Prev()
	}
	return last
}

// disjoint returns an error where two ranges have an address in common.
func disjoint(sets []file.Set) error {
	all := slices.Concat(sets...)
	slices.SortFunc(all, func(a, b file.Range) int { return a.First.Compare(b.First) })
	for i := 1; i < len(all); i++ {
		// If a range reaches into any other one, it reaches into the next one.
		if !all[i-1].Last.Less(all[i].First) {
			return plugin.ConfError("ipam.ranges", fmt.Sprint(all[i-1], " ", all[i]), "the ranges overlap")
		}
	}
	return nil
}

// wishes assigns each address that the pod asks for to its range set.
func wishes(req *plugin.Request, sets []file.Set) ([]file.Wish, error) {
	list := make([]file.Wish, len(sets))
	for i, set := range sets {
		list[i].Set = set
	}
	asked, err := requests(req)
	if err != nil {
		return nil, err
	}
	done := map[netip.Addr]bool{}
	for _, a := range asked {
		if done[a.Addr] {
			continue
		}
		done[a.Addr] = true
		if err := grant(list, a); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// askAnother is what a pod can do whose address it cannot have.
const askAnother = "ask for another address"

// grant assigns an address that a pod asks for to the range set that has it.
func grant(list []file.Wish, a ipam.Asked) error {
	for i := range list {
		r, ok := list[i].Set.Find(a.Addr)
		switch {
		case !ok:
			continue
		case a.Addr == r.Gateway:
			return failure.WithFix(plugin.ConfError(a.Key, a.Value, "is the gateway of "+r.Subnet.String()),
				askAnother)
		case list[i].Asked.IsValid():
			return failure.WithFix(plugin.ConfError(a.Key, a.Value,
				fmt.Sprintf("is of the same range set as %s, and a range set gives one address",
					list[i].Asked)), "ask for one address of each range set")
		}
		list[i].Asked = a.Addr
		return nil
	}
	var ranges []string
	for _, w := range list {
		for _, r := range w.Set {
			ranges = append(ranges, r.String())
		}
	}
	return failure.WithFix(plugin.ConfError(a.Key, a.Value, "is in none of the ranges"),
		"ask for an address of "+strings.Join(ranges, ", "))
}

// requests returns the addresses that the pod asks for.
func requests(req *plugin.Request) ([]ipam.Asked, error) {
	var env struct {
		types.CommonArgs
		IP types.UnmarshallableString
	}
	if err := req.Env(&env); err != nil {
		return nil, err
	}
	return ipam.AskedBy(req, string(env.IP))
}

// Validate judges the ranges and the routes.
func (c *Conf) Validate() error {
	if _, err := ipam.Routes(c.Routes); err != nil {
		return err
	}
	_, err := c.sets(&plugin.Request{})
	return err
}
