package portmap

import (
	"context"
	"errors"
	"fmt"

	"github.com/braid-cni/braid/pkg/nl"
	"github.com/braid-cni/braid/pkg/plugin"
	"github.com/braid-cni/braid/pkg/sysctl"
)

// routeLocalnet lets packets of loopback addresses pass the interface of the node that leads to the
// pod. The setting stays: other pods on the interface need it too.
func (w *work) routeLocalnet(ctx context.Context, req *plugin.Request) error {
	key, err := w.missingLocalnet(ctx, req)
	if err != nil || key == "" {
		return err
	}
	ns, _, err := req.Host()
	if err != nil {
		return err
	}
	return sysctl.Set(ns, sysctl.Setting{Key: key, Value: "1"})
}

// checkLocalnet looks whether routeLocalnet has been there.
func (w *work) checkLocalnet(ctx context.Context, req *plugin.Request) error {
	key, err := w.missingLocalnet(ctx, req)
	if err == nil && key != "" {
		err = fmt.Errorf("sysctl %s is not 1", key)
	}
	return err
}

// missingLocalnet returns the setting that the interface lacks. It is none if the work does not
// need it, or no interface leads to the pod.
func (w *work) missingLocalnet(ctx context.Context, req *plugin.Request) (key string, err error) {
	if !w.localnet.IsValid() {
		return "", nil
	}
	_, node, err := req.Host()
	if err != nil {
		return "", err
	}
	link, on, err := node.Localnet(ctx, w.localnet)
	if errors.Is(err, nl.ErrNoLink) || on {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return "net/ipv4/conf/" + link + "/route_localnet", nil
}
