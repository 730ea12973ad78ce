package ipam

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/braid-cni/braid/pkg/plugin"
)

// Asked is an address that the pod asks for.
type Asked struct {
	Addr netip.Addr
	// Key and Value are where it was read and what was there, for messages.
	Key, Value string
}

// AskedBy returns the addresses that the pod asks for: in CNI_ARGS, in args.cni.ips and in
// runtimeConfig.ips. ip is the IP of CNI_ARGS, one address or a list with commas. Each address may
// have a prefix length, which does not count.
func AskedBy(req *plugin.Request, ip string) ([]Asked, error) {
	args, runtime, err := IPs(req)
	if err != nil {
		return nil, err
	}
	var list []Asked
	for value := range strings.SplitSeq(ip, ",") {
		if value = strings.TrimSpace(value); value != "" {
			list = append(list, Asked{Key: "CNI_ARGS IP", Value: value})
		}
	}
	list = append(append(list, AskedIn("args.cni.ips", args)...),
		AskedIn("runtimeConfig.ips", runtime)...)
	for i := range list {
		if err := list[i].Parse(); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// AskedIn returns the elements of a list, to be parsed.
func AskedIn(key string, values []string) []Asked {
	list := make([]Asked, len(values))
	for i, value := range values {
		list[i] = Asked{Key: fmt.Sprintf("%s[%d]", key, i), Value: value}
	}
	return list
}

// Parse reads the value.
func (a *Asked) Parse() (err error) {
	if prefix, perr := netip.ParsePrefix(a.Value); perr == nil {
		a.Addr = prefix.Addr().Unmap()
		return nil
	}
	a.Addr, err = plugin.ParseAddr(a.Key, a.Value)
	return err
}
