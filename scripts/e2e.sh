#!/usr/bin/env bash
# e2e.sh runs pods through a real control plane, kubelet and containerd on this machine, with Braid
# installed as README.md says; without arguments then the core of it with CRI-O. Arguments go to go
# test: scripts/e2e.sh -run U16, or BRAID_E2E_RUNTIME=crio scripts/e2e.sh -run U16. It installs and
# builds what it needs first.
#
# The last line is "N passed, N failed, N skipped". A skipped test is a failure: on a machine that
# can run this nothing is missing.
#
# What tests find in their environment:
#   BRAID_E2E=1             without it they do nothing
#   BRAID_E2E_RUNTIME       containerd, the default, or crio
#   BRAID_IMAGE             archive of Braid's image
#   BRAID_IMAGE_NEXT        the same as another version
#   BRAID_LAB_BIN           directory with etcd, the control plane, kubelet and containerd
#   BRAID_HELM              path of Helm
#   BRAID_WHEREABOUTS       the reference of cluster-wide addresses
#   BRAID_WHEREABOUTS_CRDS  directory of its CRDs
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/goflags.sh

say() { printf 'e2e: %s\n' "$*" >&2; }

if [ "$(id -u)" -ne 0 ]; then
	say "a node needs root: namespaces, mounts, cgroups"
	exit 1
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

say "1/3 what the tests need"
scripts/install-deps.sh node
gotestsum=$(scripts/tools.sh gotestsum)
scripts/lab.sh crio
BRAID_LAB_BIN=$(scripts/lab.sh dir)
BRAID_HELM=$(scripts/tools.sh helm)
. scripts/whereabouts.sh
scripts/build.sh
ARCHES=$(go env GOARCH) scripts/image.sh "$work/image"
VERSION=$(scripts/version.sh)-next ARCHES=$(go env GOARCH) scripts/image.sh "$work/next"
BRAID_IMAGE=$work/image/braid.tar BRAID_IMAGE_NEXT=$work/next/braid.tar
export BRAID_E2E=1 BRAID_LAB_BIN BRAID_HELM BRAID_IMAGE BRAID_IMAGE_NEXT
(cd scripts/tools && go build -o "$work/testsummary" ./testsummary)

failed=0
# run RUNTIME ARGUMENTS... tests with that runtime. One package at a time: each has a cluster of its
# own. Clusters are new each time, so a result is never taken from the cache.
run() {
	BRAID_E2E_RUNTIME=$1 "$gotestsum" --format testname --format-hide-empty-pkg \
		--hide-summary skipped,output --jsonfile "$work/$1.json" \
		-- -count 1 -p 1 -timeout 45m "${@:2}" || failed=1
}

runtime=${BRAID_E2E_RUNTIME:-containerd}
say "2/3 pods on a real node ($SECONDS s so far)"
skip=(-skip '^TestCRIO') # what CRI-O alone does
[ "$runtime" != crio ] || skip=()
run "$runtime" ./e2e ./e2e/install ./e2e/churn ./e2e/lab "${skip[@]}" "$@"
mkdir -p .cache
mv "$work/$runtime.json" .cache/e2e.json
if [ $# = 0 ] && [ "$runtime" = containerd ]; then
	say "the same with CRI-O ($SECONDS s so far)"
	core='TestCRIO|TestKill|TestDeletion|TestAPICalls|TestAPIServerAwayDuringADD'
	core+='|TestM13|TestU15|TestU17D|TestU18S|TestU9|TestU21|TestU22|TestU3T'
	core+='|TestOneApply|TestConfigurationIsPutBack|TestPrivateDirectory|TestRuntime|TestUninstall$'
	run crio ./e2e ./e2e/install -run "^($core)"
	# Another name of the packages, so that no result takes another's place.
	sed 's|"Package":"[^"]*|& (CRI-O)|' "$work/crio.json" >>.cache/e2e.json
fi
say "3/3 summary ($SECONDS s in all)"
CI=true "$work/testsummary" report .cache/e2e.json "$work/none" || failed=1
exit "$failed"
