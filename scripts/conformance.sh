#!/usr/bin/env bash
# conformance.sh prints each specification item with its tests and their results, and fails if one
# that is due lacks a test that passed.
#
# It reads what the last `make test` left in .cache/test; if that was not a run of everything, or a
# Go file has changed since, it runs the tests itself.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/goflags.sh

results=.cache/test

fresh() {
	[ -s "$results/native.json" ] && [ -e "$results/begun" ] &&
		[ -z "$(find . -path ./.git -prune -o \( -name '*.go' -o -name go.mod \) \
			-newer "$results/begun" -print -quit)" ]
}

if ! fresh; then
	printf 'conformance: running the tests first\n' >&2
	# What fails is in the table.
	scripts/test.sh >&2 || true
fi
[ -s "$results/native.json" ] || {
	printf 'conformance: the tests left no results in %s\n' "$results" >&2
	exit 1
}
exec go run ./e2e/conformance "$results"/*.json
