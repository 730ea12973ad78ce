#!/usr/bin/env bash
# build.sh [DIR [NAME...]] builds the binaries of cmd/, or those named, into bin/ or DIR: static,
# stripped, with the version that git describes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/goflags.sh

out=${1:-bin}
names=("${@:2}")
[ ${#names[@]} -gt 0 ] || mapfile -t names < <(cd cmd && printf '%s\n' */main.go | xargs -n 1 dirname)
version=$(git describe --tags --always --dirty 2>/dev/null || echo unknown)
mkdir -p "$out"
for name in "${names[@]}"; do
	quietly go build -ldflags "-s -w -X main.buildVersion=$version" -o "$out/" "./cmd/$name"
done
printf 'build: %s in %s: %s\n' "$version" "$out" "$(cd "$out" && find . -maxdepth 1 -type f -printf '%f (%k KiB) ' | sort)" >&2
