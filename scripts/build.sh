#!/usr/bin/env bash
# build.sh [DIR [NAME...]] builds the binaries of cmd/, or those named, into bin/ or DIR: static,
# stripped, with the version that scripts/version.sh prints. With GOARCH=arm64 in the environment,
# they are for that architecture. The same commit and Go make the same bytes in every directory.
# With WEAKEN=1 they are for e2e/attack, which switches single mechanisms of theirs off
# (pkg/weaken).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/goflags.sh
export GOAMD64=v1 GOARM64=v8.0 # what every node can run, whatever the builder prefers

out=${1:-bin}
names=("${@:2}")
[ ${#names[@]} -gt 0 ] ||
	mapfile -t names < <(cd cmd && printf '%s\n' */main.go | xargs -n 1 dirname)
version=$(scripts/version.sh)
mkdir -p "$out"
GOGC=400 quietly go build ${WEAKEN:+-tags weaken} -ldflags "-s -w -X main.buildVersion=$version" \
	-o "$out/" "${names[@]/#/./cmd/}"
sizes=$(cd "$out" && find . -maxdepth 1 -type f -printf '%f (%k KiB) ' | sort)
printf 'build: %s in %s: %s\n' "$version" "$out" "$sizes" >&2
