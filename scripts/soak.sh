#!/usr/bin/env bash
# soak.sh has the real binary attach and detach pods on one node, thousands of times, while
# everything goes wrong that can on a node, and looks after each step whether an address is held
# twice or something is left. It prints how often each operation ended in which way.
#
#   scripts/soak.sh [OPERATIONS [SEED]]    20,000 operations by default, and any seed
#
# The same seed makes the same operations; how they end depends on time, too. The first line has the
# seed. It ends after twenty minutes at the latest. Everything happens in namespaces of the test's
# own. What Braid logged is in .cache/soak.log afterwards.
#
# Then an agent does calls for BRAID_SOAK_AGENT (10m by default), and may have no more descriptors,
# goroutines, threads and memory at the end than at the beginning.
#
# BRAID_SOAK_WITHOUT leaves out some of what happens, to narrow a failure down, and
# BRAID_SOAK_WORKERS is how many operations run at a time: see e2e/soak/main_test.go.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/goflags.sh

say() { printf 'soak: %s\n' "$*" >&2; }

if [ "$(id -u)" -ne 0 ]; then
	say "it needs root: namespaces of the network, of mounts and of processes"
	exit 1
fi
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
scripts/install-deps.sh base
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
BRAID_PLUGINS=$(scripts/plugins.sh)
scripts/build.sh "$work" braid braidd braid-client
go test -c -o "$work/soak.test" ./e2e/soak
mkdir -p .cache
export BRAID_PLUGINS BRAID_BINARY=$work/braid
export BRAID_SOAK_OPS=${1:-20000} BRAID_SOAK_LOG=$PWD/.cache/soak.log
export BRAID_SOAK_SEED=${2:-$RANDOM} BRAID_SOAK_AGENT=${BRAID_SOAK_AGENT-10m}
scripts/lab.sh api
BRAID_LAB_BIN=$(scripts/lab.sh dir)
export BRAID_LAB_BIN
cd e2e/soak
"$work/soak.test" -test.v -test.timeout 40m
