package nl

import "context"

// ForgetOneByOne is the way of ForgetConnections for older kernels.
func (n *Netfilter) ForgetOneByOne(ctx context.Context, family, protocol byte, port uint16) error {
	return n.forgetOneByOne(ctx, family, protocol, port)
}
