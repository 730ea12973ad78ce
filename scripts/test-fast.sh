#!/usr/bin/env bash
# test-fast.sh runs the tests of packages that make no network namespace and need no API server, as
# whoever calls it: no root, nothing to install, no race detector. It is for a quick look while one
# works; scripts/test.sh runs everything.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/goflags.sh

imports='{{range .TestImports}} {{.}}{{end}}{{range .XTestImports}} {{.}}{{end}}'
mapfile -t packages < <(go list -f "{{.ImportPath}}$imports" ./... |
	awk 'NF > 1 && !/\/(pkg\/nettest|pkg\/plugin\/plugintest|e2e\/lab)( |$)/ { print $1 }')
exec go test -short -vet=off "${packages[@]}"
