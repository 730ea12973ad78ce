package ipam

import (
	"net/netip"

	"github.com/braid-cni/braid/pkg/plugin"
)

// Address is an element of the key addresses of an IPAM plugin.
type Address struct {
	// Address has the prefix length of its subnet, as in 10.1.0.2/24.
	Address string `json:"address"`
	// Gateway is the router of the subnet; none where it is empty.
	Gateway string `json:"gateway,omitempty"`
}

// Parse reads it; key is where it is. The gateway is not valid where there is none.
func (a Address) Parse(key string) (prefix netip.Prefix, gateway netip.Addr, err error) {
	prefix, err = plugin.ParsePrefix(key+".address", a.Address)
	if err != nil || a.Gateway == "" {
		return prefix, gateway, err
	}
	gateway, err = plugin.ParseAddr(key+".gateway", a.Gateway)
	if err == nil && gateway.BitLen() != prefix.Addr().BitLen() {
		err = plugin.ConfError(key+".gateway", a.Gateway, "is of another family than address "+a.Address)
	}
	return prefix, gateway, err
}
