package plugin

import (
	"context"
	"errors"
	"fmt"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/nl"
)

// IPAMType returns the type of the IPAM plugin of a configuration; empty for none.
func (c *Common) IPAMType() (string, error) {
	var ipam struct {
		Type string `json:"type"`
	}
	err := Part("ipam", c.IPAM, &ipam)
	return ipam.Type, err
}

// Allot runs the ADD of the IPAM plugin. A result without addresses is an error.
func (r *Request) Allot(ctx context.Context, kind string) (*types100.Result, error) {
	result, err := r.IPAM(ctx, kind, "ADD")
	if err != nil {
		return nil, err
	}
	if len(result.IPs) == 0 {
		return nil, failure.WithFix(fmt.Errorf("IPAM plugin %s gave no address", kind),
			`name addresses in its configuration, or let the pod ask for one with "ips" in its annotation`)
	}
	return result, r.mayHave(result.IPs)
}

// mayHave refuses addresses that the attachment's limits do not allow.
func (r *Request) mayHave(ips []*types100.IPConfig) error {
	for _, ip := range ips {
		addr, err := Prefix(ip.Address)
		if err != nil {
			return err
		}
		if may, _ := r.Limits.MayAddress(addr); !may {
			return NotAllowed("ipam", fmt.Errorf("%s is in no prefix that networks of namespace %s may use",
				addr, r.Limits.Namespace),
				"choose another subnet", r.Limits, "prefixes", []string{addr.Masked().String()})
		}
	}
	return nil
}

// NewInterface looks up the link that was just made for the pod, as a result describes it. Its
// removal is put on the undo stack.
func (r *Request) NewInterface(ctx context.Context) (*nl.Link, *types100.Interface, error) {
	_, pod, err := r.Pod()
	if err != nil {
		return nil, nil, err
	}
	r.Undo.Push(func(ctx context.Context) error { return pod.DeleteLink(ctx, r.IfName) })
	link, err := pod.Link(ctx, r.IfName)
	if err != nil {
		return nil, nil, err
	}
	return link, &types100.Interface{Name: link.Name, Mac: link.MAC.String(), Sandbox: r.NetNS}, nil
}

// Detach is the DEL of a plugin whose interface is a link in the pod: the link goes first, then the
// addresses go back to the IPAM plugin. While the link stays they do not: nobody else may get an
// address that is still on a link.
func Detach(ctx context.Context, req *Request, c *Common) error {
	if err := req.deleteLink(ctx); err != nil {
		return err
	}
	return PassOn(ctx, req, c, "DEL")
}

func (r *Request) deleteLink(ctx context.Context) error {
	_, pod, err := r.Pod()
	if errors.Is(err, ErrNoPod) {
		return nil
	}
	if err != nil {
		return err
	}
	return pod.DeleteLink(ctx, r.IfName)
}

// PassOn runs DEL, CHECK, GC or STATUS of the configuration's IPAM plugin, if there is one.
func PassOn(ctx context.Context, req *Request, c *Common, command string) error {
	ipam, err := c.IPAMType()
	if err != nil || ipam == "" {
		return err
	}
	_, err = req.IPAM(ctx, ipam, command)
	return err
}
