package main

import (
	"context"
	"flag"
	"io"
	"slices"

	"github.com/braid-cni/braid/pkg/reap"
)

const auditText = `Compares what whereabouts recorded (IPPools and OverlappingRangeIPReservations)
with the pods there are and with Braid's blocks. It changes nothing. The states of an address:

  ok          recorded once, for a pod that exists
  orphan      its pod is gone
  duplicate   recorded for another interface too
  conflict    in one of Braid's blocks, where a node or another pod has it
  unreadable  the record does not say which address
  unrecorded  a pod reports it in its network-status, and it is recorded nowhere for that pod

Exits with 0 if all is well, 1 if something is not, 2 if that could not be found out.`

func auditCommand() command {
	return command{
		name: "ipam audit", summary: "what whereabouts recorded, and what is wrong with it",
		text: auditText,
		setUp: func(f *flag.FlagSet) func(context.Context, io.Writer) (bool, error) {
			kubeconfig, o := kubeconfigFlag(f), formatFlag(f, formatTable)
			wrong := f.Bool("wrong", false, "leave out what is ok")
			return func(ctx context.Context, out io.Writer) (bool, error) {
				api, err := openAPI(*kubeconfig)
				if err != nil {
					return false, err
				}
				defer api.Close()
				entries, err := reap.Audit(ctx, api, api)
				if err != nil {
					return false, err
				}
				bad := slices.DeleteFunc(slices.Clone(entries), func(e reap.Entry) bool {
					return e.State == reap.OK
				})
				if *wrong {
					entries = bad
				}
				return len(bad) > 0, write(out, *o, entries, "STATE NETWORK ADDRESS POD RECORD DETAIL",
					func(e reap.Entry) [][]string {
						return [][]string{{string(e.State), e.Network, e.Address, e.Pod, e.Record, e.Detail}}
					})
			}
		},
	}
}
