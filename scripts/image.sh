#!/usr/bin/env bash
# image.sh [DIR] makes the container image of all binaries, for amd64 and arm64, in bin/image or
# DIR: oci/ is an OCI image layout, braid.tar the same as one file ("ctr -n k8s.io images import
# braid.tar"), sbom-*.cdx.json what each platform's binaries are made of. With PUSH=REFERENCE in the
# environment it pushes the image there, with the credentials of the user's docker or podman login.
# ARCHES="amd64" makes it of one architecture.
#
# It needs Go and no container engine. The same commit and Go make the same bytes in every
# directory: times are SOURCE_DATE_EPOCH, by default the commit's.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/goflags.sh
unset GOOS GOARCH

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

for arch in ${ARCHES:-amd64 arm64}; do
	GOOS=linux GOARCH=$arch scripts/build.sh "$work/binaries/$arch"
done
(cd scripts/tools/image && quietly go build -o "$work/image" .)
"$work/image" -binaries "$work/binaries" -source . -out "${1:-bin/image}" \
	-name localhost/braid -version "$(scripts/version.sh)" -revision "$(git rev-parse HEAD)" \
	-created "${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}" ${PUSH:+-push "$PUSH"}
