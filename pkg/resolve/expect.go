package resolve

import (
	"cmp"
	"context"
	"fmt"

	podv1 "github.com/braid-cni/braid/pkg/api/pod/v1"
	"github.com/braid-cni/braid/pkg/failure"
	"github.com/braid-cni/braid/pkg/invoke"
	"github.com/braid-cni/braid/pkg/netconf"
	"github.com/braid-cni/braid/pkg/plan"
)

// Expected is an attachment as an ADD would begin with it, with the warnings of its plugins and
// default routes.
type Expected struct {
	plan.Attachment

	// Places are the plugins of the chain in their order; none of a network that is Unknown.
	Places []Place
}

// Expect is Attachments for those who make none. It also judges the chains, the default routes, and
// what the policy does not allow. If a chain is refused, it returns the attachments beside the
// error. Without paths it takes binaries to be installed.
func (r *Resolver) Expect(
	ctx context.Context, sandbox Sandbox, pod *podv1.Pod, finder Finder, paths []string,
) (expected []Expected, judged []Judged, refused error) {
	attachments, err := r.Attachments(ctx, sandbox, pod)
	if err != nil {
		return nil, nil, err
	}
	if len(paths) == 0 {
		finder = anywhere{finder}
	}
	for i := range attachments {
		e := Expected{Attachment: attachments[i]}
		err := e.judge(finder, paths, r.Policy.SecondaryDefaultRoute)
		if expected, attachments[i].Runs = append(expected, e), e.Runs; err != nil {
			refused = cmp.Or(refused, err)
			if failure.ReasonOf(err) != failure.PluginNotFound {
				attachments[i].Origin = nil // it is not known what would run
			}
		}
	}
	judged, err = r.Judge(ctx, pod, attachments)
	refused = cmp.Or(refused, err)
	for i, a := range attachments {
		expected[i].Network, expected[i].Conf, expected[i].Limits = a.Network, a.Conf, a.Limits
	}
	return expected, judged, refused
}

// judge finds the plugins of the chain, and what the policy on default routes says of them. Of what
// it could find out before an error, nothing is lost.
func (e *Expected) judge(finder Finder, paths []string, defaultRoutes string) error {
	if e.Unknown {
		return nil
	}
	list, err := netconf.Libcni(e.Conf)
	if err != nil {
		return at(&e.Attachment, fmt.Errorf("read the chain: %w", err))
	}
	e.Places = places(finder, list, paths)
	if err := add(&e.Attachment, e.Places); err != nil {
		return err
	}
	routes, err := e.ExpectDefaultRoutes(defaultRoutes)
	e.Warnings = append(e.Warnings, routes...)
	return err
}

// anywhere finds binaries wherever they are.
type anywhere struct{ Finder }

// Find implements Finder.
func (f anywhere) Find(kind string, config []byte, paths []string) (invoke.Found, error) {
	found, err := f.Finder.Find(kind, config, paths)
	if failure.ReasonOf(err) == failure.PluginNotFound {
		return invoke.Found{Execd: true}, nil
	}
	return found, err
}
