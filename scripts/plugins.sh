#!/usr/bin/env bash
# plugins.sh builds the reference CNI plugins that the tests, the demo and the benchmark delegate
# to.
#
#   scripts/plugins.sh        builds what is missing; prints the directory
#   scripts/plugins.sh dir    prints the directory that holds them, built or not
#
# They come from the module cache at the version that go.mod pins: each is a `tool` of go.mod. The
# directory lies in a cache outside the clone (BRAID_CACHE, default ~/.cache/braid) and is named
# after the versions of all modules that go into them and of Go itself, so that a changed pin builds
# anew and two clones do not disturb each other. A directory that is there is complete.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/.."
. scripts/goflags.sh
cache=${BRAID_CACHE:-$HOME/.cache/braid}
module=github.com/containernetworking/plugins

say() { printf 'plugins: %s\n' "$*" >&2; }

case ${1-build} in
build | dir) ;;
*)
	say "usage: ${0##*/} [dir]"
	exit 2
	;;
esac

export GOOS=linux
version=$(quietly go list -m -f '{{.Version}}' "$module")
mapfile -t packages < <(quietly go list -f "{{.ImportPath}}" tool | grep "^$module/" | sort)
[ ${#packages[@]} -gt 0 ] || {
	say "go.mod has no tool of $module"
	exit 1
}
hash=$({
	go version
	printf '%s\n' "${packages[@]}"
	quietly go list -deps -f '{{with .Module}}{{.Path}} {{.Version}}{{end}}' "${packages[@]}" | sort -u
} | sha256sum | cut -c1-12)
dir=$cache/plugins-$hash

if [ "${1-build}" = build ] && [ ! -d "$dir" ]; then
	mkdir -p "$cache"
	# One builder at a time: a second one waits and then finds everything there, instead of
	# compiling the same on the same cores.
	exec 9>"$cache/.plugins.lock"
	flock 9
	if [ ! -d "$dir" ]; then
		start=$SECONDS
		say "building ${#packages[@]} reference plugins $version"
		tmp=$(mktemp -d "$cache/.plugins.XXXXXX")
		trap 'rm -rf "$tmp"' EXIT
		chmod 755 "$tmp"
		quietly go build -o "$tmp/" \
			-ldflags "-s -w -X $module/pkg/utils/buildversion.BuildVersion=$version" "${packages[@]}"
		mv -T "$tmp" "$dir"
		say "built in $((SECONDS - start)) s"
	fi
fi
printf '%s\n' "$dir"
