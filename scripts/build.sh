#!/usr/bin/env bash
# build.sh builds the binaries of cmd/ into bin/ (or the directory given): static, stripped, with the version that git describes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/goflags.sh

out=${1:-bin}
version=$(git describe --tags --always --dirty 2>/dev/null || echo unknown)
mkdir -p "$out"
for package in ./cmd/*/; do
	go build -ldflags "-s -w -X main.buildVersion=$version" -o "$out/" "$package"
done
printf 'build: %s in %s: %s\n' "$version" "$out" "$(cd "$out" && find . -maxdepth 1 -type f -printf '%f (%k KiB) ' | sort)" >&2
