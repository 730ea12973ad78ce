# shellcheck shell=bash
# whereabouts.sh is sourced by the scripts whose programs run the reference of cluster-wide
# addresses: it builds it, unless it is there, and exports BRAID_WHEREABOUTS, its plugin, and
# BRAID_WHEREABOUTS_CRDS, the directory of its CRDs.
BRAID_WHEREABOUTS=$(scripts/tools.sh whereabouts)
BRAID_WHEREABOUTS_CRDS=$(cd scripts/tools/whereabouts &&
	go list -m -f '{{.Dir}}/doc/crds' github.com/k8snetworkplumbingwg/whereabouts)
export BRAID_WHEREABOUTS BRAID_WHEREABOUTS_CRDS
