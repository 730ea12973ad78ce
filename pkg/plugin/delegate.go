package plugin

import (
	"context"
	"errors"
	"fmt"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/braid-cni/braid/pkg/failure"
)

// IPAMType returns the type of the IPAM plugin of a configuration; empty for none.
func (c *Common) IPAMType() (string, error) {
	var ipam struct {
		Type string `json:"type"`
	}
	err := Part("ipam", c.IPAM, &ipam)
	return ipam.Type, err
}

// errNoIPAM means that the configuration names no IPAM plugin.
var errNoIPAM = errors.New("no IPAM plugin")

// IPAM runs the network's IPAM plugin, in-process where it can, with the request's own
// configuration and environment, but for the command. Only ADD returns a result; it is taken back
// if the request fails after it. An ADD that fails itself has left nothing: a DEL after it would
// give back what an earlier ADD of the same attachment holds.
func (r *Request) IPAM(ctx context.Context, kind, command string) (*types100.Result, error) {
	if kind == "" {
		return nil, errNoIPAM
	}
	path, err := r.exec.FindInPath(kind, r.path)
	if err != nil {
		return nil, err
	}
	environ := append(append([]string(nil), r.environ...), "CNI_COMMAND="+command)
	out, err := r.exec.ExecPlugin(ctx, path, r.Config, environ)
	if err != nil || command != "ADD" {
		return nil, err
	}
	r.Undo.Push(func(ctx context.Context) error {
		_, err := r.IPAM(ctx, kind, "DEL")
		return err
	})
	what := "result of IPAM plugin " + kind
	// A plugin that does not say it speaks the version that it was asked in.
	out, speaks, err := versioned(what, r.Version, out)
	if err != nil {
		return nil, err
	}
	return resultOf(what, speaks, out)
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

// PassOn runs DEL, CHECK, GC or STATUS of the configuration's IPAM plugin, if there is one.
func PassOn(ctx context.Context, req *Request, c *Common, command string) error {
	ipam, err := c.IPAMType()
	if err != nil || ipam == "" {
		return err
	}
	_, err = req.IPAM(ctx, ipam, command)
	return err
}
