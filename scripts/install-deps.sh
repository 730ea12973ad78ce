#!/usr/bin/env bash
# install-deps.sh installs the Debian or Ubuntu packages that tests and demo need, and only those
# that are missing. Go is not among them. Groups may be combined:
#
#   scripts/install-deps.sh base    links, netns, packet filter, and a C compiler for go test -race
#   scripts/install-deps.sh node    base, and what a Kubernetes node needs beside the binaries of
#                                   scripts/lab.sh: runc, CRI-O's helpers, a DHCP server
#   scripts/install-deps.sh uml     a kernel that boots as a process, for links that the machine's
#                                   own kernel lacks
#   scripts/install-deps.sh lint    what checks scripts
set -euo pipefail

# Many of the commands looked for are root's, and not every root has them in the path.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

say() { printf 'install-deps: %s\n' "$*" >&2; }

# Each entry is PACKAGE, or PACKAGE=COMMAND where any provider of the command will do, as with a
# runc that came with Docker.
base=(make gcc libc6-dev util-linux iproute2=ip iptables nftables=nft)
node=("${base[@]}" runc conmon skopeo dnsmasq-base=dnsmasq)
uml=(user-mode-linux=linux.uml kmod=modprobe gcc libc6-dev)
lint=(shellcheck)

wanted=()
for group in "$@"; do
	case $group in
	base) wanted+=("${base[@]}") ;;
	node) wanted+=("${node[@]}") ;;
	uml) wanted+=("${uml[@]}") ;;
	lint) wanted+=("${lint[@]}") ;;
	*) set -- && break ;;
	esac
done
if [ $# -eq 0 ]; then
	say "usage: ${0##*/} base|node|uml|lint ..."
	exit 2
fi

installed() {
	local package=$1 command=$2
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] ||
		command -v "$command" >/dev/null
}

missing=()
for entry in "${wanted[@]}"; do
	installed "${entry%%=*}" "${entry#*=}" || missing+=("${entry%%=*}")
done
[ ${#missing[@]} -gt 0 ] || exit 0

if [ "$(id -u)" -ne 0 ]; then
	say "missing: ${missing[*]}; run this as root"
	exit 1
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
# Another apt may be at work on a machine that has just booted. Recommended packages would bring a
# hundred megabytes and a daemon or two.
apt() {
	DEBIAN_FRONTEND=noninteractive apt-get -y -q -o DPkg::Lock::Timeout=300 "$@" >>"$log" 2>&1
}
start=$SECONDS
if ! { apt update && apt install --no-install-recommends "${missing[@]}"; }; then
	cat "$log" >&2
	say "installing ${missing[*]} failed"
	exit 1
fi
say "installed ${missing[*]} in $((SECONDS - start)) s"
