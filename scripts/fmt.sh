#!/usr/bin/env bash
# fmt.sh formats the code as .golangci.yml says.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

exec "$(scripts/tools.sh golangci-lint)" fmt "$@"
