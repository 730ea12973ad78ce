#!/usr/bin/env bash
# lint.sh checks code, formatting, generated files and scripts, and changes nothing. scripts/fmt.sh
# repairs formatting, scripts/generate.sh writes what is generated.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/goflags.sh

say() { printf 'lint: %s\n' "$*" >&2; }

scripts/install-deps.sh lint
golangci=$(scripts/tools.sh golangci-lint)
failed=0

say "Go code"
"$golangci" run ./... || failed=1
(cd scripts/tools && "$golangci" run --config ../../.golangci.yml ./...) || failed=1
(cd scripts/tools/image && "$golangci" run --config ../../../.golangci.yml ./...) || failed=1

say "formatting"
"$golangci" fmt --diff || failed=1

say "generated files"
scripts/generate.sh --check || failed=1

say "scripts"
mapfile -t shell < <(
	git ls-files -co --exclude-standard -- 'scripts/*.sh' '.ci/run' 'e2e/testdata/*'
)
shellcheck --exclude=SC1091 "${shell[@]}" || failed=1 # what they source is checked by itself

say "known vulnerabilities"
scripts/vulns.sh || failed=1

say "figures of the code, beside those of its peers"
(cd scripts/tools && go run ./measure -peers measure/peers.txt Braid=../..)

if [ $failed != 0 ]; then
	say "failed"
	exit 1
fi
say "nothing to complain about"
