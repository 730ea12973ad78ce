#!/usr/bin/env bash
# tools.sh NAME builds a pinned tool, unless it is there, and prints its path: "$(scripts/tools.sh
# gotestsum)" --version
#
# The tools and their versions are the `tool` lines of scripts/tools/go.mod, or that of
# scripts/tools/NAME/go.mod. They are kept in a cache outside the clone (BRAID_CACHE, default
# ~/.cache/braid), in a directory named after a hash of the pins and of Go's version. A binary that
# is there is complete.
set -euo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/tools"
. ../goflags.sh
cache=${BRAID_CACHE:-$HOME/.cache/braid}

say() { printf 'tools: %s\n' "$*" >&2; }

[ $# = 1 ] || {
	say "usage: ${0##*/} NAME"
	exit 2
}
name=$1
if [ -f "$name/go.mod" ]; then
	cd "$name"
fi
dir=$cache/tools-$({
	go version
	cat go.mod go.sum
} | sha256sum | cut -c1-12)

if [ ! -x "$dir/$name" ]; then
	# Not by `go list tool`, which downloads what all of them are made of.
	pick="s|^tool \([^(]*\)\$|\1|p; /^tool (/,/^)/s|^\t\(.*/$name\)\$|\1|p"
	package=$(sed -n "$pick" go.mod | grep .) || {
		say "scripts/tools/go.mod pins no tool $name"
		exit 1
	}
	mkdir -p "$dir"
	# One builder of a tool at a time: a second one waits and then finds it there.
	exec 9>"$dir/.$name.lock"
	flock 9
	if [ ! -x "$dir/$name" ]; then
		start=$SECONDS
		say "building $name"
		GOGC=400 quietly go build -ldflags '-s -w' -o "$dir/.$name.new" "$package"
		mv "$dir/.$name.new" "$dir/$name"
		say "built $name in $((SECONDS - start)) s"
	fi
fi
printf '%s\n' "$dir/$name"
