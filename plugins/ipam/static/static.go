// Package static gives a pod the addresses that its configuration, or the pod itself, names.
//
// Contract: plugin.Interface. Nothing is kept: DEL, GC and STATUS have nothing to do, and nobody
// sees to it that two pods do not have the same address.
package static

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/plugin/ipam"
)

// Conf is the plugin's configuration, the object "ipam".
type Conf struct {
	Type string `json:"type"`
	// Addresses are the addresses of the pod, unless it asks for others in their place.
	Addresses []ipam.Address `json:"addresses,omitempty"`
	// Routes are returned as they are.
	Routes []ipam.Route `json:"routes"`
	// DNS is returned as it is.
	DNS types.DNS `json:"dns"`
}

// Plugin is the plugin.
type Plugin struct{}

var _ plugin.Interface[Conf] = Plugin{}

// Add returns the addresses.
func (Plugin) Add(_ context.Context, req *plugin.Request, c *Conf) (*types100.Result, error) {
	addrs, err := c.addresses(req)
	if err != nil {
		return nil, err
	}
	result := &types100.Result{CNIVersion: types100.ImplementedSpecVersion, DNS: c.DNS}
	for _, a := range addrs {
		result.IPs = append(result.IPs,
			&types100.IPConfig{Address: plugin.IPNet(a.prefix), Gateway: a.gateway.AsSlice()})
	}
	result.Routes, err = ipam.Routes(c.Routes)
	return result, err
}

// Del has nothing to do.
func (Plugin) Del(context.Context, *plugin.Request, *Conf) error { return nil }

// Check compares the addresses with prevResult.
func (Plugin) Check(_ context.Context, req *plugin.Request, c *Conf) error {
	addrs, err := c.addresses(req)
	if err != nil {
		return err
	}
	if req.PrevResult == nil {
		return plugin.ConfError("prevResult", nil, "is missing, and CHECK compares with it")
	}
	for _, want := range addrs {
		if !slices.ContainsFunc(req.PrevResult.IPs, want.is) {
			return fmt.Errorf("prevResult has no address %s", want)
		}
	}
	return nil
}

// GC has nothing to do.
func (Plugin) GC(context.Context, *plugin.Request, *Conf) error { return nil }

// Status has nothing to say.
func (Plugin) Status(context.Context, *plugin.Request, *Conf) error { return nil }

// address is a ipam.Address that was read.
type address struct {
	prefix netip.Prefix
	// gateway is not valid where there is none.
	gateway netip.Addr
}

func (a address) String() string {
	if a.gateway.IsValid() {
		return fmt.Sprintf("%s with gateway %s", a.prefix, a.gateway)
	}
	return a.prefix.String()
}

// is reports whether the address is that of a result. Where no gateway is configured, the interface
// plugin may have put in one.
func (a address) is(ip *types100.IPConfig) bool {
	prefix, err := plugin.Prefix(ip.Address)
	gateway, _ := netip.AddrFromSlice(ip.Gateway)
	return err == nil && prefix == a.prefix && (!a.gateway.IsValid() || gateway.Unmap() == a.gateway)
}

// addresses returns those that the pod is to have: those of runtimeConfig.ips; where there are
// none, those of args.cni.ips; and where there are none either, the configured ones and those of
// CNI_ARGS.
func (c *Conf) addresses(req *plugin.Request) (list []address, err error) {
	fromEnv, err := environ(req)
	if err != nil {
		return nil, err
	}
	args, runtime, err := ipam.IPs(req)
	if err != nil {
		return nil, err
	}
	switch {
	case len(runtime) > 0:
		list, err = parse("runtimeConfig.ips", runtime)
	case len(args) > 0:
		list, err = parse("args.cni.ips", args)
	default:
		list, err = c.configured()
		list = append(list, fromEnv...)
	}
	if err != nil {
		return nil, err
	}
	var addrs []netip.Addr
	for _, a := range list {
		addrs = append(addrs, a.prefix.Addr())
	}
	return list, ipam.CheckFamilies(req, addrs)
}

// configured returns the addresses of the configuration, before what the pod asks for.
func (c *Conf) configured() ([]address, error) {
	var list []address
	for i, a := range c.Addresses {
		prefix, gateway, err := a.Parse(fmt.Sprintf("ipam.addresses[%d]", i))
		if err != nil {
			return nil, err
		}
		list = append(list, address{prefix, gateway})
	}
	return list, nil
}

// parse reads a list of addresses, which have no gateways.
func parse(key string, values []string) ([]address, error) {
	var list []address
	for i, value := range values {
		prefix, err := asked(fmt.Sprintf("%s[%d]", key, i), value)
		if err != nil {
			return nil, err
		}
		list = append(list, address{prefix: prefix})
	}
	return list, nil
}

// asked reads an address that the pod asks for.
func asked(key, value string) (netip.Prefix, error) {
	prefix, err := plugin.ParsePrefix(key, value)
	if addr, aerr := netip.ParseAddr(value); aerr == nil {
		err = failure.WithFix(err,
			fmt.Sprintf("ask for it with the prefix length of its subnet, as in %s/%d",
				addr, addr.BitLen()*3/4))
	}
	return prefix, err
}

// environ returns the addresses of CNI_ARGS: IP and GATEWAY are lists, and a gateway is that of the
// addresses whose subnet it is in.
func environ(req *plugin.Request) ([]address, error) {
	var env struct {
		types.CommonArgs
		IP, GATEWAY types.UnmarshallableString
	}
	if err := req.Env(&env); err != nil {
		return nil, err
	}
	var list []address
	for _, value := range split(env.IP) {
		prefix, err := asked("CNI_ARGS IP", value)
		if err != nil {
			return nil, err
		}
		list = append(list, address{prefix: prefix})
	}
	for _, value := range split(env.GATEWAY) {
		gateway, err := plugin.ParseAddr("CNI_ARGS GATEWAY", value)
		if err != nil {
			return nil, err
		}
		for i := range list {
			if list[i].prefix.Contains(gateway) {
				list[i].gateway = gateway
			}
		}
	}
	return list, nil
}

// split returns the elements of a list of CNI_ARGS.
func split(list types.UnmarshallableString) []string {
	if list == "" {
		return nil
	}
	values := strings.Split(string(list), ",")
	for i := range values {
		values[i] = strings.TrimSpace(values[i])
	}
	return values
}

// Validate judges the addresses and the routes.
func (c *Conf) Validate() error {
	for i, a := range c.Addresses {
		if _, _, err := a.Parse(fmt.Sprintf("ipam.addresses[%d]", i)); err != nil {
			return err
		}
	}
	_, err := ipam.Routes(c.Routes)
	return err
}
