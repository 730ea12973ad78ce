package whereabouts

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	kubetypes "k8s.io/apimachinery/pkg/types"

	claimv1 "github.com/braid-cni/braid/pkg/api/ipamclaim/v1alpha1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/ipam/block"
	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/plugin/ipam"
)

// pod is what CNI_ARGS say of the pod; all may be empty.
type pod struct {
	types.CommonArgs
	IP                         types.UnmarshallableString
	K8S_POD_NAMESPACE          types.UnmarshallableString //nolint:revive // the key
	K8S_POD_NAME               types.UnmarshallableString //nolint:revive // the key
	K8S_POD_UID                types.UnmarshallableString //nolint:revive // the key
	K8S_POD_INFRA_CONTAINER_ID types.UnmarshallableString //nolint:revive // the key
}

// podOf reads CNI_ARGS.
func podOf(req *plugin.Request) (*pod, error) {
	p := &pod{}
	return p, req.Env(p)
}

// holder is who gets the addresses.
func (p *pod) holder(req *plugin.Request) block.Holder {
	h := block.Holder{ID: req.ID, PodUID: kubetypes.UID(p.K8S_POD_UID)}
	if p.K8S_POD_NAME != "" {
		h.Pod = string(p.K8S_POD_NAMESPACE + "/" + p.K8S_POD_NAME)
	}
	return h
}

// claimKey is where a pod names its IPAMClaim, an object of its own namespace (NPWG v1.3
// s.4.1.2.1.11).
const claimKey = "args.cni.ipam-claim-reference"

// claim returns the pod's IPAMClaim; nil for none.
func (p *pod) claim(
	ctx context.Context, claims block.IPAMClaims, req *plugin.Request,
) (*claimv1.IPAMClaim, error) {
	var args struct {
		Claim string `json:"ipam-claim-reference"`
	}
	if err := plugin.Part("args.cni", req.CNIArgs, &args); err != nil || args.Claim == "" {
		return nil, err
	}
	namespace := string(p.K8S_POD_NAMESPACE)
	if namespace == "" {
		why := "CNI_ARGS K8S_POD_NAMESPACE: is missing, and the pod names an IPAMClaim of its " +
			"namespace, " + args.Claim
		return nil, types.NewError(types.ErrInvalidEnvironmentVariables, why, "")
	}
	claim, err := claims.IPAMClaim(ctx, namespace, args.Claim)
	switch {
	case apierrors.IsNotFound(err):
		return nil, plugin.ConfError(claimKey, args.Claim,
			"there is no such IPAMClaim in namespace "+namespace+"; create it first")
	case apierrors.IsBadRequest(err):
		return nil, plugin.ConfError(claimKey, args.Claim, err.Error())
	}
	if err == nil && !isOf(claim, req) {
		return nil, plugin.ConfError(claimKey, args.Claim, fmt.Sprintf(
			"spec.network of the IPAMClaim is %.80q, and this network is %q; name a claim that is of this "+
				"network", claim.Spec.Network, req.Network))
	}
	return claim, err
}

// isOf reports whether a claim is of the network: by its name or, for a tenant's network, by the
// name that it has in its namespace. A claim without a network is of any.
func isOf(claim *claimv1.IPAMClaim, req *plugin.Request) bool {
	network := claim.Spec.Network
	return network == "" || network == req.Network ||
		req.Limits != nil && network == req.Limits.Name
}

// grant gives each address that the pod asks for, itself or by its claim, to the range that it is
// of. A claim that has addresses asks for these, otherwise for those of its spec.
func (p *plan) grant(req *plugin.Request, pod *pod, claim *claimv1.IPAMClaim) error {
	asked, err := ipam.AskedBy(req, string(pod.IP))
	if err != nil {
		return err
	}
	if claim != nil {
		ofClaim := ipam.AskedIn("IPAMClaim "+claim.Name+" status.ips", claim.Status.IPs)
		if len(ofClaim) == 0 {
			ofClaim = ipam.AskedIn("IPAMClaim "+claim.Name+" spec.ipRequests", claim.Spec.IPRequests)
		}
		for i := range ofClaim {
			if err := ofClaim[i].Parse(); err != nil {
				return err
			}
		}
		asked = append(asked, ofClaim...)
	}
	for _, a := range asked {
		if err := p.grantOne(a); err != nil {
			return err
		}
	}
	return nil
}

// grantOne assigns an address to the range that has it. Two requests for one address are one.
func (p *plan) grantOne(a ipam.Asked) error {
	if slices.ContainsFunc(p.wishes, func(w block.Wish) bool { return w.Asked == a.Addr }) {
		return nil
	}
	why := "is in none of the ranges"
	for i := range p.wishes {
		w := &p.wishes[i]
		switch {
		case !w.Window.Prefix().Contains(a.Addr):
		case !w.Window.Contains(a.Addr):
			why = fmt.Sprintf("is not given away: in %s it is excluded, reserved, or not from start to end",
				w.Window.Prefix())
		case w.Asked.IsValid():
			why = fmt.Sprintf("is of the same range as %s, and a range gives one address", w.Asked)
		default:
			w.Asked = a.Addr
			return nil
		}
	}
	var windows []string
	for _, w := range p.wishes {
		windows = append(windows, fmt.Sprint(w.Window))
	}
	return failure.WithFix(plugin.ConfError(a.Key, a.Value, why),
		"ask for one address of each range: "+strings.Join(windows, ", "))
}

// publish says in the claim's status who uses it and which addresses it keeps.
func (p *plan) publish(
	ctx context.Context, claims block.IPAMClaims, pod *pod, claim *claimv1.IPAMClaim,
	addrs []netip.Addr,
) error {
	if claim == nil {
		return nil
	}
	ips := make([]string, len(addrs))
	for i, addr := range addrs {
		ips[i] = netip.PrefixFrom(addr, p.bits(i)).String()
	}
	owner := string(pod.K8S_POD_NAME)
	if slices.Equal(ips, claim.Status.IPs) && owner == claim.Status.OwnerPod {
		return nil
	}
	claim.Status.OwnerPod = owner
	if err := claims.SetIPAMClaimIPs(ctx, claim, ips); err != nil {
		return fmt.Errorf("publish addresses: %w", err)
	}
	return nil
}
