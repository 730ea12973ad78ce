#!/usr/bin/env bash
# lint.sh checks code, formatting and scripts, and changes nothing. scripts/fmt.sh repairs formatting.
#
# Not part of it, because it needs a network: "$(scripts/tools.sh govulncheck)" ./... looks for known vulnerabilities.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf 'lint: %s\n' "$*" >&2; }

golangci=$(scripts/tools.sh golangci-lint)
failed=0

say "Go code"
"$golangci" config verify 2>/dev/null || true # needs a network for the schema; a wrong file shows in the run itself
"$golangci" run ./... || failed=1
(cd scripts/tools && "$golangci" run --config ../../.golangci.yml ./...) || failed=1

say "formatting"
"$golangci" fmt --diff || failed=1

say "scripts"
mapfile -t shell < <(git ls-files -co --exclude-standard -- 'scripts/*.sh' '.ci/run' 'e2e/**/*.sh')
for file in "${shell[@]}"; do
	bash -n "$file" || failed=1
done
if command -v shellcheck >/dev/null; then
	shellcheck "${shell[@]}" || failed=1
else
	say "shellcheck is not installed: syntax checked only"
fi

if [ $failed != 0 ]; then
	say "failed"
	exit 1
fi
say "nothing to complain about"
