#!/usr/bin/env bash
# lab.sh builds the Kubernetes node that the tests run on, from the Go modules pinned in
# e2e/cluster and e2e/cluster/crio.
#
#   scripts/lab.sh api    what tests against a real API server need: etcd, kube-apiserver
#   scripts/lab.sh node   also kubectl, scheduler, controller-manager, kubelet, and containerd with
#                         its shim and ctr
#   scripts/lab.sh crio   all of it: also CRI-O and its pinns, which is C
#   scripts/lab.sh dir    prints the directory that holds the binaries, built or not
#
# The directory lies in a cache outside the clone (BRAID_CACHE, default ~/.cache/braid), so that a
# fresh clone is warm, and is named after a hash of the pins, so that a changed pin builds anew and
# two clones with different pins do not disturb each other. A binary that is there is complete: it
# is built under another name and renamed.
set -euo pipefail

. "$(dirname "${BASH_SOURCE[0]}")/goflags.sh"
module=$(cd "$(dirname "${BASH_SOURCE[0]}")/../e2e/cluster" && pwd)
cache=${BRAID_CACHE:-$HOME/.cache/braid}
dir=$cache/lab-$(cat "$module"/{,crio/}go.{mod,sum} | sha256sum | cut -c1-12)

say() { printf 'lab: %s\n' "$*" >&2; }

usage() {
	say "usage: ${0##*/} api|node|crio|dir"
	exit 2
}

# pinned MODULE prints the version that e2e/cluster/go.mod requires.
pinned() {
	awk -v m="$1" '$1 == m && $2 ~ /^v/ { print $2; exit }' "$module/go.mod"
}

# made NAME COMMAND... has a command, which is given the path of a file, make one binary, unless it
# is there.
made() {
	local name=$1 start=$SECONDS
	shift
	[ -x "$dir/$name" ] && return
	local tmp=$dir/.$name.tmp
	if ! "$@" "$tmp"; then
		say "building $name failed"
		return 1
	fi
	mv -f "$tmp" "$dir/$name"
	say "built $name in $((SECONDS - start)) s"
}

# build NAME PACKAGE makes a binary of a package that e2e/cluster requires.
build() { made "$1" compile "$module" '' "$2"; }

# compile MODULE TAGS PACKAGE FILE. -s -w strips: kube-apiserver shrinks by a third, and its start
# with it. GOGC: the compiler, a Go program too, collects its garbage less often.
compile() {
	(cd "$1" && GOGC=400 quietly go build -tags "$2" -ldflags "-s -w $versions" -o "$4" "$3")
}

# compile_pinns FILE makes the program by which CRI-O pins namespaces.
compile_pinns() {
	local source
	source=$(cd "$module/crio" && quietly go list -m -f '{{.Dir}}' github.com/cri-o/cri-o) &&
		gcc -std=c99 -Os -static -o "$1" "$source"/pinns/src/*.c
}

case ${1-} in
dir)
	printf '%s\n' "$dir"
	exit 0
	;;
api | node | crio) ;;
*) usage ;;
esac

# Without these, components report v0.0.0-master: kubectl refuses such a server, and the kubelet
# such a node.
kubernetes=$(pinned k8s.io/kubernetes)
major_minor=${kubernetes#v}
major=${major_minor%%.*}
minor=${major_minor#*.}
minor=${minor%%.*}
versions=
for package in k8s.io/component-base/version k8s.io/client-go/pkg/version; do
	versions+=" -X $package.gitVersion=$kubernetes"
	versions+=" -X $package.gitMajor=$major -X $package.gitMinor=$minor"
done
containerd=github.com/containerd/containerd/v2
versions+=" -X $containerd/version.Version=$(pinned $containerd)"

mkdir -p "$dir"
# One builder at a time: a second one waits and then finds everything there, instead of compiling
# the same on the same cores.
exec 9>"$dir/.lock"
flock 9
rm -f "$dir"/.*.tmp # of a build that was killed

build etcd go.etcd.io/etcd/server/v3
build kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver
[ "$1" != api ] || exit 0
build kubectl k8s.io/kubernetes/cmd/kubectl
build kube-controller-manager k8s.io/kubernetes/cmd/kube-controller-manager
build kube-scheduler k8s.io/kubernetes/cmd/kube-scheduler
build kubelet k8s.io/kubernetes/cmd/kubelet
build containerd $containerd/cmd/containerd
build containerd-shim-runc-v2 $containerd/cmd/containerd-shim-runc-v2
build ctr $containerd/cmd/ctr
[ "$1" = crio ] || exit 0
made crio compile "$module/crio" \
	'containers_image_openpgp exclude_graphdriver_btrfs btrfs_noversion' \
	github.com/cri-o/cri-o/cmd/crio
made pinns compile_pinns
