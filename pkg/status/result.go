package status

import (
	"net"
	"slices"

	"github.com/containernetworking/cni/pkg/types"
	types040 "github.com/containernetworking/cni/pkg/types/040"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// result is a CNI result in the newest form, without the null elements that a plugin's JSON may
// hold.
type result struct {
	*types100.Result
	// noInterfaces is true if the result's version knows no interfaces: its addresses are those of the
	// attachment's interface.
	noInterfaces bool
}

// read converts a result of any version; false where there is none, or none that can be converted.
func read(r types.Result) (result, bool) {
	switch r := r.(type) {
	case nil:
		return result{}, false
	case *types100.Result:
		return result{Result: r}, r != nil
	case *types040.Result: // its conversion does not expect null elements
		if r == nil {
			return result{}, false
		}
		c := *r
		c.Interfaces = withoutNil(r.Interfaces)
		c.IPs = withoutNil(r.IPs)
		return convert(&c, false)
	}
	return convert(r, true)
}

// convert converts a result that is not nil to the newest form.
func convert(r types.Result, noInterfaces bool) (result, bool) {
	newest, err := types100.GetResult(r)
	if err != nil {
		return result{}, false
	}
	return result{newest, noInterfaces}, true
}

// withoutNil puts an empty element in the place of each nil: addresses refer to interfaces by
// index.
func withoutNil[T any](list []*T) []*T {
	out := slices.Clone(list)
	for i, p := range out {
		if p == nil {
			out[i] = new(T)
		}
	}
	return out
}

// sandboxInterface returns the index of the first interface that is in the pod, or -1.
func (r result) sandboxInterface() int {
	return slices.IndexFunc(r.Interfaces, func(i *types100.Interface) bool {
		return i != nil && i.Sandbox != ""
	})
}

// HasInterface reports whether an attachment has an interface, or addresses, in the pod.
func HasInterface(r Result) bool {
	res, ok := read(r.CNI)
	return ok && (res.sandboxInterfaces() > 0 || len(res.addressesOf(-1)) > 0)
}

// sandboxInterfaces returns how many interfaces are in the pod.
func (r result) sandboxInterfaces() (n int) {
	for _, i := range r.Interfaces {
		if i != nil && i.Sandbox != "" {
			n++
		}
	}
	return n
}

// addressesOf returns the addresses of the interface at index, or, with no interface in the pod,
// those of no interface: never one that is on the host's side. An address that does not say whose
// it is belongs to the only interface in the pod.
func (r result) addressesOf(index int) []*types100.IPConfig {
	unsaid := -1
	if r.sandboxInterfaces() == 1 {
		unsaid = r.sandboxInterface()
	}
	var out []*types100.IPConfig
	for _, ip := range r.IPs {
		if ip == nil || ip.Address.IP == nil {
			continue
		}
		of := unsaid
		if ip.Interface != nil {
			of = max(*ip.Interface, -1)
		}
		if of == index {
			out = append(out, ip)
		}
	}
	return out
}

// defaultGateways returns the gateways of the result's default routes in the main table. A route
// that names none uses the first gateway of its family among the addresses, as the plugins do. A
// route does not say which interface it is of: where the pod has several, it is that whose subnets
// the gateway is in.
func (r result) defaultGateways(index int) []string {
	var out []string
	for _, route := range r.Routes {
		if route == nil || !isDefault(route) {
			continue
		}
		gw := route.GW
		if gw == nil {
			gw = r.addressGateway(index, route.Dst.IP.To4() != nil)
		}
		if gw != nil && r.mayReach(index, gw) && !slices.Contains(out, gw.String()) {
			out = append(out, gw.String())
		}
	}
	return out
}

// mayReach reports whether a gateway is reached by the interface at index: by the only one that the
// pod has, or in one of its subnets.
func (r result) mayReach(index int, gw net.IP) bool {
	return r.sandboxInterfaces() < 2 || r.within(index, gw)
}

// within reports whether an address is in a subnet of the interface at index.
func (r result) within(index int, addr net.IP) bool {
	return slices.ContainsFunc(r.addressesOf(index), func(ip *types100.IPConfig) bool {
		return ip.Address.Contains(addr)
	})
}

// mainTable is the number of the kernel's main routing table; 0 means the same in a request.
const mainTable = 254

// isDefault reports whether a route decides, in the main table, where packets go that no other
// route takes.
func isDefault(route *types.Route) bool {
	if route.Table != nil && *route.Table != 0 && *route.Table != mainTable {
		return false
	}
	ones, _ := route.Dst.Mask.Size()
	return ones == 0
}

// addressGateway returns the first gateway of a family; nil where there is none.
func (r result) addressGateway(index int, v4 bool) net.IP {
	for _, ip := range r.addressesOf(index) {
		if ip.Gateway != nil && (ip.Gateway.To4() != nil) == v4 {
			return ip.Gateway
		}
	}
	return nil
}

// addressGateways returns the first gateway of each family.
func (r result) addressGateways(index int) []string {
	var out []string
	for _, v4 := range []bool{true, false} {
		if gw := r.addressGateway(index, v4); gw != nil {
			out = append(out, gw.String())
		}
	}
	return out
}
