#!/usr/bin/env bash
# version.sh prints the version of what is built: the last tag like v1.2.3, what came after it, and
# "-dirty" if files differ from the commit. Its digits of the commit are as many in every clone.
# VERSION in the environment is printed in its place.
set -euo pipefail
if [ -n "${VERSION:-}" ]; then
	printf '%s\n' "$VERSION"
	exit
fi
cd "$(dirname "${BASH_SOURCE[0]}")/.."

git describe --tags --match 'v[0-9]*' --always --dirty --abbrev=12 2>/dev/null || echo unknown
