#!/usr/bin/env bash
# uml-test.sh DIR PACKAGE PATTERN is for scripts/test.sh: it runs the tests of a package that match
# in the user-mode kernel, and writes what `go test -json` would. Packages that run at the same time
# take turns in writing, by a lock of DIR/begun. Two of them are enough: such a kernel has one CPU.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/goflags.sh

work=$1 package=$2 pattern=$3 code=0
binary=$work/${package##*/}.test
directory=$(go list -f '{{.Dir}}' "$package")
# Static and without the race detector: one slow CPU, and the machine's C library may not suit the
# other kernel.
go test -c -o "$binary" "$package"
environment=()
for name in BRAID_PLUGINS BRAID_LAB_BIN BRAID_CNITOOL BRAID_BINARY BRAID_WEAKENED GOFLAGS; do
	environment+=(--env "$name=${!name-}")
done
go tool test2json -t -p "$package" \
	scripts/uml.sh --timeout 900 --dir "$directory" "${environment[@]}" -- \
	"$binary" -test.v=test2json -test.timeout 880s -test.run "$pattern" >"$binary.json" || code=1
flock "$work/begun" cat "$binary.json"
exit "$code"
