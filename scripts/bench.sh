#!/usr/bin/env bash
# bench.sh times the ADD and DEL of pods: Braid with a real API server, beside the reference's
# plugins run by libcni without a meta-plugin; and the built-in plugins one by one, beside those of
# the reference.
#
#   [BRAID_MULTUS=FILE] [BRAID_BASE=FILE] scripts/bench.sh [-rounds N] [-agent] [-log FILE]
#
# With -agent only what the agent does is measured.
#
# BRAID_MULTUS is a binary of Multus (thin) that you have built, as no script here can get its
# module; cluster-wide addresses are then compared with it. Otherwise Braid execs the reference's
# plugins as Multus does.
#
# BRAID_BASE is another binary of Braid, such as one of an older commit: then all that is done is to
# attach the same pods with it and with that of this tree, in turns, and to compare the two.
#
# Everything happens in a network and mount namespace of its own: the machine stays as it is. Times
# on a machine that does something else as well are not worth much, so every target is a ratio of
# two figures of one run that take turns. No figure makes this fail.
set -euo pipefail
[ -z "${BRAID_BASE-}" ] || BRAID_BASE=$(realpath "$BRAID_BASE")
export BRAID_BASE
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/goflags.sh

say() { printf 'bench: %s\n' "$*" >&2; }

if [ -z "${BRAID_BENCH-}" ]; then
	if [ "$(id -u)" -ne 0 ]; then
		say "it needs root: network namespaces, and an API server that is not in them"
		exit 1
	fi
	export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
	scripts/install-deps.sh base
	scripts/lab.sh api
	BRAID_LAB_BIN=$(scripts/lab.sh dir)
	BRAID_PLUGINS=$(scripts/plugins.sh)
	BRAID_BENCH=$(mktemp -d)
	. scripts/whereabouts.sh
	export BRAID_BENCH BRAID_LAB_BIN BRAID_PLUGINS
	trap 'rm -rf "$BRAID_BENCH"' EXIT
	scripts/build.sh "$BRAID_BENCH" braid braidd braid-client
	go build -ldflags '-s -w' -o "$BRAID_BENCH/" ./e2e/bench ./e2e/bench/bare
	go test -c -o "$BRAID_BENCH/plugins.test" ./plugins
	unshare --net --mount "$0" "$@"
	exit
fi

mount -t tmpfs tmpfs /run
mkdir -p /run/bench
export TMPDIR=/run # what etcd keeps goes to no disk, which is not what is measured
ip link set lo up
ip link add nic0 type veth peer name wire
ip link set nic0 up
ip link set wire up
"$BRAID_BENCH/bench" "$@"
[ -z "${BRAID_BASE-}" ] || exit 0
case " $* " in *" -agent "*) exit 0 ;; esac
"$BRAID_BENCH/plugins.test" -test.run '^$' -test.bench '^BenchmarkSpeed$' -test.benchtime 1x
