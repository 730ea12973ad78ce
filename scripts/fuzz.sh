#!/usr/bin/env bash
# fuzz.sh runs each fuzz target below pkg/ for FUZZTIME (default 60s), or those of the packages
# given, one line each.
#
# An input that fails is kept in the package's testdata/fuzz, where `go test` tries it ever after.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/goflags.sh

time=${FUZZTIME:-60s}
[ $# -gt 0 ] || set -- ./pkg/...
log=$(mktemp)
trap 'rm -f "$log"' EXIT

failed=0 targets=0
for package in $(go list "$@"); do
	for target in $(go test -list '^Fuzz' "$package" | grep '^Fuzz' || true); do
		targets=$((targets + 1))
		printf 'fuzz: %s %s for %s: ' "${package#github.com/braid-cni/braid/}" "$target" "$time"
		if go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "$package" >"$log" 2>&1; then
			# "fuzz: elapsed: 3s, execs: 325017 (108336/sec), new interesting: 11 (total: 202)"
			printf 'ok, %s\n' "$(sed -n 's/^fuzz: elapsed: [^,]*, \(execs: .*\)/\1/p' "$log" | tail -n 1)"
		else
			printf 'FAILED\n'
			sed 's/^/    /' "$log"
			failed=$((failed + 1))
		fi
	done
done
printf 'fuzz: %d targets, %d failed\n' "$targets" "$failed"
[ "$targets" -gt 0 ] && [ "$failed" = 0 ]
