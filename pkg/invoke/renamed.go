package invoke

import (
	"context"
	"encoding/json"

	cniinvoke "github.com/containernetworking/cni/pkg/invoke"
)

// Renamed returns an Exec whose plugins receive this name of their network, whatever libcni calls
// it: libcni names files after networks, and a name may be too long for that.
func Renamed(inner cniinvoke.Exec, network string) cniinvoke.Exec { return &renamed{inner, network} }

type renamed struct {
	cniinvoke.Exec
	network string
}

func (r *renamed) ExecPlugin(ctx context.Context, path string, stdin []byte, environ []string) ([]byte, error) {
	var sent map[string]json.RawMessage
	if err := json.Unmarshal(stdin, &sent); err != nil {
		return nil, err
	}
	name, err := json.Marshal(r.network)
	if err != nil {
		return nil, err
	}
	sent["name"] = name
	if stdin, err = json.Marshal(sent); err != nil {
		return nil, err
	}
	return r.Exec.ExecPlugin(ctx, path, stdin, environ)
}
