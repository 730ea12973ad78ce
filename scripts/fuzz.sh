#!/usr/bin/env bash
# fuzz.sh runs each fuzz target below pkg/ and in e2e/attack for FUZZTIME (default 60s), or those of
# the packages given, one line each. That of e2e/attack needs root: it watches what braid opens and
# runs.
#
# An input that fails is kept in the package's testdata/fuzz, where `go test` tries it ever after.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/goflags.sh

time=${FUZZTIME:-60s}
[ $# -gt 0 ] || set -- ./pkg/... ./e2e/attack
work=$(mktemp -d)
log=$work/log
trap 'rm -rf "$work"' EXIT
scripts/build.sh "$work/bin" braid braidctl
export BRAID_BINARY=$work/bin/braid

# fuzz PACKAGE TARGET runs one. What e2e/attack tries is another process, so there is no coverage to
# be guided by, and its own code need not be compiled anew for that.
fuzz() {
	case $1 in
	*/e2e/*)
		go test -c -o "$work/fuzz.test" "$1" && cd "$(go list -f '{{.Dir}}' "$1")" &&
			"$work/fuzz.test" -test.run '^$' -test.fuzz "^$2\$" -test.fuzztime "$time" \
				-test.fuzzcachedir "$work/corpus"
		;;
	*) go test -run '^$' -fuzz "^$2\$" -fuzztime "$time" "$1" ;;
	esac
}

failed=0 targets=0
for package in $(go list "$@"); do
	for target in $(go test -list '^Fuzz' "$package" | grep '^Fuzz' || true); do
		targets=$((targets + 1))
		printf 'fuzz: %s %s for %s: ' "${package#github.com/braid-cni/braid/}" "$target" "$time"
		if (fuzz "$package" "$target") >"$log" 2>&1; then
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
