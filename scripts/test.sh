#!/usr/bin/env bash
# test.sh runs the tests with -race, all or those of the packages given; installs and builds what
# they need first.
#
# Tests that need something that this machine's kernel lacks say so ("needs kernel: ipvlan") and are
# run again in a user-mode kernel. The last line is "N passed, N failed, N skipped". With CI=true in
# the environment, a test that ran nowhere is a failure.
#
# What tests find in their environment:
#   BRAID_PLUGINS      directory with the reference CNI plugins
#   BRAID_LAB_BIN      directory with etcd and kube-apiserver
#   BRAID_CNITOOL      path of cnitool
#   BRAID_UML=1        they run in the user-mode kernel
#   BRAID_BINARY       braid, with braidctl beside it
#   BRAID_WEAKENED     directory of the same, for tests that switch off one mechanism of defence
#                      each (pkg/weaken)
#   BRAID_TEST_BINARY  the tests of cmd/braid without the race detector: they start themselves as
#                      braid, thousands of times
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/goflags.sh

say() { printf 'test: %s\n' "$*" >&2; }

[ $# -gt 0 ] || set -- ./...
work=$(mktemp -d)
# Where tests have their files: in memory if there is room, as on a node all state is on a tmpfs,
# too. Four gigabytes are more than they need.
memory=$work
room=$(df --output=avail --type=tmpfs --block-size=1G /dev/shm 2>/dev/null | tail -n 1) || room=0
[ "$room" -ge 4 ] 2>/dev/null && memory=$(mktemp -d -p /dev/shm)
trap 'rm -rf "$work" "$memory"' EXIT
touch "$work/begun"

say "1/4 what the tests need"
# On a new machine it takes minutes to build an API server and Helm: tests that need them wait for
# them, and all else goes before. A process group of its own ends with this script, however that
# ends.
setsid nice bash -c 'scripts/lab.sh api && scripts/tools.sh helm' >/dev/null &
lab=$!
trap 'kill -- "-$lab" 2>/dev/null || true; rm -rf "$work" "$memory"' EXIT
scripts/install-deps.sh base
gotestsum=$(scripts/tools.sh gotestsum)
BRAID_CNITOOL=$(scripts/tools.sh cnitool)
BRAID_PLUGINS=$(scripts/plugins.sh)
# Tests that need the API server come last.
imports='{{range .TestImports}} {{.}}{{end}}{{range .XTestImports}} {{.}}{{end}}'
mapfile -t packages < <(quietly go list -f "{{.ImportPath}}$imports" "$@" | awk '
	/\/e2e\/lab( |$)/ { last[++n] = $1; next }
	{ print $1 }
	END { for (i = 1; i <= n; i++) print last[i] }')
# It compiles. What does not compile, the tests will name.
CGO_ENABLED=1 GOGC=400 go list -race -export -deps -test "${packages[@]}" >/dev/null 2>&1 || true
BRAID_LAB_BIN=$(scripts/lab.sh dir)
export BRAID_CNITOOL BRAID_PLUGINS BRAID_LAB_BIN
(cd scripts/tools && go build -o "$work/testsummary" ./testsummary)

failed=0

go test -c -o "$work/braid.test" ./cmd/braid
export BRAID_TEST_BINARY=$work/braid.test
scripts/build.sh "$work/bin" braid braidctl braidd braid-client
WEAKEN=1 scripts/build.sh "$work/weakened" braid braidctl braidd braid-client
export BRAID_BINARY=$work/bin/braid BRAID_WEAKENED=$work/weakened

say "2/4 on this machine's kernel ($SECONDS s so far)"
# vet is one of the linters. Tests wait much of their time, so there are more of them than cores.
TMPDIR=$memory CGO_ENABLED=1 "$gotestsum" --format pkgname --format-hide-empty-pkg \
	--hide-summary skipped,output --jsonfile "$work/native.json" -- \
	-race -vet=off -p 4 -parallel 4 -timeout 30m "${packages[@]}" || failed=1
wait "$lab" || failed=1

"$work/testsummary" lacking "$work/native.json" >"$work/lacking"
if [ ! -s "$work/lacking" ]; then
	say "3/4 no test needs a user-mode kernel"
elif ! scripts/install-deps.sh uml; then
	say "3/4 there is no user-mode kernel: what this one lacks stays skipped"
else
	say "3/4 in a user-mode kernel, what this one lacks ($SECONDS s so far)"
	tr '\t' '\n' <"$work/lacking" >"$work/pairs" # package, pattern
	"$gotestsum" --format testname --hide-summary skipped,output --jsonfile "$work/uml.json" \
		--raw-command -- \
		xargs -a "$work/pairs" -d '\n' -n 2 -P 2 scripts/uml-test.sh "$work" || failed=1
fi

# scripts/conformance.sh reads what a run of everything leaves; whoever looks into a failure, what
# the last run left.
kept=.cache/test-some
if [ "$*" = ./... ]; then
	kept=.cache/test
	{
		(cd scripts/tools && quietly go test -json ./testsummary ./measure ./vulns) || failed=1
		(cd scripts/tools/image && quietly go test -json .) || failed=1
	} >>"$work/native.json"
fi
rm -rf "$kept"
mkdir -p "$kept"
mv "$work/begun" "$work/native.json" "$kept/"
[ ! -e "$work/uml.json" ] || mv "$work/uml.json" "$kept/"

say "4/4 summary ($SECONDS s in all)"
"$work/testsummary" report "$kept/native.json" "$kept/uml.json" || failed=1
exit "$failed"
