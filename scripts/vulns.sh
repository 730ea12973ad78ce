#!/usr/bin/env bash
# vulns.sh looks for known vulnerabilities that the commands reach, and fails where one is in a
# module. The database is the newest that the Go module proxy has; where it has none, vulns.sh says
# so and does not fail.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/goflags.sh

say() { printf 'vulns: %s\n' "$*" >&2; }

database=golang.org/x/vulndb
dir=$(cd / && timeout 120 go mod download -json "$database@latest" 2>/dev/null |
	sed -n 's|^\t"Dir": "\(.*\)".*|\1|p') || dir=
if [ -z "$dir" ]; then
	say "$database cannot be had, so nothing was looked for"
	exit 0
fi
say "database: $(basename "$dir")"
found=$(mktemp)
trap 'rm -f "$found"' EXIT
"$(scripts/tools.sh govulncheck)" -format json -db "file://$dir/data/osv" ./cmd/... >"$found"
(cd scripts/tools && go run ./vulns <"$found")
